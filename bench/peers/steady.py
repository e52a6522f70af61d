"""The machine's slow moments are waited out, and turns that end in one taken again: the same for everybody.

A virtual machine shares its processor. Some work runs at half its speed for seconds at a time, whoever asks for it, and
a median of few rounds then says who met that. So a small work of our own, the probe, is run between turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable

SLOW = 1.5
"""How many times its fastest the probe may take."""
TRIES = 3
"""How often a turn is taken at most."""
_FIRST_PROBES, _POLL_S = 20, 0.2
_LONGEST_WAIT_S = 4.0


class FullSpeed:
    """The machine's own speed, as the probe tells it.

    Args:
        probe: how long some work takes at the moment, in ms.
        patience_s: that are spent on waiting in all.
    """

    def __init__(self, probe: Callable[[], float], patience_s: float = 240.0) -> None:
        self._probe, self._patience_s = probe, patience_s
        self._fastest = min(probe() for _ in range(_FIRST_PROBES))

    def look(self) -> tuple[float, bool]:
        """What the probe takes, in ms, and whether that is the machine at full speed."""
        taken = self._probe()
        self._fastest = min(self._fastest, taken)
        return taken, taken <= SLOW * self._fastest

    def wait(self) -> float:
        """Until the machine is at full speed, or patience ends; what the last probe took, in ms."""
        began = time.perf_counter()
        taken, full = self.look()
        while not full and time.perf_counter() - began < min(_LONGEST_WAIT_S, self._patience_s):
            time.sleep(_POLL_S)
            taken, full = self.look()
        self._patience_s -= time.perf_counter() - began
        return taken
