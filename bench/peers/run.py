"""One whole run: warm up, hold against the reference, take turns, start afresh."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench.peers.gates import Embedded, Exactness, embedded, exactness
from bench.peers.starts import Starts, starts_of
from bench.peers.steady import FullSpeed
from bench.peers.turns import Row, Work, take_turns, warm_up

REFERENCE = "open_clip, eager"
_LEAST_FREE_BYTES = 2.5e9


def run(
    rows: Sequence[Row], work: Work, *, starts: int, probe: Callable[[], float], reference: str = REFERENCE
) -> tuple[dict[str, Exactness], dict[str, Starts]]:
    """Measure all rows: `Row` keeps the times.

    Args:
        rows: each with its process.
        work: what is asked of them.
        starts: fresh processes of each.
        probe: how fast the machine is at the moment, in ms of some work of its own.
        reference: name of the row that the others are held against.

    Returns:
        How exact each is, and how it starts, by the row's name; rows that failed are left out.
    """
    began = time.perf_counter()
    say = partial(_say, began)
    speed = FullSpeed(probe)
    answers: dict[str, Embedded] = {}
    for heat in heats(rows):
        try:
            answers |= _warm(heat, work, say)
            take_turns(heat, work, speed, say)
        finally:
            for row in heat:
                row.process.close()
    exact = {name: exactness(one, answers[reference]) for name, one in answers.items() if reference in answers}
    # of peers the first mode: their modes differ in what they compute, hardly in what they load
    first = [row for row in rows if row.peer.ours or row.mode is row.peer.modes[0]]
    return exact, starts_of(first, work.pictures[0], starts, say)


def heats(rows: Sequence[Row]) -> list[list[Row]]:
    """Those that compute in float32, and then the others: all of them at once would not fit into usual memories.

    Whoever is compared at one gate mostly runs in the same heat, in which all take turns.
    """
    exact = [row for row in rows if row.mode.computes == "fp32"]
    few = [row for row in rows if row.mode.computes != "fp32"]
    return [heat for heat in (exact, few) if heat]


def _warm(rows: Sequence[Row], work: Work, say: Callable[[str], None]) -> dict[str, Embedded]:
    """Load everybody; what each answers, by name."""
    answers: dict[str, Embedded] = {}
    for row in rows:
        say(f"loading {row.name}")
        if _free_bytes() < _LEAST_FREE_BYTES:
            row.failed = "this machine has not memory enough to hold it beside the others: see --only"
        else:
            warm_up(row, work)
        answer = None if row.failed else embedded(row, work)
        if answer is not None:
            answers[row.name] = answer
        if row.failed:
            say(f"given up: {row.failed}")
    return answers


def _free_bytes() -> float:
    """Of memory that a process could still take; endless where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return float("inf")
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def _say(began: float, what: str) -> None:
    print(f"[{time.perf_counter() - began:6.0f} s] {what}", flush=True)
