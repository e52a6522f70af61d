"""Values of things that have names: bars that lie, and bars in parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clipdeploy.pages.drawing import TITLE_PX, legend, line, look_of, rect, svg, wide, write
from clipdeploy.pages.markup import Html, el
from clipdeploy.pages.scales import Axis, Scale, number, scale

_ROW_PX, _BAR_PX, _ABOVE_PX = 27, 16, 17
_BESIDE = 0.4
"""Labels take so much of the width at most; longer ones stand above their bars."""
_AXIS_PX = 38
_GAP_PX = 1.5  # between parts


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        label: what it is of.
        value: how long it is.
        shown: the value as text; None writes the number and its unit.
        ceiling: where the bar could reach at most, drawn as an upright line; None draws none.
        colour: 0 to 7, or `good` or `bad`.
        rest: paler, for what the chart is not about.
    """

    label: str
    value: float
    shown: str | None = None
    ceiling: float | None = None
    colour: int | str = 0
    rest: bool = False


@dataclass(frozen=True)
class Stack:
    """One bar in parts.

    Attributes:
        label: what it is of.
        parts: name -> how long.
        shown: the sum as text; None writes it and its unit.
    """

    label: str
    parts: Mapping[str, float]
    shown: str | None = None


def bar_chart(bars: Sequence[Bar], *, x: Axis, title: str, width: int = 440, ceiling: str = "") -> Html:
    """Bars from zero, each with its value behind it.

    Args:
        bars: from above.
        x: what their length is.
        title: above them.
        width: px.
        ceiling: what the upright lines are, told under the title.

    Raises:
        ValueError: no bars, or values that the axis cannot show.
    """
    shown = [bar.shown or x.told(bar.value) for bar in bars]
    reach = [bar.value for bar in bars] + [bar.ceiling for bar in bars if bar.ceiling is not None]
    top = TITLE_PX + 4.0
    body: list[Html] = []
    if ceiling:
        body += [line(5, top - 3, 5, top + 9, "ceiling"), write(ceiling, 14, top + 7, look="soft small")]
        top += 20
    rows, onward, bottom = _rows([bar.label for bar in bars], shown, reach, x, top, width)
    body += _axis(onward, top, bottom)
    for bar, text, row in zip(bars, shown, rows, strict=True):
        body.append(row.label)
        length = onward.place(bar.value) - onward.start
        look = f"fill {look_of(bar.colour, 0)}{' rest' if bar.rest else ''}"
        body.append(rect(onward.start, row.y, length, _BAR_PX, look, el("title", f"{bar.label}: {text}")))
        end = onward.start + length
        if bar.ceiling is not None:
            at = onward.place(bar.ceiling)
            body.append(line(at, row.y - 3, at, row.y + _BAR_PX + 3, "ceiling"))
            end = at if 0 <= at - end < wide(text) + 10 else end
        body.append(write(text, end + 6, row.y + 12, look="number"))
    about = "; ".join(f"{bar.label} {text}" for bar, text in zip(bars, shown, strict=True))
    return svg(title, about, width, bottom + _AXIS_PX, body)


def stacked_bars(stacks: Sequence[Stack], *, x: Axis, title: str, width: int = 440, order: Sequence[str] = ()) -> Html:
    """Bars whose parts stand one behind the other, each with its sum behind it; names of parts above.

    Args:
        stacks: from above.
        x: what their length is.
        title: above them.
        width: px.
        order: names of parts, the first at the left; the others follow as they come.

    Raises:
        ValueError: no bars, or values that the axis cannot show.
    """
    names = list(dict.fromkeys([*order, *(name for stack in stacks for name in stack.parts)]))
    looks = {name: look_of(None, index) for index, name in enumerate(names)}
    used = [name for name in names if any(stack.parts.get(name) for stack in stacks)]
    body, top = legend([(name, looks[name]) for name in used], TITLE_PX + 10, width)
    sums = [sum(stack.parts.values()) for stack in stacks]
    shown = [stack.shown or x.told(whole) for stack, whole in zip(stacks, sums, strict=True)]
    rows, onward, bottom = _rows([stack.label for stack in stacks], shown, sums, x, top, width)
    body += _axis(onward, top, bottom)
    for stack, text, row in zip(stacks, shown, rows, strict=True):
        body.append(row.label)
        at = 0.0
        for name in used:
            part = stack.parts.get(name, 0.0)
            body += _part(stack.label, name, part, x, onward.place(at), onward.place(at + part), row.y, looks[name])
            at += part
        body.append(write(text, onward.place(at) + 6, row.y + 12, look="number"))
    about = "; ".join(_read_out(stack, text, used, x) for stack, text in zip(stacks, shown, strict=True))
    return svg(title, about, width, bottom + _AXIS_PX, body)


def _read_out(stack: Stack, text: str, used: Sequence[str], x: Axis) -> str:
    parts = (f"{name} {x.told(stack.parts[name])}" for name in used if name in stack.parts)
    return f"{stack.label} {text}: {', '.join(parts)}"


@dataclass(frozen=True)
class _Row:
    y: float
    label: Html


def _rows(
    labels: Sequence[str], shown: Sequence[str], reach: Sequence[float], x: Axis, top: float, width: int
) -> tuple[list[_Row], Scale, float]:
    """Where each bar is and its label, the axis, and where the bars end."""
    if not labels:
        raise ValueError(f"a chart of {x.label} needs bars")
    longest = max(map(wide, labels)) + 10
    above = longest > width * _BESIDE
    left = 4.0 if above else longest
    onward = scale(x, reach, left, width - max(map(wide, shown)) - 10, most=max(2, int(width - left) // 90))
    rows = []
    for index, label in enumerate(labels):
        if above:
            y = top + index * (_ROW_PX + _ABOVE_PX) + _ABOVE_PX + 4
            rows.append(_Row(y, write(label, left + 4, y - 4, look="halo")))
        else:
            y = top + index * _ROW_PX + 4
            rows.append(_Row(y, write(label, left - 8, y + 12, end="end")))
    return rows, onward, rows[-1].y + _ROW_PX


def _axis(onward: Scale, top: float, bottom: float) -> list[Html]:
    drawn = []
    for tick in onward.ticks:
        at = onward.place(tick)
        drawn.append(line(at, top, at, bottom, "base" if at == onward.start else "grid"))
        drawn.append(write(number(tick), at, bottom + 14, look="soft small number", end="middle"))
    middle = (onward.start + onward.end) / 2
    return [*drawn, write(onward.axis.title, middle, bottom + 31, look="unit small", end="middle")]


def _part(label: str, name: str, part: float, x: Axis, start: float, end: float, y: float, look: str) -> list[Html]:
    if part <= 0:
        return []
    gap = _GAP_PX if end - start > 3 * _GAP_PX else 0.0
    tip = el("title", f"{label}, {name}: {x.told(part)}")
    drawn = [rect(start, y, end - start - gap, _BAR_PX, f"fill {look}", tip, round_px=1)]
    if end - start > wide(number(part)) + 8:
        drawn.append(write(number(part), (start + end - gap) / 2, y + 12, look=f"on number {look}", end="middle"))
    return drawn
