"""Which frames go to the model together: what is there, and what comes in a moment."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from clipdeploy.runtime.stream.desk import Desk
from clipdeploy.runtime.stream.lane import Lane
from clipdeploy.runtime.stream.records import Frame


class Batcher:
    """Takes frames out of inboxes, one of each camera in turn, so that a fast camera never starves a slow one.

    Args:
        desk: of the stream.
        lanes: one a camera.
        largest: frames that one camera gives at most before all others were asked.
    """

    def __init__(self, desk: Desk, lanes: Sequence[Lane], largest: int) -> None:
        self._desk = desk
        self._lanes = list(lanes)
        self._largest = largest
        self._turn = 0
        self._given: Counter[str] = Counter()

    def begin(self) -> None:
        """A new micro-batch is formed; each camera may give anew."""
        self._given.clear()

    def wait(self) -> list[Lane] | None:
        """Wait until there is a frame, or a camera is to be taken leave of: those, or None when all are over."""
        with self._desk.lock:
            while True:
                if self._desk.stopping or all(lane.closed for lane in self._lanes):
                    return None
                now = time.monotonic()
                gone = [lane for lane in self._lanes if lane.is_gone(now)]
                if gone or any(lane.takeable for lane in self._lanes):
                    return gone
                self._desk.arrived.wait(self._until_gone(now))

    def take(self, room: int) -> list[tuple[Lane, Frame]]:
        """At most `room` frames of those that are there, one of each camera in turn."""
        taken: list[tuple[Lane, Frame]] = []
        with self._desk.lock:
            lanes = self._lanes[self._turn :] + self._lanes[: self._turn]
            before = -1
            while before < len(taken) < room:
                before = len(taken)
                for lane in lanes:
                    if len(taken) < room and self._may(lane):
                        self._given[lane.name] += 1
                        taken.append((lane, lane.camera.inbox.take()))
                        self._turn = (self._lanes.index(lane) + 1) % len(self._lanes)
        return taken

    def wait_for_others(self, asked: Sequence[Lane], until: float) -> bool:
        """Wait for a camera that is about to give a frame, and is not in `asked`; False where none does by `until`."""
        with self._desk.lock:
            while not self._desk.stopping:
                if any(self._may(lane) for lane in self._lanes):
                    return True
                now = time.monotonic()
                others = [lane for lane in self._lanes if lane not in asked and lane.is_due(now, until)]
                if now >= until or not others:
                    return False
                self._desk.arrived.wait(until - now)
            return False

    def _may(self, lane: Lane) -> bool:
        return lane.takeable and self._given[lane.name] < self._largest

    def _until_gone(self, now: float) -> float | None:
        waits = [lane.gone_at - now for lane in self._lanes if lane.gone_at is not None]
        return max(0.0, min(waits)) if waits else None
