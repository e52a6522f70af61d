"""What README.md and the head of docs/benchmarks.md say of the peers; the whole of it is `bench.peers.page`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.pages.section import markdown_table
from bench.peers.standings import GATES, WORKS, Contest, Figures, WorkKind, contests, figures

_OF_THE_GATE = 3
"""So many works, the first ones, depend on how exact answers are; the others are of the peer as it is."""
_WORK = {work.name: work for work in WORKS}
_SHOWN = ("a folder of JPEGs", "one JPEG", "texts", "import and first answer", "installed")


def comparison_table(record: dict[str, Any]) -> str:
    """Of each peer its fastest mode at each gate that it passes, the fastest first; then who passes none."""
    works = [_WORK[name] for name in _SHOWN]
    lines = []
    for gate in (*reversed(GATES), None):
        fastest: dict[str, Figures] = {}
        for row in sorted(figures(record), key=lambda row: row.folder_ms):
            if row.gate == gate:
                fastest.setdefault(row.peer, row)
        for row in fastest.values():
            name = f"**{row.name}**" if row.ours else row.name
            lines.append((name, gate or "neither", *(_told(work, row) for work in works)))
    return markdown_table(("", "gate", *_SHOWN), lines)


def better_peers(record: dict[str, Any]) -> list[str]:
    """Where a peer is better than the best of ours, a sentence each."""
    return [
        f"{_name(one)}: {one.theirs.name}, {_told(_WORK[one.work], one.theirs)}; ours at best, {one.ours.name}, "
        f"{_told(_WORK[one.work], one.ours)}."
        for one in _contests(record)
        if one.ours and one.theirs and one.times is not None and one.times < 1
    ]


def best_lines(record: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """For each work and gate: its name, the best of ours, what it reaches, and the best of the peers with the same."""
    return [
        (
            _name(one),
            f"`{one.ours.peer}`, {one.ours.mode}",
            _told(_WORK[one.work], one.ours),
            f"{one.theirs.name}: {_told(_WORK[one.work], one.theirs)}",
        )
        for one in _contests(record)
        if one.ours and one.theirs
    ]


def _contests(record: dict[str, Any]) -> Sequence[Contest]:
    """All that say something of their own: one a work where the gate makes no difference."""
    of_the_gate = [work.name for work in WORKS[:_OF_THE_GATE]]
    return [one for one in contests(figures(record)) if one.work in of_the_gate or one.gate == GATES[-1]]


def _name(contest: Contest) -> str:
    gate = f", {contest.gate} gate" if contest.work in [work.name for work in WORKS[:_OF_THE_GATE]] else ""
    return f"{contest.work}{gate}"


def _told(work: WorkKind, row: Figures) -> str:
    value = work.value(row)
    return "" if value is None else work.text(value)
