"""Sources and models for tests of a stream: small pictures, and answers that can be told from them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Event, Lock

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import SourceError
from clipdeploy.runtime.scores import probabilities
from clipdeploy.runtime.stream.records import Frame, Scores

DARK, BRIGHT = "dark", "bright"


def pixels(value: int = 0, size: tuple[int, int] = (24, 32)) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, all of one value."""
    return np.full((*size, 3), value, np.uint8)


def frame(
    value: int = 0,
    *,
    camera: str = "cam",
    index: int = 0,
    time_s: float | None = None,
    size: tuple[int, int] = (24, 32),
) -> Frame:
    """A frame of one value, captured now, or at `time_s` of a file."""
    return Frame(pixels(value, size), "rgb", camera, index, time.monotonic(), time.time(), time_s)


@dataclass
class FakeSource:
    """Gives `count` frames, one each `gap_s`, of values that `value` gives for an index.

    Attributes:
        breaks: indices before which it raises SourceError, once each; a later call goes on there.
        opens: how many of the first calls find nothing there.
        waits: whether it waits at the end, as a camera without a picture, until it is stopped.
    """

    name: str = "cam"
    live: bool = True
    count: int | None = 10
    gap_s: float = 0.0
    value: Callable[[int], int] = lambda index: 40 * (index % 6)
    breaks: tuple[int, ...] = ()
    refuses: int = 0
    waits: bool = False
    opened: int = 0
    closed: int = 0
    given: int = 0
    _broken: set[int] = field(default_factory=set)

    def frames(self, stop: Event) -> Iterator[Frame]:
        self.opened += 1
        if self.opened <= self.refuses:
            raise SourceError(f"{self.name} is not there", fix="plug it in")
        try:
            while not stop.is_set() and (self.count is None or self.given < self.count):
                index = self.given
                if index in self.breaks and index not in self._broken:
                    self._broken.add(index)
                    raise SourceError(f"{self.name} broke off before frame {index}")
                self.given += 1
                position = None if self.live else 0.04 * index
                yield Frame(pixels(self.value(index)), "rgb", self.name, index, time.monotonic(), time.time(), position)
                if self.gap_s and stop.wait(self.gap_s):
                    return
            if self.waits:
                stop.wait()
        finally:
            self.closed += 1


class FakeAnswerer:
    """Says `dark` or `bright` of a frame by its mean; takes `seconds` for a run, and fails where `fails` says so.

    Attributes:
        runs: of each run the camera and index of its frames.
    """

    def __init__(
        self,
        labels: Sequence[str] = (DARK, BRIGHT),
        *,
        seconds: float = 0.0,
        fails: Callable[[Sequence[Frame]], Exception | None] = lambda frames: None,
    ) -> None:
        self.labels = tuple(labels)
        self.runs: list[list[tuple[str, int]]] = []
        self.busy = threading.Event()
        self.go = threading.Event()
        self.go.set()
        self._seconds, self._fails, self._lock = seconds, fails, Lock()

    def answer(self, frames: Sequence[Frame]) -> Scores:
        labels = self.labels
        with self._lock:
            self.runs.append([(frame.camera, frame.index) for frame in frames])
        self.busy.set()
        self.go.wait()
        if self._seconds:
            time.sleep(self._seconds)
        error = self._fails(frames)
        if error is not None:
            raise error
        means = np.array([float(frame.pixels.mean()) for frame in frames])
        logits = np.zeros((len(frames), len(labels)))
        logits[:, 0] = (128 - means) / 8
        logits[:, -1] = (means - 128) / 8
        return Scores(labels, logits, probabilities(logits, "softmax"))

    def swap(self, labels: Sequence[str], template: str | Sequence[str] | None = None) -> None:
        self.labels = tuple(labels)


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until something is so; fails where it does not come."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not come"
        time.sleep(0.002)
