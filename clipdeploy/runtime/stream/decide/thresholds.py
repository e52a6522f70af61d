"""How well each label must fit to be in view, measured once and kept in a JSON file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any

from clipdeploy.errors import InputError, OutputError
from clipdeploy.runtime.stream.decide.presence import Levels
from clipdeploy.spec import from_dict, to_dict

_SCHEMA = 1
_AGAIN = "calibrate again with `clipdeploy thresholds`, for these labels and this bundle"


@dataclass(frozen=True)
class Thresholds:
    """Levels of logits for K labels.

    Attributes:
        labels: K distinct texts.
        values: of each label the logit above which it comes into view.
        margins: of each label how far below its value it must fall to leave; empty takes 0 for all.
        false_alarms: the share of negatives that may pass, of each label; None for values set by hand.
        negatives: how many there were; 0 for values set by hand.
        embedding_space: of the model; None is not checked, nor are the next two.
        templates: what the labels were put into.
        precision: that the model ran in.
    """

    labels: tuple[str, ...]
    values: tuple[float, ...]
    margins: tuple[float, ...] = ()
    false_alarms: float | None = None
    negatives: int = 0
    embedding_space: str | None = None
    templates: tuple[str, ...] | None = None
    precision: str | None = None

    def __post_init__(self) -> None:
        if not self.labels or len(set(self.labels)) != len(self.labels) or not all(self.labels):
            raise InputError("thresholds: expected distinct labels, at least one", fix="name each label once")
        for name, numbers in (("values", self.values), ("margins", self.margins)):
            if len(numbers) != len(self.labels) and (numbers or name == "values"):
                raise InputError(
                    f"thresholds: expected one of `{name}` for each of {len(self.labels)} labels, got {len(numbers)}"
                )
            if not all(isfinite(number) for number in numbers):
                raise InputError(f"thresholds: `{name}` must be finite numbers")
        if any(margin < 0 for margin in self.margins):
            raise InputError("thresholds: `margins` must not be negative")

    def levels(self, labels: Sequence[str]) -> tuple[Levels, ...]:
        """Where each of these labels comes and leaves.

        A label that none was measured for, as one swapped in while a stream runs, gets the median of those here.
        """
        margins = self.margins or (0.0,) * len(self.labels)
        known = {
            label: Levels(value, value - margin)
            for label, value, margin in zip(self.labels, self.values, margins, strict=True)
        }
        middle = median(self.values)
        other = Levels(middle, middle - median(margins))
        return tuple(known.get(label, other) for label in labels)

    def check(
        self,
        labels: Sequence[str],
        *,
        embedding_space: str | None = None,
        templates: Sequence[str] | None = None,
        precision: str | None = None,
    ) -> None:
        """Whether these thresholds are of these labels and this model; what is None is not compared.

        Raises:
            InputError: a label has no threshold, or they were measured with another model, template or precision.
        """
        missing = [label for label in labels if label not in self.labels]
        if missing:
            raise InputError(
                f"no threshold for {', '.join(map(repr, missing[:5]))}{' and others' if len(missing) > 5 else ''}: "
                f"they are of {', '.join(map(repr, self.labels[:5]))}{' and others' if len(self.labels) > 5 else ''}",
                fix=_AGAIN,
            )
        pairs: tuple[tuple[str, Any, Any], ...] = (
            ("embedding space", self.embedding_space, embedding_space),
            ("templates", self.templates, None if templates is None else tuple(templates)),
            ("precision", self.precision, precision),
        )
        for name, here, there in pairs:
            if here is not None and there is not None and here != there:
                raise InputError(f"these thresholds are of another {name}: {here!r}, not {there!r}", fix=_AGAIN)

    def to_json(self, path: str | Path) -> None:
        """Write them to a file, beside and renamed.

        Raises:
            OutputError: it cannot be written.
        """
        path = Path(path)
        text = json.dumps({"schema": _SCHEMA, **to_dict(self)}, indent=2, ensure_ascii=False) + "\n"
        beside = path.with_name(path.name + ".part")
        try:
            beside.write_text(text, encoding="utf-8")
            beside.replace(path)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error}", fix="choose a writable path") from error

    @classmethod
    def from_json(cls, path: str | Path) -> Thresholds:
        """Read what `to_json` wrote.

        Raises:
            InputError: there is no such file, or it is no file of thresholds.
        """
        path = Path(path)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read thresholds from {path}: {error}", fix=_AGAIN) from error
        if not isinstance(data, dict) or data.pop("schema", None) != _SCHEMA:
            raise InputError(f"{path} is no file of thresholds that this version reads", fix=_AGAIN)
        return from_dict(cls, data, where=str(path))
