"""What all charts are made of: the frame around them, text and its width, the marks of series."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from clipdeploy.pages.chart_style import COLOURS
from clipdeploy.pages.markup import Html, el
from clipdeploy.text import width as cells

TITLE_PX = 24
_CHAR_PX = 6.7  # of a letter at 12 px, a little generous
_LEGEND_ROW_PX = 19
_SHAPES = {
    "square": "M-4 -4h8v8h-8z",
    "diamond": "M0 -5.4L5.4 0L0 5.4L-5.4 0z",
    "triangle": "M0 -5L5.2 4.2H-5.2z",
    "circle": "M-4.4 0a4.4 4.4 0 1 0 8.8 0a4.4 4.4 0 1 0 -8.8 0z",
}
_ORDER = ("circle", "square", "diamond", "triangle")


def svg(title: str, about: str, width: float, height: float, body: Sequence[Html]) -> Html:
    """A chart with its title in it; `about` is read out where charts are not seen."""
    head = el("text", title, x=0, y=14, class_="title") if title else None
    return el(
        "svg",
        head,
        *body,
        class_="chart",
        viewBox=f"0 0 {ceil(width)} {ceil(height)}",
        role="img",
        aria_label=f"{title}. {about}" if title else about,
        style=f"max-width:{ceil(width * 1.25)}px",
    )


def write(text: str, x: float, y: float, *, look: str = "", end: str | None = None) -> Html:
    """Text whose baseline is at `y`; `end` is `middle` or `end` of it at `x`."""
    return el("text", text, x=_px(x), y=_px(y), class_=look or None, text_anchor=end)


def line(x1: float, y1: float, x2: float, y2: float, look: str) -> Html:
    """A straight line."""
    return el("line", x1=_px(x1), y1=_px(y1), x2=_px(x2), y2=_px(y2), class_=look)


def path(points: Sequence[tuple[float, float]], look: str) -> Html:
    """Straight lines from point to point."""
    return el("path", d="M" + "L".join(f"{_px(x)} {_px(y)}" for x, y in points), class_=look)


def rect(x: float, y: float, width: float, height: float, look: str, *children: Html, round_px: float = 2) -> Html:
    """A rectangle; a tip goes in as a child."""
    size = {"width": _px(max(width, 0.0)), "height": _px(height)}
    return el("rect", *children, x=_px(x), y=_px(y), rx=round_px, class_=look, **size)


def point(x: float, y: float, look: str, index: int, tip: str = "", *, size: float = 1.0) -> Html:
    """The mark of series `index` at a place; its tip shows from a little around it."""
    told = [el("title", tip), el("circle", cx=0, cy=0, r=10, class_="hit")] if tip else []
    scaled = f" scale({size:g})" if size != 1.0 else ""
    shape = el("path", d=_SHAPES[_ORDER[index % len(_ORDER)]], class_=f"point fill {look}")
    return el("g", *told, shape, transform=f"translate({_px(x)} {_px(y)}){scaled}")


def look_of(colour: int | str | None, index: int) -> str:
    """The class that colours series `index`."""
    chosen = index if colour is None else colour
    return f"s{chosen % COLOURS}" if isinstance(chosen, int) else chosen


def wide(text: str) -> float:
    """About how many px text takes at 12 px."""
    return cells(text) * _CHAR_PX


def legend(entries: Sequence[tuple[str, str]], y: float, width: float) -> tuple[list[Html], float]:
    """Names beside squares of their class, in rows from `y` on; also where they end."""
    drawn: list[Html] = []
    x = 0.0
    for name, look in entries:
        needs = 16 + wide(name) + 10
        if x and x + needs > width:
            x, y = 0.0, y + _LEGEND_ROW_PX
        drawn += [rect(x, y - 9, 10, 10, f"fill {look}"), write(name, x + 15, y)]
        x += needs
    return drawn, y + _LEGEND_ROW_PX


def _px(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
