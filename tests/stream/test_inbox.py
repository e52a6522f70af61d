"""Where frames and results wait, one at a time."""

from __future__ import annotations

import threading
import time
from typing import Any, cast

import pytest

from clipdeploy.runtime.stream.desk import Desk
from clipdeploy.runtime.stream.inbox import Inbox, Pace
from clipdeploy.runtime.stream.outlet import Outlet
from clipdeploy.runtime.stream.records import Result
from clipdeploy.runtime.stream.stats import Times, Window
from tests.stream.fakes import frame, until


def test_a_live_inbox_keeps_the_newest() -> None:
    inbox = Inbox(Desk(), 2, lossless=False)
    for index in range(5):
        assert inbox.put(frame(index=index))
    assert (inbox.counts.captured, inbox.counts.dropped, inbox.waiting) == (5, 3, 2)
    assert [inbox.take().index, inbox.take().index] == [3, 4]
    assert inbox.waiting == 2  # in hand
    inbox.settle(answered=1)
    inbox.settle(failed=1)
    assert (inbox.counts.answered, inbox.counts.failed, inbox.waiting) == (1, 1, 0)


def test_a_lossless_inbox_waits_for_room_and_lets_go_at_the_stop() -> None:
    desk = Desk()
    inbox = Inbox(desk, 1, lossless=True)
    put: list[bool] = []
    thread = threading.Thread(target=lambda: put.extend(inbox.put(frame(index=index)) for index in range(3)))
    thread.start()
    until(lambda: inbox.waiting == 2)
    with desk.lock:
        assert inbox.take().index == 0
        inbox.settle(repeated=1)
    until(lambda: inbox.counts.captured == 3)
    assert inbox.counts.dropped == 0
    desk.stop()
    thread.join()
    inbox.empty()
    assert put == [True, True, False]
    assert (inbox.counts.dropped, inbox.waiting) == (2, 0)


def test_pace_tells_when_the_next_frame_is_due() -> None:
    pace = Pace()
    assert not pace.is_due(0.0, 100.0)
    for step in range(20):
        pace.came(0.1 * step)
        pace.free(0.1 * step)
    last = 1.9
    assert pace.is_due(last + 0.09, until=last + 0.11)
    assert not pace.is_due(last + 0.01, until=last + 0.05)
    assert not pace.is_due(last + 0.2, until=last + 0.3)  # late: it has paused
    assert pace.fps(last + 0.1) == pytest.approx(10.0)
    assert pace.fps(last + 10.0) == 0.0
    pace.broke()
    assert not pace.is_due(last + 0.09, until=last + 0.11)


def result(camera: str, index: int) -> Result:
    fields: dict[str, Any] = dict.fromkeys(Result.__dataclass_fields__)
    return Result(**{**fields, "frame": frame(camera=camera, index=index)})


def test_an_outlet_is_fair_between_cameras() -> None:
    desk = Desk()
    outlet = Outlet(desk, ("fast", "slow"), 2)
    with desk.lock:
        outlet.put("slow", result("slow", 0))
        for index in range(5):
            outlet.put("fast", result("fast", index))
        outlet.put("slow", result("slow", 1))
    taken = [cast(Result, outlet.take()).frame for _ in range(4)]
    assert [(one.camera, one.index) for one in taken] == [("slow", 0), ("fast", 3), ("fast", 4), ("slow", 1)]
    assert outlet.undelivered == {"fast": 3, "slow": 0}
    desk.finish()
    assert outlet.take() is None


def test_percentiles_are_of_the_last_ones() -> None:
    window = Window(100)
    assert window.percentiles == (0.0, 0.0, 0.0)
    for value in range(1000):
        window.add(float(value))
    p50, p95, p99 = window.percentiles
    assert (round(p50), round(p95), round(p99)) == (950, 994, 998)


def test_the_mean_batch() -> None:
    times = Times()
    assert times.batch == 0.0
    for frames in (1, 4, 4):
        times.ran(0.01, frames)
    assert times.batch == 3.0
    assert times.answer_ms.percentiles[0] == pytest.approx(10.0)


def test_a_frame_waits_for_nobody_once_stopped() -> None:
    desk = Desk()
    desk.stop()
    began = time.monotonic()
    assert not Inbox(desk, 1, lossless=True).put(frame())
    assert time.monotonic() - began < 1.0
