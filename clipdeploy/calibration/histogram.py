"""How the values of a tensor are spread, in fixed memory however many there are.

The bins are as wide as a power of two, so that a value finds its bin without rounding. When a value lies outside, the
bins are merged in pairs until it fits. What comes out depends on the values alone, never on their order or batches.
"""

from __future__ import annotations

import base64
import math
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

HALF = 8192
"""Bins on each side of zero; at least half of them lie within the greatest magnitude."""

_BITS = HALF.bit_length() - 1
_SMALLEST = -100  # the first range: 2 ** -100; float32's exponents leave room for the width of its bins
_CHUNK = 1 << 17  # values at a time: what numpy makes of them stays in the processor's cache


class Histogram:
    """Counts of float32 values in `2 * HALF` bins over `-2 ** exponent .. 2 ** exponent`.

    Attributes:
        counts: (2 * HALF,) int64; bin `i` holds `(i - HALF) * width <= value < (i - HALF + 1) * width`.
        exponent: the power of two that all magnitudes lie below.
        low: the smallest value, inf before there is one.
        high: the greatest value, -inf before there is one.
    """

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(2 * HALF, np.int64)
        self.exponent = _SMALLEST
        self.low, self.high = math.inf, -math.inf

    @property
    def width(self) -> float:
        """Of a bin."""
        return math.ldexp(1.0, self.exponent - _BITS)

    @property
    def count(self) -> int:
        """How many values there were."""
        return int(self.counts.sum())

    @property
    def abs_max(self) -> float:
        """The greatest magnitude, 0 before there is a value."""
        return max(-self.low, self.high, 0.0)

    def add(self, values: NDArray[np.float32]) -> None:
        """Count the values of an array of any shape.

        Raises:
            ValueError: one of them is nan or infinite; nothing is counted.
        """
        flat = np.asarray(values, np.float32).ravel()
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())  # nan wherever one is
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("not finite")
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._grow(max(-low, high))
        scale = np.float32(1.0 / self.width)
        scaled, bins = np.empty(min(_CHUNK, flat.size), np.float32), np.empty(min(_CHUNK, flat.size), np.int64)
        for start in range(0, flat.size, _CHUNK):
            part = flat[start : start + _CHUNK]
            places, numbers = scaled[: part.size], bins[: part.size]
            # Exact: a product with a power of two, then whole numbers far below 2 ** 24.
            np.multiply(part, scale, out=places)
            np.floor(places, out=places)
            np.add(places, np.float32(HALF), out=places)
            np.copyto(numbers, places, casting="unsafe")
            self.counts += np.bincount(numbers, minlength=2 * HALF)

    def magnitudes(self) -> NDArray[np.int64]:
        """(HALF,) counts by magnitude, both signs together."""
        both: NDArray[np.int64] = self.counts[HALF:] + self.counts[HALF - 1 :: -1]
        return both

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the counts compressed, some 10 to 30 kB."""
        packed = base64.b64encode(zlib.compress(self.counts.astype("<u8").tobytes(), 9)).decode("ascii")
        return {"exponent": self.exponent, "low": self.low, "high": self.high, "counts": packed}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Histogram:
        """What `to_dict` wrote.

        Raises:
            KeyError, ValueError: it is not what `to_dict` writes.
        """
        read = cls()
        room = zlib.decompressobj()
        counts = np.frombuffer(room.decompress(base64.b64decode(record["counts"]), 16 * HALF), "<u8")
        if counts.size != 2 * HALF:
            raise ValueError(f"expected {2 * HALF} bins, got {counts.size}")
        read.counts = counts.astype(np.int64)
        read.exponent, read.low, read.high = int(record["exponent"]), float(record["low"]), float(record["high"])
        return read

    def _grow(self, magnitude: float) -> None:
        """Merge bins until `magnitude` lies inside."""
        _, exponent = math.frexp(magnitude)  # magnitude < 2 ** exponent
        steps = exponent - self.exponent
        if magnitude and steps > 0:
            self.counts = merged(self.counts, min(steps, _BITS))
            self.exponent = exponent


def merged(counts: NDArray[np.int64], steps: int) -> NDArray[np.int64]:
    """The same counts over a range `2 ** steps` as wide, in as many bins."""
    inner = counts.reshape(-1, 1 << steps).sum(axis=1)
    wide = np.zeros_like(counts)
    start = (counts.size - inner.size) // 2
    wide[start : start + inner.size] = inner
    return wide
