"""A file played at its own pace: its positions against the clock."""

from __future__ import annotations

import time
from threading import Event

_LEAST_S = 0.25
"""However late: a frame is given this often."""


class Pace:
    """Says when a frame is due. What is late by more than a frame is left out, so that lateness never adds up."""

    def __init__(self) -> None:
        self._zero: float | None = None  # when position 0 was due
        self._last: float | None = None
        self._given = 0.0

    def wait(self, position_s: float, stop: Event) -> bool:
        """Wait until the frame at a position is due; False where it is to be left out, or `stop` was set."""
        now = time.monotonic()
        if self._zero is None:
            self._zero = now - position_s
        gap = 0.0 if self._last is None else max(0.0, position_s - self._last)
        self._last = position_s
        early = self._zero + position_s - now
        if early > 0:
            if stop.wait(early):
                return False
        elif -early > gap and now - self._given < _LEAST_S:
            return False
        self._given = time.monotonic()
        return True
