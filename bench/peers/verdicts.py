"""The bars that were set, hit or missed; and where a peer is better, with the reason and the next step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.peers.standings import (
    ENCODER_GFLOP,
    GATES,
    WORKS,
    Contest,
    Figures,
    contests,
    smallest_without_compiler,
)

FOLDER_TIMES, SINGLE_TIMES, SIZE_SHARE = 1.5, 1.0, 0.5
_FOLDER, _SINGLE, _TEXTS, _FIRST, _MEMORY, _INSTALLED = (work.name for work in WORKS)


def bars(rows: Sequence[Figures], record: dict[str, Any]) -> list[str]:
    """One line for each bar."""
    found = {(one.work, one.gate): one for one in contests(rows)}
    lines = []
    for gate in GATES:
        lines.append(_bar(found[_FOLDER, gate], "End to end, images a second", FOLDER_TIMES, record))
    for gate in GATES:
        lines.append(_bar(found[_SINGLE, gate], "Latency of one JPEG", SINGLE_TIMES, record))
    return [*lines, _size(rows, record)]


def where_peers_are_better(rows: Sequence[Figures], record: dict[str, Any]) -> list[str]:
    """One line for each work and gate at which the best peer is ahead; one for both where it is the same pair."""
    lines: dict[str, list[str]] = {}
    for one in contests(rows):
        if one.times is not None and one.times < 1.0 and one.ours is not None and one.theirs is not None:
            work = next(work for work in WORKS if work.name == one.work)
            told = [
                f"{work.name_of(of)} {work.text(work.value(of))}"  # type: ignore[arg-type]
                for of in (one.theirs, one.ours)
            ]
            line = f"{one.work}: {', '.join(told)}. {_reason(one, record)}"
            lines.setdefault(line, []).append(one.gate)
    return [f"{' and '.join(gates)} gate, {line}" for line, gates in lines.items()]


def _bar(contest: Contest, what: str, asked: float, record: dict[str, Any]) -> str:
    name = f"{what}, {contest.gate} gate"
    if contest.ours is None or contest.theirs is None or contest.times is None:
        return f"{name}: nobody to compare."
    told = f"{name}: {contest.ours.name} is {contest.times:.2f}x {contest.theirs.name}, asked for {asked:.2g}x"
    return f"{told}: {'holds.' if contest.times >= asked else f'missed. {_reason(contest, record)}'}"


def _size(rows: Sequence[Figures], record: dict[str, Any]) -> str:
    ours = min((row for row in rows if row.ours), key=lambda row: row.installed_bytes, default=None)
    theirs = smallest_without_compiler(rows)
    if ours is None or theirs is None:
        return "Installed size: nobody to compare."
    mb, their_mb = ours.installed_bytes / 1e6, theirs.installed_bytes / 1e6
    told = (
        f"Installed size: {ours.peer} is {mb:.1f} MB, the smallest that needs no compiler, {theirs.peer},"
        f" {their_mb:.1f} MB; asked for half of it at most"
    )
    if mb <= SIZE_SHARE * their_mb:
        return f"{told}: holds."
    return f"{told}: missed. {_parts(ours.peer, record)} {_PLAIN[_INSTALLED]}"


def _reason(contest: Contest, record: dict[str, Any]) -> str:
    """Why, and what comes next."""
    if contest.work == _INSTALLED and contest.ours is not None:
        return f"{_parts(contest.ours.peer, record)} {_PLAIN[_INSTALLED]}"
    if contest.work in (_FOLDER, _SINGLE) and contest.ours is not None:
        return _of_ceiling(contest, record)
    return _PLAIN[contest.work]


def _of_ceiling(contest: Contest, record: dict[str, Any]) -> str:
    """How much of the time nobody can save."""
    assert contest.ours is not None
    most = record["ceiling"].get(contest.ours.computes)
    taken = contest.ours.folder_ms if contest.work == _FOLDER else contest.ours.single_ms
    if most is None or taken is None:
        return _PLAIN[contest.work]
    least = ENCODER_GFLOP / most * 1e3
    return (
        f"The encoder's products alone take {least:.1f} ms in {contest.ours.computes} at this machine's ceiling, of"
        f" our {taken:.1f} ms. {_PLAIN[contest.work]}"
    )


def _parts(peer: str, record: dict[str, Any]) -> str:
    found = next(one for one in record["peers"] if one["name"] == peer)
    parts = ", ".join(f"{name} {count / 1e6:.0f} MB" for name, count in list(found["largest"].items())[:4])
    return f"Ours brings {parts}."


_PLAIN = {
    _FOLDER: (
        "Decoding and Pillow's exact resize take the rest, and both cores are full. Next: less work in the resize,"
        " and float32 where it must be, bfloat16 or 8 bits where the gate allows."
    ),
    _SINGLE: (
        "Decoding and Pillow's exact resize take the rest, one after the other for one picture. Next: decoding and"
        " resizing band by band, on both cores."
    ),
    _TEXTS: (
        "Texts of like length are run together, each batch as long as its longest text, in the precision that the gate"
        " allows. Next: 8 bits in the text encoder too."
    ),
    _FIRST: (
        "A first answer of ours imports numpy and the engine, and the engine prepares the graph. Next:"
        " graphs that the engine has prepared beforehand."
    ),
    _MEMORY: (
        "The engine keeps its own copy of the weights in the order that its kernels want, in the precision of the"
        " graph. Next: 8-bit graphs for both encoders, and weights that are mapped and shared."
    ),
    _INSTALLED: (
        "Smaller ones have an engine for one architecture, and neither numpy nor an exact resize. Next: the demo"
        " checkpoints in an extra, and an engine that is built with CLIP's operators alone."
    ),
}
