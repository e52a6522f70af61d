"""Where values lie along an axis, which round numbers are marked on it, and how numbers are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_ROUND = (1, 2, 5, 10)
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_DECADES_OF_POWERS = 2.2
"""From so many on, powers of ten alone are marked; below it, 1, 2 and 5 of each."""


@dataclass(frozen=True)
class Axis:
    """What an axis shows.

    Attributes:
        label: what is measured, such as `batch`.
        unit: of its values, such as `ms`; told after the label and in each value's tip.
        log: logarithmic; its values must be above 0.
        zero: starts at 0 where it is linear.
        ticks: the values to mark; empty marks round ones.
    """

    label: str
    unit: str = ""
    log: bool = False
    zero: bool = True
    ticks: tuple[float, ...] = ()

    @property
    def title(self) -> str:
        """Label and unit, such as `one run, ms`."""
        return f"{self.label}, {self.unit}" if self.unit else self.label

    def told(self, value: float) -> str:
        """A value with its unit, such as `8.6 ms`."""
        return f"{number(value)} {self.unit}".rstrip()

    def named(self, value: float) -> str:
        """A value with its label and its unit, such as `batch 8`."""
        return f"{self.label} {self.told(value)}"


@dataclass(frozen=True)
class Scale:
    """Values to places in px.

    Attributes:
        axis: whose values.
        ticks: the values marked, ascending.
        low, high: the values at both ends.
        start, end: their places in px; `end` lies before `start` for an axis that points up.
    """

    axis: Axis
    ticks: tuple[float, ...]
    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Px of a value."""
        low, high, at = (math.log10(v) if self.axis.log else v for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * ((at - low) / (high - low))


def scale(axis: Axis, values: Sequence[float], start: float, end: float, *, most: int = 6) -> Scale:
    """The scale that holds `values`, from `start` to `end` px, with about `most` ticks.

    Raises:
        ValueError: no values, or some that the axis cannot show.
    """
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError(f"an axis of {axis.label} needs finite values, not {list(values)}")
    if axis.log and min(values) <= 0:
        raise ValueError(f"a logarithmic axis of {axis.label} needs values above 0, not {min(values)}")
    low, high = min(values), max(values)
    if axis.log and low == high:
        low, high = low / 2, high * 2
    if axis.ticks:
        low, high = min(low, *axis.ticks), max(high, *axis.ticks)
        return Scale(axis, tuple(sorted(axis.ticks)), *_apart(low, high), start, end)
    if axis.log:
        low, high = _rounded(low, high)
        return Scale(axis, log_ticks(low, high, most), low, high, start, end)
    ticks = linear_ticks(min(low, 0.0) if axis.zero else low, high, most)
    return Scale(axis, ticks, ticks[0], ticks[-1], start, end)


def linear_ticks(low: float, high: float, most: int = 6) -> tuple[float, ...]:
    """Multiples of 1, 2 or 5 times a power of ten, around `low` to `high`; at least two."""
    low, high = _apart(low, high)
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * part for part in _ROUND if power * part >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(round(index * step, 12) for index in range(first, last + 1))


def log_ticks(low: float, high: float, most: int = 6) -> tuple[float, ...]:
    """Powers of ten from `low` to `high`, or 1, 2 and 5 of each where few of them would do."""
    bottom, top = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    if math.log10(high / low) >= _DECADES_OF_POWERS:
        return tuple(float(f"1e{power}") for power in range(bottom, top + 1, max(1, math.ceil((top - bottom) / most))))
    return tuple(step for step in _steps(bottom - 1, top) if low * (1 - 1e-9) <= step <= high * (1 + 1e-9))


def written(ticks: Sequence[float]) -> list[str]:
    """The ticks of one axis, all in powers of ten where one is."""
    texts = [number(tick) for tick in ticks]
    if not any("10" in text and not text.isascii() for text in texts):
        return texts
    return [_power(tick) if tick > 0 else text for tick, text in zip(ticks, texts, strict=True)]


def number(value: float) -> str:
    """For people: three digits that count, thousands apart, powers of ten where zeros would have to be counted."""
    if value == 0:
        return "0"
    power = math.floor(math.log10(abs(value)) + 1e-9)
    if power < -3 or power > 6:
        return _power(value)
    if power >= 2:
        return f"{value:,.0f}"
    return f"{value:.{2 - power}f}".rstrip("0").rstrip(".")


def _power(value: float) -> str:
    power = math.floor(math.log10(abs(value)) + 1e-9)
    part, tenth = f"{value / 10.0**power:.3g}", "10" + str(power).translate(_SUPERSCRIPTS)
    return tenth if part == "1" else f"{part}·{tenth}"


def _steps(bottom: int, top: int) -> list[float]:
    """1, 2 and 5 of each power of ten."""
    return [float(f"{part}e{power}") for power in range(bottom, top + 1) for part in _ROUND[:3]]


def _rounded(low: float, high: float) -> tuple[float, float]:
    """The nearest 1, 2 or 5 of a power of ten below and above."""
    steps = _steps(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    return max(s for s in steps if s <= low * (1 + 1e-9)), min(s for s in steps if s >= high * (1 - 1e-9))


def _apart(low: float, high: float) -> tuple[float, float]:
    """Two ends that differ."""
    if low == high:
        slack = abs(low) * 0.1 or 1.0
        return (low - slack if low else low), high + slack
    return low, high
