"""What was seen last, kept for all who show it: any number of threads may look."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Condition, Lock

from clipdeploy.runtime.stream.records import Event, Result, StreamStats

KEPT_EVENTS = 100
_STATS_EVERY_S = 0.5


@dataclass(frozen=True, eq=False)
class Seen:
    """The newest result of a camera; `number` counts them from 1."""

    number: int
    result: Result


@dataclass(frozen=True)
class Told:
    """An event; `number` counts them from 1."""

    number: int
    event: Event


class Board:
    """Newest results, newest events, counts.

    Args:
        cameras: names of the sources, in the order they are shown.
        stats: the stream's own counts.
        clock: seconds, for tests.
    """

    def __init__(
        self, cameras: Sequence[str], stats: Callable[[], StreamStats], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.cameras = tuple(cameras)
        self._stats, self._clock = stats, clock
        self._changed = Condition()
        self._seen: dict[str, Seen] = {}
        self._events: deque[Told] = deque(maxlen=KEPT_EVENTS)
        self._told = 0
        self._since: dict[tuple[str, str], float] = {}
        self._closed = False
        self._counting = Lock()
        self._counted: tuple[float, StreamStats] | None = None

    def take(self, result: Result) -> None:
        """Keep a result as its camera's newest."""
        camera = result.frame.camera
        with self._changed:
            before = self._seen.get(camera)
            self._seen[camera] = Seen(before.number + 1 if before else 1, result)
            self._changed.notify_all()

    def event(self, event: Event) -> None:
        """Keep an event, and from when on its label is in view."""
        with self._changed:
            self._told += 1
            self._events.append(Told(self._told, event))
            if event.kind == "appeared":
                self._since[event.camera, event.label] = event.time_s
            else:
                self._since.pop((event.camera, event.label), None)
            self._changed.notify_all()

    def newest(self, camera: str) -> Seen | None:
        """The camera's newest result; None before the first."""
        with self._changed:
            return self._seen.get(camera)

    def wait(self, camera: str, after: int, timeout_s: float) -> Seen | None:
        """A result newer than number `after`; None when none came in time, or all is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._number(camera) > after, timeout_s)
            return self._seen[camera] if self._number(camera) > after else None

    def events(self, after: int = 0) -> tuple[Told, ...]:
        """The kept events newer than number `after`, oldest first."""
        with self._changed:
            return tuple(told for told in self._events if told.number > after)

    def in_view_s(self, camera: str, label: str) -> float | None:
        """How long a label has been in a camera's view; None where it is not."""
        with self._changed:
            since, seen = self._since.get((camera, label)), self._seen.get(camera)
            return max(seen.result.frame.time_s - since, 0.0) if seen and since is not None else None

    def stats(self, *, fresh: bool = False) -> StreamStats:
        """The stream's counts, not older than half a second."""
        with self._counting:
            now = self._clock()
            if fresh or self._counted is None or now - self._counted[0] >= _STATS_EVERY_S:
                self._counted = (now, self._stats())
            return self._counted[1]

    @property
    def closed(self) -> bool:
        """Whether all is over."""
        return self._closed

    def close(self) -> None:
        """Nothing more comes: wake those who wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _number(self, camera: str) -> int:
        seen = self._seen.get(camera)
        return seen.number if seen else 0
