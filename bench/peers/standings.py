"""What a record says: the figures of each row, who is best at what, and by how much."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

GATES = ("float32", "few bits")
ENCODER_GFLOP = 8.82
"""Of the matrix products of one picture in ViT-B/32, as bench.latency counts them."""


@dataclass(frozen=True)
class Figures:
    """One mode of one peer, by the medians over the rounds of all runs; None for what was not asked of it.

    Attributes:
        folder_ms, single_ms, text_ms: a picture of a folder, a file by itself, a text.
        first_s: import and first answer.
        peak_bytes: of the process after its first answer; installed_bytes: of its packages.
        gate, texts_gate: the strictest that its embeddings of pictures, of texts, pass.
        cosine: the least over the pictures.
        computes: `fp32`, `bf16` or `int8`.
    """

    peer: str
    mode: str
    ours: bool
    needs: str | None
    folder_ms: float
    single_ms: float | None
    text_ms: float | None
    first_s: float | None
    peak_bytes: int | None
    installed_bytes: int
    gate: str | None
    texts_gate: str | None
    cosine: float | None
    texts_cosine: float | None
    computes: str

    @property
    def name(self) -> str:
        return f"{self.peer}, {self.mode}"


@dataclass(frozen=True)
class Contest:
    """Ours and theirs at one work and gate.

    Attributes:
        ours, theirs: the best of each; None where nobody passes.
        times: how many times as good ours is: above 1 is better, whatever the unit.
    """

    work: str
    gate: str
    ours: Figures | None
    theirs: Figures | None
    times: float | None


@dataclass(frozen=True)
class WorkKind:
    """A column: what is compared, and how it reads."""

    name: str
    value: Callable[[Figures], float | None]
    text: Callable[[float], str]
    of_texts: bool = False
    of_peer: bool = False

    def name_of(self, row: Figures) -> str:
        """Whose figure it is: a mode's, or of all modes of a peer."""
        return row.peer if self.of_peer else row.name


WORKS = (
    WorkKind("a folder of JPEGs", lambda row: row.folder_ms, lambda ms: f"{1e3 / ms:.1f} pictures/s"),
    WorkKind("one JPEG", lambda row: row.single_ms, lambda ms: f"{ms:.1f} ms"),
    WorkKind("texts", lambda row: row.text_ms, lambda ms: f"{1e3 / ms:.0f} texts/s", of_texts=True),
    WorkKind("import and first answer", lambda row: row.first_s, lambda seconds: f"{seconds:.2f} s"),
    WorkKind("memory", lambda row: row.peak_bytes, lambda count: f"{count / 1e6:.0f} MB"),
    WorkKind("installed", lambda row: row.installed_bytes, lambda count: f"{count / 1e6:.1f} MB", of_peer=True),
)


def figures(record: dict[str, Any]) -> list[Figures]:
    """Of every row that one of the runs has."""
    sizes = {peer["name"]: peer["installed_bytes"] for peer in record["peers"]}
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in record["runs"]:
        for row in run["rows"]:
            rows.setdefault((row["peer"], row["mode"]), []).append(row)
    return [_figures(of, sizes[peer]) for (peer, _), of in rows.items()]


def _figures(rows: list[dict[str, Any]], installed: int) -> Figures:
    first, exact = rows[0], rows[0]["exactness"] or {}
    memory = [row["memory"]["peak"] for row in rows if row["memory"]]
    folder = _median(rows, "folder_ms")
    assert folder is not None, "a row that was measured has a folder"
    return Figures(
        peer=first["peer"],
        mode=first["mode"],
        ours=first["ours"],
        needs=first["needs"],
        folder_ms=folder,
        single_ms=_median(rows, "single_ms"),
        text_ms=_median(rows, "text_ms"),
        first_s=_median(rows, "first_answer_s"),
        peak_bytes=round(statistics.median(memory)) if memory else None,
        installed_bytes=installed,
        gate=exact.get("gate"),
        texts_gate=exact.get("texts_gate"),
        cosine=exact.get("images_least"),
        texts_cosine=exact.get("texts_least"),
        computes=first["computes"],
    )


def _median(rows: Sequence[dict[str, Any]], key: str) -> float | None:
    values = [value for row in rows for value in row[key]]
    return statistics.median(values) if values else None


def passing(rows: Sequence[Figures], gate: str, *, texts: bool = False) -> list[Figures]:
    """Those whose embeddings pass the gate: what passes in float32 passes with few bits too."""
    allowed = GATES[: GATES.index(gate) + 1]
    return [row for row in rows if (row.texts_gate if texts else row.gate) in allowed]


def contests(rows: Sequence[Figures]) -> list[Contest]:
    """Every work at every gate."""
    return [_contest(rows, work, gate) for work in WORKS for gate in GATES]


def _contest(rows: Sequence[Figures], work: WorkKind, gate: str) -> Contest:
    among = [row for row in passing(rows, gate, texts=work.of_texts) if work.value(row) is not None]
    ours, theirs = (_best([row for row in among if row.ours is own], work) for own in (True, False))
    times = None
    if ours is not None and theirs is not None:
        times = _value(theirs, work) / _value(ours, work)
    return Contest(work.name, gate, ours, theirs, times)


def _best(rows: Sequence[Figures], work: WorkKind) -> Figures | None:
    return min(rows, key=lambda row: _value(row, work), default=None)


def _value(row: Figures, work: WorkKind) -> float:
    value = work.value(row)
    assert value is not None
    return value


def smallest_without_compiler(rows: Sequence[Figures]) -> Figures | None:
    """Of the peers that run with nothing but their packages, whatever gate they pass."""
    theirs = [row for row in rows if not row.ours and row.needs is None]
    return min(theirs, key=lambda row: row.installed_bytes, default=None)


def share_of_ceiling(row: Figures, ceiling: dict[str, float]) -> float | None:
    """Of what the machine does at that precision, what the encoder's products in the time of a folder's picture are."""
    most = ceiling.get(row.computes)
    return None if most is None else ENCODER_GFLOP / row.folder_ms * 1e3 / most


def each_run(record: dict[str, Any]) -> list[tuple[Contest, tuple[float, float]]]:
    """Of every contest, how many times as good ours is in the first and in the second run alone; empty for one run."""
    runs = record["runs"][:2]
    if len(runs) < 2:
        return []
    first, second = (contests(figures({**record, "runs": [run]})) for run in runs)
    return [(a, (a.times, b.times)) for a, b in zip(first, second, strict=True) if a.times and b.times]


def moved(record: dict[str, Any], key: str) -> list[float]:
    """By how much each row's second run differs from its first: 0.03 is three percent; empty for one run."""
    if len(record["runs"]) < 2:
        return []
    first, second = (
        {(row["peer"], row["mode"]): statistics.median(row[key]) for row in run["rows"] if row[key]}
        for run in record["runs"][:2]
    )
    return [abs(second[name] / value - 1.0) for name, value in first.items() if name in second]
