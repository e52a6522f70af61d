"""A few plain figures of a set of pictures: that it is neither all black nor all the same."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Coverage:
    """Adds up what pictures look like, in levels of 0 .. 255."""

    def __init__(self) -> None:
        self._brightness, self._contrast, self._colour = _Spread(), _Spread(), _Spread()

    def add(self, crop: NDArray[np.uint8]) -> None:
        """Look at one crop `(H, W, 3)` uint8, RGB."""
        values = crop.astype(np.float32)
        self._brightness.add(float(values.mean()))
        self._contrast.add(float(values.mean(axis=2).std()))
        self._colour.add(float((values.max(axis=2) - values.min(axis=2)).mean()))

    def to_dict(self) -> dict[str, Any]:
        """Mean, spread and extremes over the pictures of their brightness (mean level), contrast (standard deviation
        of the grey levels) and colour (mean distance of the strongest channel to the weakest)."""
        return {
            "brightness": self._brightness.to_dict(),
            "contrast": self._contrast.to_dict(),
            "colour": self._colour.to_dict(),
        }


@dataclass
class _Spread:
    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def add(self, value: float) -> None:
        self.count, self.total, self.squares = self.count + 1, self.total + value, self.squares + value * value
        self.low, self.high = min(self.low, value), max(self.high, value)

    def to_dict(self) -> dict[str, float]:
        if not self.count:
            return {}
        mean = self.total / self.count
        std = math.sqrt(max(0.0, self.squares / self.count - mean * mean))
        return {name: round(v, 2) for name, v in (("mean", mean), ("std", std), ("min", self.low), ("max", self.high))}
