"""Exponential smoothing by time, so that it means the same at 5 and at 60 frames a second."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, isfinite

from clipdeploy.errors import InputError


@dataclass(frozen=True)
class Smoothing:
    """How much of the past an answer keeps.

    Attributes:
        seconds: the time constant. After a sudden change the answer has gone 63 % of the way in this time, 95 % in
            three times as much. 0 takes every frame as it is.
    """

    seconds: float = 0.1

    def __post_init__(self) -> None:
        if not (isfinite(self.seconds) and self.seconds >= 0):
            raise InputError(
                f"smoothing takes a number of seconds that is not negative, got {self.seconds!r}",
                fix="pass Smoothing(0.1), or Smoothing(0) for none",
            )

    def share(self, elapsed_s: float) -> float:
        """How much of the answer the newest frame makes, `elapsed_s` after the last one: 0..1."""
        return 1.0 if self.seconds == 0 else 1.0 - exp(-elapsed_s / self.seconds)
