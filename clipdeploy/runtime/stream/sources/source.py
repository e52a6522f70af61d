"""What every source offers, and how its frames are counted, timed and thinned."""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import Event
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from clipdeploy.runtime.stream.records import Frame
from clipdeploy.spec import FrameColor


@runtime_checkable
class Source(Protocol):
    """A camera, a video, a folder of pictures: whatever gives frames.

    Attributes:
        name: for people and events; never holds a password.
        live: whether it goes on without us, so that frames may be lost; otherwise every one is taken, at our pace.

    One that cannot be taken up where it broke, although it is live, says so by an attribute `mends` that is False: a
    file that is damaged breaks at the same place again. Without it what is live mends.
    """

    name: str
    live: bool

    def frames(self, stop: Event) -> Iterator[Frame]:
        """Open it and give its frames until it ends or `stop` is set, which is heeded within about a second.

        A generator: closing it lets go of the device. May be called again after it broke; the count goes on.

        Raises:
            SourceError: it cannot be opened, or has broken off.
        """
        ...


class Stamp:
    """Makes pixels into frames: their camera's name, number and time.

    Args:
        camera: the source's name.
        color: of the pixels.
    """

    def __init__(self, camera: str, color: FrameColor) -> None:
        self._camera = camera
        self._color: FrameColor = color
        self._next = 0

    def count(self) -> int:
        """The number of a frame that has just come off the source, whether it is given on or not."""
        self._next += 1
        return self._next - 1

    def frame(
        self,
        pixels: NDArray[np.uint8],
        index: int,
        *,
        color: FrameColor | None = None,
        captured: float | None = None,
        position: float | None = None,
    ) -> Frame:
        """`pixels` as a frame; `captured` in seconds of `time.monotonic`, None for now."""
        now = time.monotonic()
        captured = now if captured is None else captured
        wall = time.time() - (now - captured)
        return Frame(pixels, color or self._color, self._camera, index, captured, wall, position)


class Thinning:
    """Says which frames are taken where fewer a second are wanted than come.

    Args:
        fps: frames a second at most; None takes all.
    """

    def __init__(self, fps: float | None) -> None:
        self._gap_s = None if fps is None else 1.0 / fps
        self._due: float | None = None

    def takes(self, time_s: float) -> bool:
        """Whether the frame of this time is taken. Times are those of one clock, and grow."""
        if self._gap_s is None:
            return True
        # a frame that comes a little early, by a clock that trembles, is the one that was meant
        if self._due is not None and time_s < self._due - 0.1 * self._gap_s:
            return False
        late = self._due is None or time_s > self._due + self._gap_s
        self._due = (time_s if late or self._due is None else self._due) + self._gap_s
        return True
