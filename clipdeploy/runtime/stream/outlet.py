"""Results that wait for the app: newest kept where cameras are live, none lost where they are files."""

from __future__ import annotations

from collections import deque

from clipdeploy.runtime.stream.desk import Desk
from clipdeploy.runtime.stream.records import Result


class Outlet:
    """Results of all cameras, in the order in which they were made. `take` is the app's; all else needs the lock.

    A slow app loses the oldest results of the camera that gave too many, so that a fast camera takes no place of a slow
    one; they are counted. Those of a source that loses nothing are never dropped: who makes them asks `room` first.

    Args:
        desk: of the stream.
        cameras: their names.
        size: results of one camera that wait at most.
    """

    def __init__(self, desk: Desk, cameras: tuple[str, ...], size: int) -> None:
        self.undelivered = dict.fromkeys(cameras, 0)
        self._desk = desk
        self._size = size
        self._results: dict[str, deque[tuple[int, Result]]] = {camera: deque() for camera in cameras}
        self._made = 0

    def room(self, camera: str) -> int:
        """How many more results of a camera can wait without one being lost."""
        return self._size - len(self._results[camera])

    def put(self, camera: str, result: Result) -> None:
        """Have a result wait; the oldest of its camera goes where there are too many."""
        waiting = self._results[camera]
        if len(waiting) >= self._size:
            waiting.popleft()
            self.undelivered[camera] += 1
        waiting.append((self._made, result))
        self._made += 1
        self._desk.ready.notify()

    def take(self) -> Result | None:
        """The oldest result that waits; waits for one. None when all is over, and at once when stopping."""
        with self._desk.lock:
            while True:
                heads = [waiting for waiting in self._results.values() if waiting]
                if heads and not self._desk.stopping:
                    self._desk.arrived.notify()
                    return min(heads, key=lambda waiting: waiting[0][0]).popleft()[1]
                if self._desk.over:
                    return None
                self._desk.ready.wait()

    def empty(self) -> None:
        """Drop what waits, as the stream was stopped."""
        for camera, waiting in self._results.items():
            self.undelivered[camera] += len(waiting)
            waiting.clear()
