"""Values against values: points, joined or not, with names where the lines end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from clipdeploy.pages.drawing import TITLE_PX, line, look_of, path, point, svg, wide, write
from clipdeploy.pages.markup import Html
from clipdeploy.pages.scales import Axis, Scale, scale, written

_UNIT_PX, _TICKS_PX, _NAME_PX = 22, 20, 20
_NAME_GAP_PX, _NOTE_PX = 16, 13
_INSET_PX = 8  # points stand clear of the frame
_KEY_PX = 24  # from the frame to a name, its mark between
_LARGE = 1.5


@dataclass(frozen=True)
class Series:
    """Points that belong together.

    Attributes:
        name: told at the line's end.
        points: (x, y), in the order of x.
        joined: by a line.
        note: below the name, such as a fitted slope.
        fit: points of a fitted line, drawn thin and dashed.
        spans: (x, lowest, highest): a thin upright line at x.
        tips: what is told of each point; empty tells name, x and y.
        colour: 0 to 7, or `good` or `bad`; None takes the next.
        dashed: the line; for a second family of series in the same colours.
        large: larger points, for what was chosen.
    """

    name: str
    points: Sequence[tuple[float, float]]
    joined: bool = True
    note: str = ""
    fit: Sequence[tuple[float, float]] = ()
    spans: Sequence[tuple[float, float, float]] = ()
    tips: Sequence[str] = ()
    colour: int | str | None = None
    dashed: bool = False
    large: bool = False


@dataclass(frozen=True)
class Level:
    """A dashed line across the chart, such as a limit or a ceiling."""

    name: str
    y: float


def line_chart(
    series: Sequence[Series],
    *,
    x: Axis,
    y: Axis,
    title: str,
    width: int = 440,
    height: int = 290,
    levels: Sequence[Level] = (),
) -> Html:
    """Lines with their points marked and their names at their ends.

    Raises:
        ValueError: no points, or some that an axis cannot show.
    """
    across = [at[0] for one in series for at in (*one.points, *one.fit)]
    up = [at[1] for one in series for at in (*one.points, *one.fit)] + [level.y for level in levels]
    up += [value for one in series for _, *ends in one.spans for value in ends]
    head = TITLE_PX if title else 4
    top, bottom = head + _UNIT_PX, height - _TICKS_PX - _NAME_PX
    upward = scale(y, up, bottom, top, most=max(2, (bottom - top) // 40))
    texts = [text for one in series for text in (one.name, one.note)] + [level.name for level in levels]
    left = max(map(wide, written(upward.ticks))) + 6
    right = width - _KEY_PX - max(map(wide, texts))
    onward = scale(x, across, left + _INSET_PX, right - _INSET_PX, most=max(2, int(right - left) // 70))
    looks = [look_of(one.colour, index) for index, one in enumerate(series)]
    body = [*_frame(onward, upward, left, right, head + 8), *(_level(level, upward, left, right) for level in levels)]
    for one, look in zip(series, looks, strict=True):
        body += _lines(one, look, onward, upward)
    ends = [(one.points[-1][1], bool(one.note)) for one in series] + [(level.y, False) for level in levels]
    names = _apart([(upward.place(at), noted) for at, noted in ends], upward.start + _NAME_GAP_PX)
    for index, (one, look) in enumerate(zip(series, looks, strict=True)):
        body += _points(one, look, index, onward, upward)
        body += _name(one, look, index, names[index], onward, upward, right)
    for level, at in zip(levels, names[len(series) :], strict=True):
        body += _level_name(level, at, upward, right)
    return svg(title, f"{y.title} by {x.title}: {', '.join(one.name for one in series)}", width, height, body)


def _frame(onward: Scale, upward: Scale, left: float, right: float, unit_y: float) -> list[Html]:
    drawn = [write(upward.axis.title, 0, unit_y, look="unit small")]
    for tick, text in zip(upward.ticks, written(upward.ticks), strict=True):
        at = upward.place(tick)
        drawn.append(line(left, at, right, at, "grid"))
        drawn.append(write(text, left - 6, at + 4, look="soft small number", end="end"))
    drawn.append(line(left, upward.start, right, upward.start, "base"))
    for tick, text in zip(onward.ticks, written(onward.ticks), strict=True):
        at = onward.place(tick)
        drawn.append(line(at, upward.start, at, upward.start + 4, "base"))
        drawn.append(write(text, at, upward.start + 16, look="soft small number", end="middle"))
    middle = (left + right) / 2
    return [*drawn, write(onward.axis.title, middle, upward.start + 34, look="unit small", end="middle")]


def _level(level: Level, upward: Scale, left: float, right: float) -> Html:
    at = upward.place(level.y)
    return line(left, at, right, at, "level")


def _level_name(level: Level, at: float, upward: Scale, right: float) -> list[Html]:
    y = upward.place(level.y)
    leader = path([(right, y), (right + 6, at), (right + 16, at)], "level")
    return [leader, write(level.name, right + _KEY_PX - 3, at + 4)]


def _lines(one: Series, look: str, onward: Scale, upward: Scale) -> list[Html]:
    drawn = [
        line(onward.place(x), upward.place(low), onward.place(x), upward.place(high), f"span stroke {look}")
        for x, low, high in one.spans
    ]
    if one.fit:
        drawn.append(path([(onward.place(x), upward.place(y)) for x, y in one.fit], f"fit stroke {look}"))
    if one.joined and len(one.points) > 1:
        dashed = " dashed" if one.dashed else ""
        drawn.append(path([(onward.place(x), upward.place(y)) for x, y in one.points], f"path stroke {look}{dashed}"))
    return drawn


def _points(one: Series, look: str, index: int, onward: Scale, upward: Scale) -> list[Html]:
    tips = one.tips or [f"{one.name}: {onward.axis.named(x)}, {upward.axis.told(y)}" for x, y in one.points]
    size = _LARGE if one.large else 1.0
    return [
        point(onward.place(x), upward.place(y), look, index, tip, size=size)
        for (x, y), tip in zip(one.points, tips, strict=True)
    ]


def _apart(wanted: Sequence[tuple[float, bool]], floor: float) -> list[float]:
    """Px of names, from px and whether a note stands below: as near as the others leave room, above `floor`."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index][0])
    takes = [_NAME_GAP_PX + (_NOTE_PX if noted else 0) for _, noted in wanted]
    placed = [at for at, _ in wanted]
    for before, index in pairwise(order):
        placed[index] = max(placed[index], placed[before] + takes[before])
    for index in reversed(order):
        floor -= takes[index]
        placed[index] = min(placed[index], floor)
        floor = placed[index]
    return placed


def _name(one: Series, look: str, index: int, at: float, onward: Scale, upward: Scale, right: float) -> list[Html]:
    x, y = (axis.place(value) for axis, value in zip((onward, upward), one.points[-1], strict=True))
    drawn = []
    if one.joined and (abs(at - y) > 2 or right - x > 2 * _INSET_PX):
        drawn.append(path([(x + 6, y), (right, y), (right + 6, at)], "leader"))
    drawn += [point(right + 12, at, look, index, size=0.85), write(one.name, right + _KEY_PX - 3, at + 4)]
    if one.note:
        drawn.append(write(one.note, right + _KEY_PX - 3, at + 4 + _NOTE_PX, look="soft small"))
    return drawn
