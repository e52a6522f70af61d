"""The outbox: never in the way, every loss counted, closed in time."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event as Flag
from time import monotonic, sleep

import pytest

from clipdeploy.errors import InputError, OutputError
from clipdeploy.runtime.stream.records import Event
from clipdeploy.runtime.stream.sinks import Callback, Outbox


def event(frame: int) -> Event:
    return Event("appeared", "red circle", "door", 0.0, 0.0, frame, 0.5)


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    ends = monotonic() + seconds
    while not true():
        assert monotonic() < ends, "waited in vain"
        sleep(0.005)


class Slow:
    """Takes nothing until it is let go; fails `refusals` times before it takes an event."""

    name = "slow"

    def __init__(self, refusals: int = 0, free: bool = False) -> None:
        self.free = Flag()
        if free:
            self.free.set()
        self.refusals = refusals
        self.taken: list[int] = []
        self.closed = 0

    def write(self, event: Event) -> None:
        self.free.wait(30)
        if self.refusals:
            self.refusals -= 1
            raise OutputError("not now")
        self.taken.append(event.frame)

    def close(self) -> None:
        self.closed += 1


def test_every_sink_gets_every_event_in_order() -> None:
    one, two = Slow(free=True), Slow(free=True)
    outbox = Outbox([one, two])
    for frame in range(50):
        outbox.put(event(frame))
    outbox.close()
    assert one.taken == two.taken == list(range(50))
    assert (one.closed, two.closed) == (1, 1)
    assert [(s.delivered, s.lost, s.waiting) for s in outbox.stats()] == [(50, 0, 0)] * 2


def test_a_sink_that_hangs_holds_up_neither_the_stream_nor_the_others() -> None:
    hangs, works = Slow(), Slow(free=True)
    outbox = Outbox([hangs, works], largest=5)
    began = monotonic()
    for frame in range(1000):
        outbox.put(event(frame))
        if frame % 4 == 3:
            wait_until(lambda: outbox.stats()[1].waiting == 0)
    assert works.taken == list(range(1000))
    stats = outbox.stats()[0]
    assert stats.waiting <= 6  # five, and one in hand
    assert stats.lost + stats.waiting == 1000
    outbox.close(timeout=0.1)
    assert monotonic() - began < 8
    assert outbox.stats()[0].lost == outbox.lost == 1000
    hangs.free.set()


def test_a_sink_that_refuses_is_asked_again_and_nothing_is_lost() -> None:
    sink = Slow(refusals=2, free=True)
    outbox = Outbox([sink])
    outbox.put(event(1))
    wait_until(lambda: outbox.stats()[0].error == "not now")
    outbox.put(event(2))
    wait_until(lambda: sink.taken == [1, 2])
    outbox.close()
    assert outbox.stats()[0].error is None
    assert outbox.lost == 0


def test_at_the_end_what_no_sink_takes_is_lost_in_time() -> None:
    sink = Slow(refusals=10**9, free=True)
    outbox = Outbox([sink])
    for frame in range(3):
        outbox.put(event(frame))
    began = monotonic()
    outbox.close(timeout=0.3)
    assert monotonic() - began < 3
    assert outbox.stats()[0].lost == 3
    assert sink.closed == 1
    outbox.put(event(9))
    assert outbox.lost == 4
    outbox.close()  # twice is no harm
    assert sink.closed == 1


def test_a_function_that_raises_costs_its_event_alone() -> None:
    taken: list[int] = []

    def odd_only(event: Event) -> None:
        if event.frame % 2 == 0:
            raise KeyError(event.frame)
        taken.append(event.frame)

    outbox = Outbox([Callback(odd_only)])
    for frame in range(5):
        outbox.put(event(frame))
    outbox.close()
    stats = outbox.stats()[0]
    assert taken == [1, 3]
    assert (stats.delivered, stats.lost) == (2, 3)
    assert stats.error == "KeyError: 4"
    assert "odd_only" in stats.sink


def test_a_size_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="largest"):
        Outbox([], largest=0)
