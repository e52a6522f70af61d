"""Cold starts: what a process takes from its start to its first answers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from clipdeploy.benchmark.records import ColdStart
from clipdeploy.benchmark.turns import Count, Turns, started

_MARKS = ("imported", "loaded", "first_image", "first_text")

HOW = (
    "a fresh process each time, in turns; its files lie in the system's memory from the start before. The clock runs "
    "from before the process is started. The very first process has remembered nothing of the bundle; those counted "
    "remember what it found out."
)


def cold_starts(
    asked: Mapping[str, Mapping[str, Any]],
    starts: int,
    *,
    command: Sequence[str],
    environment: Mapping[str, str],
    count: Count,
) -> tuple[dict[str, ColdStart], dict[str, Exception]]:
    """The cold start of each candidate: one that is not counted but told, and then `starts` that are.

    Args:
        asked: name -> what its process is asked, as `Worker.cold_start` takes it.
        starts: how many to take the median of.
        command: what starts a process.
        environment: variables of it.
        count: how far the run is.

    Returns:
        By name, the start; and the errors of those that failed.
    """
    taken: dict[str, list[dict[str, float | None]]] = {name: [] for name in asked}
    failed: dict[str, Exception] = {}
    names = list(asked)
    for number in range(starts + 1):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            if name in failed:
                count.step()
                continue
            with Turns(started([name], command, environment), count) as turns:
                child = turns.children[name]
                of = f" {number} of {starts}" if number else ", the very first"
                answers = turns.once(f"cold start{of}", lambda name, child: child.ask("cold_start", **asked[name]))
                failed.update(turns.failed)
            if name in answers:
                taken[name].append({"started": child.started, **answers[name]})
    return {name: _start(runs) for name, runs in taken.items() if name not in failed}, failed


def _start(runs: Sequence[Mapping[str, float | None]]) -> ColdStart:
    """The first of them is the very first."""
    steps = [_steps(run) for run in runs]
    counted = steps[1:]

    def median(name: str) -> float | None:
        values = [step[name] for step in counted]
        return None if None in values else statistics.median(value for value in values if value is not None)

    return ColdStart(
        process_s=median("begun") or 0.0,
        import_s=median("imported") or 0.0,
        load_s=median("loaded") or 0.0,
        first_image_s=median("first_image"),
        first_text_s=median("first_text"),
        second_image_ms=median("second_image_ms"),
        whole_s=median("whole") or 0.0,
        first_ever_s=steps[0]["whole"],
    )


def _steps(run: Mapping[str, float | None]) -> dict[str, float | None]:
    """Seconds of each step, from the clock after each; None for a step that there is none of."""
    begun, start = run["begun"], run["started"]
    assert begun is not None and start is not None
    steps: dict[str, float | None] = {"begun": begun - start}
    before = begun
    for mark in _MARKS:
        now = run[mark]
        steps[mark] = None if now is None else now - before
        before = before if now is None else now
    return {**steps, "whole": before - start, "second_image_ms": run["second_image_ms"]}
