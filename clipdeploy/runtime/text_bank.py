"""The text bank: each label is embedded once, and kept in memory and in the bundle.

A row is looked for in memory, then in the bundle's banks, and only then the text encoder is asked. With one template a
row belongs to the text that the label makes with it, so that every template that makes the same text shares it.
"""

from __future__ import annotations

import shlex
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clipdeploy.bundle import Bundle
from clipdeploy.errors import BundleCorruptError, TextError
from clipdeploy.runtime.labels import DEFAULT_TEMPLATE, TEMPLATES, fill_templates
from clipdeploy.runtime.stored_banks import BankIndex, bank_ids, read_index, read_rows

if TYPE_CHECKING:
    from clipdeploy.runtime.tokenizer import Tokenizer

Rows = NDArray[np.float32]
Encode = Callable[[Sequence[str]], Rows]
"""N texts to (N, D) float32, L2-normalised."""
CheckLengths = Callable[[Sequence[str]], None]
"""Raises TextError for a text that the tokenizer would cut."""
Key = str | tuple[str, tuple[str, ...]]
"""What a row belongs to: a text, or a label and several templates."""

KEPT_SETS = 32
"""Label sets that stay in memory."""
AS_IT_IS = ("{}",)
"""The template of a text that is no label."""
_LABELS_AT_ONCE = 32
_NAMED = 5


@dataclass(frozen=True, eq=False)
class _Kept:
    """Rows and whose they are."""

    keys: dict[Key, int]
    rows: Rows


class TextBank:
    """The rows of labels, each embedded once. Safe to share between threads.

    Args:
        bundle: whose banks are looked into; they are read when they are first needed, and again when they change.
        encode: the text encoder; None where the bundle holds none.
        check_lengths: asked before texts are encoded.
    """

    def __init__(self, bundle: Bundle, encode: Encode | None, check_lengths: CheckLengths | None = None) -> None:
        self._bundle = bundle
        self._encode = encode
        self._check_lengths = check_lengths
        self._sets: OrderedDict[tuple[tuple[str, ...], tuple[str, ...]], _Kept] = OrderedDict()
        self._lock = Lock()  # of `_sets`, held for moments
        self._making = Lock()  # held while rows are made, so that nobody makes the same ones
        self._stored = _Stored(bundle)

    def labels(self, labels: tuple[str, ...], templates: tuple[str, ...]) -> Rows:
        """The rows of K labels: (K, D) float32, L2-normalised, read-only and shared.

        With several templates a row is the mean of the normalised embeddings of its texts, normalised again.

        Args:
            labels: as `check_labels` gives them.
            templates: as `resolve_templates` gives them.

        Raises:
            TextError: a label is too long for the model; or nobody knows it and there is no text encoder.
            BundleCorruptError: a bank of the bundle is altered or of another embedding space.
        """
        return self._of(labels, templates)

    def texts(self, texts: Sequence[str]) -> Rows:
        """The rows of N texts as they are, for a bundle without a text encoder: (N, D) float32; raises as `labels`."""
        with self._making:
            return self._make(tuple(texts), AS_IT_IS).rows

    def clear(self) -> None:
        """Forget what is in memory."""
        with self._lock:
            self._sets.clear()
        with self._making:
            self._stored = _Stored(self._bundle)

    def _of(self, labels: tuple[str, ...], templates: tuple[str, ...]) -> Rows:
        kept = self._kept(labels, templates)
        if kept is None:
            with self._making:
                kept = self._kept(labels, templates)  # another thread may have made them meanwhile
                if kept is None:
                    kept = self._keep(labels, templates, self._make(labels, templates))
        return kept.rows

    def _kept(self, labels: tuple[str, ...], templates: tuple[str, ...]) -> _Kept | None:
        with self._lock:
            kept = self._sets.get((labels, templates))
            if kept is not None:
                self._sets.move_to_end((labels, templates))
            return kept

    def _keep(self, labels: tuple[str, ...], templates: tuple[str, ...], kept: _Kept) -> _Kept:
        kept.rows.setflags(write=False)
        with self._lock:
            self._sets[labels, templates] = kept
            while len(self._sets) > KEPT_SETS:
                self._sets.popitem(last=False)
        return kept

    def _make(self, labels: tuple[str, ...], templates: tuple[str, ...]) -> _Kept:
        """The rows of a label set that is not kept, most of which may be known."""
        keys = row_keys(labels, templates)
        rows = np.empty((len(labels), self._bundle.model.embed_dim), dtype=np.float32)
        missing = self._take(keys, rows, self._recent())
        if missing:
            found = self._stored.find([keys[row] for row in missing], templates)
            for row in missing:
                if keys[row] in found:
                    rows[row] = found[keys[row]]
            missing = [row for row in missing if keys[row] not in found]
        if missing:
            unknown = tuple(labels[row] for row in missing)
            if self._encode is None:
                raise self._unknown(unknown, templates)
            rows[missing] = embed_labels(unknown, templates, self._encode, self._check_lengths)
        return _Kept({key: row for row, key in enumerate(keys)}, rows)

    def _recent(self) -> list[_Kept]:
        with self._lock:
            return list(reversed(self._sets.values()))

    @staticmethod
    def _take(keys: Sequence[Key], rows: Rows, sources: Sequence[_Kept]) -> list[int]:
        """Fill in the rows that `sources` have; gives the others."""
        missing = list(range(len(keys)))
        for source in sources:
            having = [row for row in missing if keys[row] in source.keys]
            if having:
                rows[having] = source.rows[[source.keys[keys[row]] for row in having]]
                missing = [row for row in missing if keys[row] not in source.keys]
            if not missing:
                break
        return missing

    def _unknown(self, labels: tuple[str, ...], templates: tuple[str, ...]) -> TextError:
        named = ", ".join(f"{label!r:.60}" for label in labels[:_NAMED])
        more = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
        noun = "text" if templates == AS_IT_IS else "label"
        nouns = noun if len(labels) == 1 else f"{len(labels)} {noun}s"
        command = bank_command("BUNDLE", labels, templates)
        return TextError(
            f"bundle {self._bundle.folder} has no text encoder, and no bank of it holds the {nouns} {named}{more}"
            + ("" if templates == AS_IT_IS else f" with {_described(templates)}"),
            fix=f"embed what is missing where the text encoder is, and pack again: {command}",
        )


class _Stored:
    """The banks of a bundle, as they are now; one thread at a time."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._space = bundle.manifest.embedding_space
        self._stamp: tuple[int, ...] | None = None
        self._banks: dict[str, tuple[BankIndex, dict[Key, int]]] = {}
        self._rows: dict[str, Rows] = {}

    def find(self, keys: Sequence[Key], templates: tuple[str, ...]) -> dict[Key, Rows]:
        """Those of `keys`, which are of labels with `templates`, that a bank has: (D,) each."""
        while True:
            stamp = self._bundle.stamp()
            try:
                if stamp != self._stamp:
                    self._read(stamp)
                return self._find(keys, templates)
            except BundleCorruptError:
                self._stamp = None
                if self._bundle.stamp() == stamp:
                    raise
                # Another process has added to a bank meanwhile: look again.

    def _read(self, stamp: tuple[int, ...]) -> None:
        """Which banks there are, and whose rows they hold."""
        self._banks, self._rows = {}, {}
        if stamp:  # else the folder is gone, and what is loaded may go on
            self._bundle = self._bundle.as_now()
            if (now := self._bundle.manifest.embedding_space) != self._space:
                raise BundleCorruptError(
                    f"bundle {self._bundle.folder} has been made anew: it is of embedding space {now}, the one that "
                    f"was loaded is of {self._space}",
                    fix="load the bundle again",
                )
            for identity in bank_ids(self._bundle):
                index = read_index(self._bundle, identity)
                place = {key: row for row, key in enumerate(row_keys(index.labels, index.templates))}
                self._banks[identity] = index, place
        self._stamp = stamp

    def _find(self, keys: Sequence[Key], templates: tuple[str, ...]) -> dict[Key, Rows]:
        found = dict[Key, Rows]()
        for identity, (index, place) in self._banks.items():
            if index.templates != templates and not len(index.templates) == len(templates) == 1:
                continue
            having = [key for key in keys if key in place and key not in found]
            if having and identity not in self._rows:
                self._rows[identity] = read_rows(self._bundle, identity, index)
            found.update({key: self._rows[identity][place[key]] for key in having})
        return found


def row_keys(labels: Sequence[str], templates: tuple[str, ...]) -> list[Key]:
    """What the rows of `labels` belong to: with one template the texts, so that each is embedded once."""
    if len(templates) == 1:
        return list(fill_templates(labels, templates))
    return [(label, templates) for label in labels]


def embed_labels(
    labels: Sequence[str], templates: tuple[str, ...], encode: Encode, check_lengths: CheckLengths | None = None
) -> Rows:
    """The rows of K labels, through the text encoder: (K, D) float32, L2-normalised.

    With several templates a row is the mean of the normalised embeddings of its texts, normalised again: the
    ensemble of the CLIP paper, https://arxiv.org/abs/2103.00020, section 3.1.4.
    """
    if check_lengths is not None:
        check_lengths(fill_templates(labels, templates))
    rows = []
    for first in range(0, len(labels), _LABELS_AT_ONCE):  # 1,000 labels with 80 templates would not fit as one
        some = labels[first : first + _LABELS_AT_ONCE]
        embeds = encode(fill_templates(some, templates)).reshape(len(some), len(templates), -1)  # (k, T, D)
        rows.append(embeds[:, 0] if len(templates) == 1 else _unit(embeds.mean(axis=1, dtype=np.float64)))
    return np.concatenate(rows)


def check_lengths(texts: Sequence[str], tokenizer: Callable[[], Tokenizer], context_length: int) -> None:
    """Raise TextError for a text that the tokenizer, which is made where it is needed, would cut."""
    for text in texts:
        # A byte becomes one id at most, and cleaning does not double a text.
        if 2 * len(text.encode("utf-8", "surrogatepass")) + 2 <= context_length:
            continue
        if (count := tokenizer().count(text)) > context_length:
            raise TextError(
                f"a label is too long: {_shortened(text)!r} has {count} tokens, the model reads {context_length}",
                fix="shorten the label or the template",
            )


def bank_command(bundle: Path | str, labels: Sequence[str], templates: tuple[str, ...]) -> str:
    """The command that banks labels, for people."""
    told = [f"--label {shlex.quote(label)}" for label in labels] if len(labels) <= _NAMED else ["--labels-file FILE"]
    names = [name for name, known in TEMPLATES.items() if known == templates]
    if templates != (DEFAULT_TEMPLATE,):
        told += [f"--template {name}" for name in names] or [f"--template {shlex.quote(one)}" for one in templates]
    return " ".join([f"clipdeploy bank {bundle}", *told])


def _described(templates: tuple[str, ...]) -> str:
    """Such as `the template 'a photo of a {}.'`."""
    return f"the template {templates[0]!r}" if len(templates) == 1 else f"these {len(templates)} templates"


def _unit(vectors: NDArray[np.float64]) -> Rows:
    unit: Rows = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"
