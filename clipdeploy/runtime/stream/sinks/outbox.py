"""Hands events to sinks, in threads of its own, so that no broker and no disk ever holds up a frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Condition, Thread
from time import monotonic

from clipdeploy.errors import InputError, OutputError
from clipdeploy.runtime.stream.records import Event
from clipdeploy.runtime.stream.sinks.base import Sink

_FIRST_S, _LONGEST_S = 0.1, 5.0  # between two attempts to deliver an event


@dataclass(frozen=True)
class SinkStats:
    """Counts of one sink: put = delivered + lost + waiting.

    Attributes:
        sink: its name.
        delivered: events that it took.
        lost: those that it could not take: too many waited, its function raised, or time was up at the end.
        waiting: those that wait now.
        error: what it said last; None once it takes events again.
    """

    sink: str
    delivered: int
    lost: int
    waiting: int
    error: str | None


class _Lane:
    """One sink, its thread, and the events that wait for it."""

    def __init__(self, sink: Sink, largest: int) -> None:
        self._sink, self._largest = sink, largest
        self._changed = Condition()
        self._queue: deque[Event] = deque()
        self._in_hand = 0
        self._delivered = self._lost = 0
        self._error: str | None = None
        self._ends: float | None = None  # on `monotonic`, when `close` was called
        self._thread = Thread(target=self._run, name=f"clipdeploy-events {sink.name}"[:60], daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        """Have an event wait; the one that waits longest is lost where there are too many."""
        with self._changed:
            if self._ends is not None:
                self._lost += 1
                return
            if len(self._queue) >= self._largest:
                self._queue.popleft()
                self._lost += 1
            self._queue.append(event)
            self._changed.notify_all()

    def stats(self) -> SinkStats:
        with self._changed:
            waiting = len(self._queue) + self._in_hand
            return SinkStats(self._sink.name, self._delivered, self._lost, waiting, self._error)

    def end(self, ends: float) -> None:
        """Deliver what waits until `ends`, then stop."""
        with self._changed:
            if self._ends is None:
                self._ends = ends
            self._changed.notify_all()

    def join(self, ends: float) -> None:
        """Wait until it stopped; what a sink then still holds, as one that hangs does, is lost."""
        self._thread.join(max(0.0, ends - monotonic()))
        with self._changed:
            self._give_up()

    def _run(self) -> None:
        while (event := self._next()) is not None:
            self._deliver(event)
        with self._changed:
            self._give_up()
        try:
            self._sink.close()
        except Exception as error:  # noqa: BLE001  a sink of the user's own may raise anything
            self._tell(error)

    def _next(self) -> Event | None:
        with self._changed:
            while not self._queue:
                if self._ends is not None:
                    return None
                self._changed.wait()
            self._in_hand = 1
            return self._queue.popleft()

    def _deliver(self, event: Event) -> None:
        """Give an event to the sink until it takes it."""
        pause_s = _FIRST_S
        while True:
            try:
                self._sink.write(event)
            except OutputError as error:
                self._tell(error)
            except Exception as error:  # noqa: BLE001  a function of the user's own may raise anything
                self._tell(error)
                return self._done(delivered=False)
            else:
                return self._done(delivered=True)
            if not self._pause(pause_s):
                return self._done(delivered=False)
            pause_s = min(2 * pause_s, _LONGEST_S)

    def _pause(self, seconds: float) -> bool:
        """Wait before the next attempt; False when time is up."""
        with self._changed:
            until = monotonic() + seconds
            while True:
                now = monotonic()
                if self._ends is not None:
                    # at the end attempts come quickly, as little time is left
                    until = min(until, now + _FIRST_S, self._ends)
                    if now >= self._ends:
                        return False
                    self._changed.wait(max(0.0, until - now))
                    return True
                if now >= until:
                    return True
                self._changed.wait(until - now)

    def _done(self, *, delivered: bool) -> None:
        with self._changed:
            if not self._in_hand:  # given up meanwhile: counted as lost
                return
            self._in_hand = 0
            self._delivered += delivered
            self._lost += not delivered
            if delivered:
                self._error = None

    def _give_up(self) -> None:
        self._lost += len(self._queue) + self._in_hand
        self._queue.clear()
        self._in_hand = 0

    def _tell(self, error: Exception) -> None:
        with self._changed:
            self._error = error.message if isinstance(error, OutputError) else f"{type(error).__name__}: {error}"


class Outbox:
    """Takes events and delivers each to every sink, in order; one sink never waits for another.

    A sink that fails is tried again, at most 5 s later, for as long as the outbox is open. Meanwhile events wait, at
    most `largest` for each sink; then the oldest are lost. Every loss is counted.

    Args:
        sinks: closed with the outbox.
        largest: events that wait for one sink at most.
    """

    def __init__(self, sinks: Sequence[Sink], largest: int = 1000) -> None:
        if largest < 1:
            raise InputError(f"largest must be a whole number above 0, got {largest!r}")
        self._lanes = tuple(_Lane(sink, largest) for sink in sinks)

    def put(self, event: Event) -> None:
        """Hand over an event; never waits, never raises."""
        for lane in self._lanes:
            lane.put(event)

    def stats(self) -> tuple[SinkStats, ...]:
        """Counts, one record a sink."""
        return tuple(lane.stats() for lane in self._lanes)

    @property
    def lost(self) -> int:
        """Events that a sink could not take, over all sinks."""
        return sum(stats.lost for stats in self.stats())

    def close(self, timeout: float = 5.0) -> None:
        """Deliver what waits, for `timeout` seconds at most; what is left then is lost. Closes the sinks."""
        ends = monotonic() + timeout
        for lane in self._lanes:
            lane.end(ends)
        for lane in self._lanes:
            # a little longer, for a sink to close
            lane.join(ends + 1.0)
