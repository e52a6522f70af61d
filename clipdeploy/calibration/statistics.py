"""What was seen of the activations of a graph, and the ranges that follow from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from clipdeploy.calibration.entropy import clip_bins
from clipdeploy.calibration.histogram import HALF, Histogram
from clipdeploy.calibration.records import Range
from clipdeploy.errors import InputError

Method = Literal["max", "percentile", "entropy"]

PERCENTILE = 99.99
"""The share of the values that a range by percentile keeps, in percent."""

LEVELS = 255
"""Steps of int8 without -128, which a symmetric range cannot use."""


@dataclass
class Observed:
    """What was seen of one tensor.

    Attributes:
        low: the smallest value.
        high: the greatest value.
        histogram: of all values; None where only the extremes were asked for.
        channels: (C,) greatest magnitude of each place along the last axis; None where not asked for.
    """

    low: float = math.inf
    high: float = -math.inf
    histogram: Histogram | None = None
    channels: NDArray[np.float32] | None = None

    @property
    def abs_max(self) -> float:
        """The greatest magnitude; inf where a value is infinite."""
        return max(-self.low, self.high, 0.0)


@dataclass(frozen=True)
class Statistics:
    """What was seen of the tensors of a graph.

    Attributes:
        samples: how many pictures or texts went through.
        observed: by name of the tensor.
    """

    samples: int
    observed: Mapping[str, Observed] = field(repr=False)

    def abs_max(self, tensor: str) -> float:
        """The greatest magnitude of a tensor."""
        return self._of(tensor).abs_max

    def maxima(self) -> dict[str, float]:
        """The greatest magnitude of every tensor that was looked at, by name."""
        return {name: seen.abs_max for name, seen in self.observed.items()}

    def channel_abs_max(self, tensor: str) -> NDArray[np.float32]:
        """(C,) float32: the greatest magnitude of each channel, the last axis; for tensors asked for as `channels`."""
        channels = self._of(tensor).channels
        if channels is None:
            raise InputError(f"the channels of {tensor} were not observed", fix="name it in channels=")
        return channels

    def range(
        self,
        tensor: str,
        method: Method,
        *,
        percentile: float = PERCENTILE,
        symmetric: bool = True,
        levels: int = LEVELS,
    ) -> Range:
        """Between which values a tensor is to be represented.

        Args:
            tensor: one of those asked for with all their values; any of them for `max`.
            method: `max` keeps every value; `percentile` cuts the greatest magnitudes; `entropy` keeps the most of
                the distribution's shape in `levels` steps.
            percentile: the share that `percentile` keeps, in percent; asymmetric, half of the rest is cut at each end.
            symmetric: the same reach on both sides of zero.
            levels: steps of the whole range.

        Returns:
            A range that holds zero and reaches no further than the values; 0 .. 0 where all are zero.

        Raises:
            InputError: an unknown tensor or method, or a percentile outside 50 .. 100.
        """
        seen = self._of(tensor)
        if method == "max":
            return _bounded(-seen.abs_max, seen.abs_max, seen, symmetric)
        if seen.histogram is None:
            raise InputError(f"only the extremes of {tensor} were observed", fix="name it in tensors=")
        if method == "percentile":
            return _percentile(seen, seen.histogram, percentile, symmetric)
        if method == "entropy":
            return _entropy(seen, seen.histogram, levels, symmetric)
        raise InputError(f"unknown method {method!r}; expected max, percentile or entropy")

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `from_dict` reads it."""
        return {"samples": self.samples, "observed": {name: _to_dict(seen) for name, seen in self.observed.items()}}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Statistics:
        """What `to_dict` wrote.

        Raises:
            InputError: it is something else.
        """
        try:
            return cls(int(record["samples"]), {name: _from_dict(seen) for name, seen in record["observed"].items()})
        except Exception as error:  # a damaged record fails in many ways
            raise InputError(f"these are no statistics of activations: {error}", fix="calibrate again") from error

    def _of(self, tensor: str) -> Observed:
        if tensor not in self.observed:
            raise InputError(f"tensor {tensor!r} was not observed; {len(self.observed)} others were")
        return self.observed[tensor]


def _bounded(low: float, high: float, seen: Observed, symmetric: bool) -> Range:
    """A range no further than the values and around zero."""
    if symmetric:
        reach = min(max(-low, high), seen.abs_max)
        return Range(-reach, reach)
    return Range(min(max(low, seen.low), 0.0), max(min(high, seen.high), 0.0))


def _percentile(seen: Observed, histogram: Histogram, percentile: float, symmetric: bool) -> Range:
    if not 50.0 <= percentile <= 100.0:
        raise InputError(f"the percentile must lie in 50 .. 100, got {percentile}", fix=f"leave it at {PERCENTILE}")
    cut = histogram.count * (100.0 - percentile) / 100.0
    if symmetric:
        reach = _edge(histogram.magnitudes(), cut) * histogram.width
        return _bounded(-reach, reach, seen, symmetric)
    high = (_edge(histogram.counts, cut / 2) - HALF) * histogram.width
    low = (HALF - _edge(histogram.counts[::-1], cut / 2)) * histogram.width
    return _bounded(low, high, seen, symmetric)


def _edge(counts: NDArray[np.int64], cut: float) -> int:
    """How many of the first bins to keep, so that at most `cut` values lie behind."""
    behind = np.cumsum(counts[::-1])[::-1]  # of each bin: the values in it and behind
    return int(np.count_nonzero(behind > cut + 1e-6))  # a millionth of a value: what rounding may take away


def _entropy(seen: Observed, histogram: Histogram, levels: int, symmetric: bool) -> Range:
    if symmetric:
        reach = clip_bins(histogram.counts, levels=levels) * histogram.width
    else:
        (filled,) = np.nonzero(histogram.counts)
        first, last = min(int(filled[0]), HALF), max(int(filled[-1]) + 1, HALF)
        reach = clip_bins(histogram.counts, levels=levels, first=first, last=last) * histogram.width
    return _bounded(-reach, reach, seen, symmetric)


def _to_dict(seen: Observed) -> dict[str, Any]:
    # Strict JSON has no infinity; float() reads the word.
    record: dict[str, Any] = {
        side: value if math.isfinite(value) else str(value) for side, value in (("low", seen.low), ("high", seen.high))
    }
    if seen.histogram is not None:
        record["histogram"] = seen.histogram.to_dict()
    if seen.channels is not None:
        record["channels"] = [float(value) for value in seen.channels]
    return record


def _from_dict(record: Mapping[str, Any]) -> Observed:
    return Observed(
        low=float(record["low"]),
        high=float(record["high"]),
        histogram=Histogram.from_dict(record["histogram"]) if "histogram" in record else None,
        channels=np.asarray(record["channels"], np.float32) if "channels" in record else None,
    )
