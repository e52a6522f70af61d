"""Times over the last thousands, in memory that does not grow."""

from __future__ import annotations

import numpy as np

_SIZE = 4096
_POINTS = (50, 95, 99)


class Window:
    """The last thousands of numbers, and where most of them lie. Needs the desk's lock."""

    def __init__(self, size: int = _SIZE) -> None:
        self._values = np.zeros(size, dtype=np.float64)
        self._count = 0

    def add(self, value: float) -> None:
        """One more; the oldest goes when there are too many."""
        self._values[self._count % len(self._values)] = value
        self._count += 1

    @property
    def percentiles(self) -> tuple[float, float, float]:
        """p50, p95 and p99; zeros before there is a number."""
        if not self._count:
            return (0.0, 0.0, 0.0)
        p50, p95, p99 = np.percentile(self._values[: self._count], _POINTS).tolist()
        return (p50, p95, p99)


class Times:
    """How long answers took, and how many frames they were of. Needs the desk's lock."""

    def __init__(self) -> None:
        self.latency_ms = Window()
        self.answer_ms = Window()
        self._batches = 0
        self._frames = 0

    def ran(self, seconds: float, frames: int) -> None:
        """The model answered a micro-batch."""
        self.answer_ms.add(seconds * 1e3)
        self._batches += 1
        self._frames += frames

    @property
    def batch(self) -> float:
        """Frames in a micro-batch, the mean."""
        return self._frames / self._batches if self._batches else 0.0
