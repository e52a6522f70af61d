"""Whether a label is in view: two levels, and a time for which either must hold before it counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_TICK_S = 1e-6  # less than any frame lasts: what sums of times are off by


@dataclass(frozen=True)
class Levels:
    """How well a label must fit.

    Attributes:
        enter: above this it comes into view.
        leave: below this it leaves; lower than `enter`, so that a value that trembles about one of them settles.
    """

    enter: float
    leave: float


class Presence:
    """One label in one camera's view."""

    def __init__(self) -> None:
        self.present = False
        self.since: float = 0.0  # when it came, or left
        self._other: float | None = None  # since when the opposite has held without a break

    def update(
        self, now: float, value: float, levels: Levels, *, enter_s: float, leave_s: float, allowed: bool = True
    ) -> Literal["appeared", "left"] | None:
        """What changes at `now`, in seconds, with this value.

        Args:
            allowed: whether nothing else speaks against the label; without it no value brings it in, and a label that
                is in view leaves.
        """
        if self.present:
            opposite, dwell_s = value < levels.leave or not allowed, leave_s
        else:
            opposite, dwell_s = value > levels.enter and allowed, enter_s
        if not opposite:
            self._other = None
            return None
        if self._other is None:
            self._other = now
        if now - self._other < dwell_s - _TICK_S:
            return None
        self.present, self.since, self._other = not self.present, now, None
        return "appeared" if self.present else "left"
