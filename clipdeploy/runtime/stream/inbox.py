"""Frames of one camera that wait for their turn, each of them counted."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

from clipdeploy.runtime.stream.desk import Desk
from clipdeploy.runtime.stream.records import Frame

_SLOWLY = 0.2
_RECENT = 64
_SILENT_S = 3.0
"""A camera that gave nothing for so long gives 0 frames a second."""


@dataclass
class Counts:
    """Of one camera, since the stream began; see `CameraStats`."""

    captured: int = 0
    answered: int = 0
    repeated: int = 0
    dropped: int = 0
    failed: int = 0


class Pace:
    """How fast a source gives its frames, the time not counted in which it waits for its turn."""

    def __init__(self) -> None:
        self._gap_s: float | None = None
        self._free: float | None = None
        self._recent: deque[float] = deque(maxlen=_RECENT)

    def came(self, now: float) -> None:
        """A frame came off the source."""
        if self._free is not None:
            gap = now - self._free
            self._gap_s = gap if self._gap_s is None else self._gap_s + _SLOWLY * (gap - self._gap_s)
        self._recent.append(now)

    def free(self, now: float) -> None:
        """The source went back to work."""
        self._free = now

    def broke(self) -> None:
        """The source has broken off; what it gave so far says nothing of what comes."""
        self._gap_s = self._free = None

    def is_due(self, now: float, until: float) -> bool:
        """Whether the next frame should come before `until`; no longer when it is late by half a gap."""
        if self._gap_s is None or self._free is None:
            return False
        due = self._free + self._gap_s
        return due <= until and now <= due + max(0.5 * self._gap_s, 0.001)

    def fps(self, now: float) -> float:
        """Frames a second, over the last seconds."""
        recent = self._recent
        if len(recent) < 2 or now - recent[-1] > _SILENT_S or recent[-1] <= recent[0]:
            return 0.0
        return (len(recent) - 1) / (recent[-1] - recent[0])


class Inbox:
    """Frames of one camera that wait for their turn. `put` is the camera's; all else needs the desk's lock.

    Args:
        desk: of the stream.
        size: frames that wait at most.
        lossless: whether `put` waits for room; otherwise the oldest frame goes, and is counted.
    """

    def __init__(self, desk: Desk, size: int, *, lossless: bool) -> None:
        self.lossless = lossless
        self.counts = Counts()
        self.pace = Pace()
        self.in_hand = 0  # taken, and nothing has become of them yet
        self._desk = desk
        self._size = size
        self._frames: deque[Frame] = deque()
        self._at_the_door = 0

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def waiting(self) -> int:
        """Frames that nothing has become of yet, those with the model too."""
        return len(self._frames) + self.in_hand + self._at_the_door

    def put(self, frame: Frame) -> bool:
        """Have a frame wait; False where the stream is being stopped."""
        with self._desk.lock:
            self.counts.captured += 1
            self.pace.came(time.monotonic())
            if self.lossless:
                self._wait_for_room()
            if self._desk.stopping:
                self.counts.dropped += 1
                return False
            if len(self._frames) >= self._size:
                self._frames.popleft()
                self.counts.dropped += 1
            self._frames.append(frame)
            self.pace.free(time.monotonic())
            self._desk.arrived.notify()
        return True

    def take(self) -> Frame:
        """The oldest frame that waits; it is in hand until `settle`."""
        self.in_hand += 1
        if self.lossless:
            self._desk.room.notify_all()
        return self._frames.popleft()

    def settle(self, *, answered: int = 0, repeated: int = 0, failed: int = 0) -> None:
        """Say what has become of frames that were in hand."""
        self.in_hand -= answered + repeated + failed
        self.counts.answered += answered
        self.counts.repeated += repeated
        self.counts.failed += failed

    def empty(self) -> None:
        """Drop what waits, as the stream ends."""
        self.counts.dropped += len(self._frames)
        self._frames.clear()

    def _wait_for_room(self) -> None:
        self._at_the_door += 1
        while len(self._frames) >= self._size and not self._desk.stopping:
            self._desk.room.wait()
        self._at_the_door -= 1
