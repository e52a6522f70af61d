"""Where to clip so that eight bits keep the most of a distribution's shape.

The method of TensorRT: S. Migacz, "8-bit Inference with TensorRT", GTC 2017, session S7310. Of all thresholds, take
that at which the clipped distribution and its quantised form differ least, by the Kullback-Leibler divergence.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_BINS = 2048
"""Bins on each side of zero that the search works on, as TensorRT's; more are only noise between neighbours."""

_STEP = 64
"""Thresholds tried in each doubling, before all of those around the best."""

_EMPTY = 1e-4
"""Of a value: what stands for zero in the quantised form where the clipped one has something."""


def clip_bins(counts: NDArray[np.int64], *, levels: int = 255, first: int = 0, last: int | None = None) -> int:
    """How many bins on each side of zero to keep.

    A threshold close to the smallest that the bins can tell (outliers far from all the rest) is looked for again in
    finer bins, down to those given.

    Args:
        counts: (2 * half,) values per bin, zero lying between the halves; `half` a power of two.
        levels: steps of the quantised form over what is kept: 255 of int8 without -128.
        first: the lowest bin of an asymmetric range; nothing below it is represented.
        last: the bin behind the highest of an asymmetric range; None for the last of all.

    Returns:
        1 .. half.
    """
    half = counts.size // 2
    stop = counts.size if last is None else last
    counts = _without_zeros(counts)
    coarsest = max(1, half // _BINS)
    while True:
        grouped = counts.reshape(-1, coarsest).sum(axis=1)
        low, high = first // coarsest, -(-stop // coarsest)
        best = best_threshold(grouped, levels, low, high)
        if coarsest == 1 or best > 2 * _least(grouped, levels, low, high):
            return best * coarsest
        coarsest //= 2


def _without_zeros(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """No spike at zero, such as ReLU's: zero stays zero in every quantised form and tells nothing of a threshold."""
    half = counts.size // 2
    flat: NDArray[np.int64] = counts.copy()
    flat[half - 1], flat[half] = min(counts[half - 1], counts[half - 2]), min(counts[half], counts[half + 1])
    return flat


def best_threshold(counts: NDArray[np.int64], levels: int, first: int, last: int) -> int:
    """The best of all thresholds that leave a bin for each step; a coarse search, then every one around its best."""
    half = counts.size // 2
    reach = max(half - first, last - half, 1)
    least = _least(counts, levels, first, last)

    def divergence(kept: int) -> float:
        return _divergence(counts, max(half - kept, first), min(half + kept, last), levels)

    ratio = 2.0 ** (1.0 / _STEP)
    tries = sorted({min(reach, round(least * ratio**i)) for i in range(_tries(least, reach))} | {reach})
    at = int(np.argmin([divergence(kept) for kept in tries]))
    around = range(tries[max(at - 1, 0)], tries[min(at + 1, len(tries) - 1)] + 1)
    return around[int(np.argmin([divergence(kept) for kept in around]))]


def _least(counts: NDArray[np.int64], levels: int, first: int, last: int) -> int:
    """The smallest threshold at which the bins kept are as many as the steps."""
    below, above = counts.size // 2 - first, last - counts.size // 2
    least = max((levels + 1) // 2, levels - min(below, above))
    return max(1, min(least, max(below, above)))


def _tries(least: int, reach: int) -> int:
    return math.ceil(math.log2(reach / least) * _STEP) + 1


def _divergence(counts: NDArray[np.int64], start: int, stop: int, levels: int) -> float:
    """Of the distribution clipped to the bins `start .. stop`, and of the same in `levels` steps."""
    kept = counts[start:stop]
    clipped = kept.astype(np.float64)
    clipped[0] += counts[:start].sum()
    clipped[-1] += counts[stop:].sum()
    there = clipped > 0
    if not there.any():
        return math.inf
    # The step of each bin; with fewer bins than steps, each bin is one.
    steps = min(levels, kept.size)
    starts = -(-np.arange(steps) * kept.size // steps)
    sizes = np.diff(starts, append=kept.size)
    filled = np.add.reduceat(there.astype(np.int64), starts)
    means = np.add.reduceat(kept, starts) / np.maximum(filled, 1)
    quantised = np.maximum(np.repeat(means, sizes)[there], _EMPTY)
    clipped = clipped[there]
    clipped /= clipped.sum()
    quantised /= quantised.sum()
    return float(np.sum(clipped * np.log(clipped / quantised)))
