"""The progress line: redrawn on a terminal, seldom without one, and silent about quick work."""

from __future__ import annotations

import io

import pytest

from clipdeploy.cli.progress import ProgressLine


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make(*, terminal: bool, enabled: bool = True) -> tuple[ProgressLine, io.StringIO, Clock]:
    stream, clock = io.StringIO(), Clock()
    line = ProgressLine(stream, terminal=terminal, enabled=enabled, clock=clock, heartbeat=False)
    return line, stream, clock


@pytest.mark.parametrize("terminal", [True, False])
def test_quick_work_leaves_no_trace(terminal: bool) -> None:
    line, stream, clock = make(terminal=terminal)
    for done in range(10):
        line("embedding", done, 10)
        clock.now += 0.02
    line.close()
    assert stream.getvalue() == ""


def test_without_a_terminal_a_plain_line_every_five_seconds() -> None:
    line, stream, clock = make(terminal=False)
    for done in range(120):
        line("embedding", done, 120)
        clock.now += 0.125
    line.close()
    assert stream.getvalue().splitlines() == [
        "embedding: 16 of 120 (13 %), 2 s, about 13 s left",
        "embedding: 56 of 120 (46 %), 7 s, about 8 s left",
        "embedding: 96 of 120 (80 %), 12 s, about 3 s left",
    ]


def test_on_a_terminal_one_line_is_redrawn_and_cleared() -> None:
    line, stream, clock = make(terminal=True)
    for done in range(5):
        line("embedding", done, 5)
        clock.now += 0.2
    line.close()
    text = stream.getvalue()
    assert "\n" not in text
    assert text.count("\r\x1b[2Kembedding") == 3
    assert text.endswith("\r\x1b[2K")


def test_time_passes_during_a_silent_step() -> None:
    line, stream, clock = make(terminal=False)
    line("tracing", 0, 0)
    clock.now += 3
    line.tick()
    assert stream.getvalue() == "tracing, 3 s\n"


def test_a_resumed_job_is_not_taken_for_a_fast_one() -> None:
    line, stream, clock = make(terminal=False)
    line("embedding", 900, 1000)
    clock.now += 10
    line("embedding", 950, 1000)
    assert stream.getvalue() == "embedding: 950 of 1000 (95 %), 10 s, about 10 s left\n"


def test_quiet_draws_nothing() -> None:
    line, stream, clock = make(terminal=True, enabled=False)
    clock.now += 10
    line("embedding", 1, 2)
    line.close()
    assert stream.getvalue() == ""


def test_nothing_is_drawn_after_the_end() -> None:
    line, stream, clock = make(terminal=False)
    line.close()
    clock.now += 10
    line("embedding", 1, 2)
    line.tick()
    assert stream.getvalue() == ""
