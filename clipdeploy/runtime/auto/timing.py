"""How long candidates take, side by side and briefly."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

K = TypeVar("K", bound=Hashable)

_ROUNDS = 3
_UNTIL_THREADS_SLEEP_S = 0.1
_WARM_UP_S, _MEASURE_S = 0.03, 0.1
_FEWEST, _MOST = 3, 25
_HOPELESS = 2.0


def interleaved(runs: Mapping[K, Callable[[], object]]) -> dict[K, float]:
    """The median time of each in its quietest round, in ms.

    In each round a candidate waits until the threads of the one before have gone to sleep, since they go on spinning
    for some tens of milliseconds, which takes a core from whoever is next; is warmed up unmeasured; and is then
    measured for a tenth of a second. The next round begins with another candidate, so that what slows the machine for
    a while slows them all; of the rounds the quietest counts. What takes twice as long as the fastest is measured in
    one round only.
    """
    times = dict.fromkeys(runs, math.inf)
    left = list(runs)
    for turn in range(_ROUNDS):
        first = turn % len(left)
        for name in left[first:] + left[:first]:
            if len(runs) > 1:
                time.sleep(_UNTIL_THREADS_SLEEP_S)
            times[name] = min(times[name], statistics.median(_measured(runs[name])))
        fastest = min(times[name] for name in left)
        left = [name for name in left if times[name] <= _HOPELESS * fastest]
        if len(left) == 1 and len(runs) > 1:
            break
    return times


def _measured(run: Callable[[], object]) -> list[float]:
    """Some runs one after the other, in ms each."""
    warm = time.perf_counter() + _WARM_UP_S
    run()
    while time.perf_counter() < warm:
        run()
    times: list[float] = []
    ends = time.perf_counter() + _MEASURE_S
    while len(times) < _FEWEST or (time.perf_counter() < ends and len(times) < _MOST):
        started = time.perf_counter()
        run()
        times.append((time.perf_counter() - started) * 1e3)
    return times
