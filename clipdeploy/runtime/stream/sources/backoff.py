"""How long to wait before a source that broke is opened again."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from clipdeploy.errors import InputError


@dataclass(frozen=True)
class Backoff:
    """Waits that grow from attempt to attempt, each a little off, so that many cameras do not knock at once.

    Whoever counts the attempts begins anew once frames come.

    Attributes:
        first_s: before the first attempt.
        factor: by which each wait is longer than the one before.
        longest_s: no wait is longer.
        attempts: after which one gives up; None never does, 0 at once.
        jitter: share by which a wait is shorter or longer, by chance.
    """

    first_s: float = 0.5
    factor: float = 2.0
    longest_s: float = 30.0
    attempts: int | None = None
    jitter: float = 0.2

    def __post_init__(self) -> None:
        if not (math.isfinite(self.longest_s) and 0 < self.first_s <= self.longest_s):
            raise InputError(
                f"waits must be positive, first_s no longer than longest_s; got {self.first_s} s and {self.longest_s} s"
            )
        if not (math.isfinite(self.factor) and self.factor >= 1):
            raise InputError(f"factor must be 1 or more, got {self.factor}")
        if not 0 <= self.jitter < 1:
            raise InputError(f"jitter must be in 0..1, got {self.jitter}")
        if self.attempts is not None and self.attempts < 0:
            raise InputError(f"attempts must be 0 or more, or None for no limit, got {self.attempts}")

    def delay_s(self, attempt: int) -> float | None:
        """How long to wait before an attempt, from 0 since frames last came; None where it is time to give up."""
        if self.attempts is not None and attempt >= self.attempts:
            return None
        # capped before the power overflows, which months without a network would come to
        steps = min(attempt, math.ceil(math.log(self.longest_s / self.first_s, self.factor)) if self.factor > 1 else 0)
        delay = min(self.longest_s, self.first_s * self.factor**steps)
        return min(self.longest_s, delay * random.uniform(1 - self.jitter, 1 + self.jitter))
