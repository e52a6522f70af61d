"""Small plots as inline SVG, coloured by the page's own style so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence

from clipdeploy.pages.markup import Html, el
from clipdeploy.verify.records import Check

DECADES_BELOW, DECADES_ABOVE = 6, 2
"""A gauge reaches from a millionth of its gate to a hundred times it."""

CELL_PX, LABEL_PX = 18, 30
MAP_LIMIT = 48
"""Rows and columns that a heat map shows, at most."""

Matrix = Sequence[Sequence[float | None]]


def check_gauge(check: Check) -> Html | None:
    """How far a check is from its gate; None where there is nothing between pass and fail."""
    if check.rule == "<=" and check.gate > 0:
        return gauge(check.value, check.gate, passed=check.passed)
    if check.name.startswith("cosine") and check.gate < 1:
        return gauge(None if check.value is None else 1 - check.value, 1 - check.gate, passed=check.passed)
    return None


def gauge(value: float | None, gate: float, *, passed: bool) -> Html:
    """A bar on a logarithmic scale with a tick where the gate is; the further left, the better."""
    tick = 100 * DECADES_BELOW / (DECADES_BELOW + DECADES_ABOVE)
    return el(
        "svg",
        el("rect", class_="track", x="0", y="2", width="100", height="4", rx="1"),
        el("rect", class_="good" if passed else "bad", x="0", y="2", width=_log_place(value, gate), height="4", rx="1"),
        el("rect", class_="tick", x=tick - 0.35, y="0", width="0.7", height="8"),
        **{"class_": "bar", "viewBox": "0 0 100 8", "preserveAspectRatio": "none", "aria-hidden": "true"},
    )


def _log_place(value: float | None, gate: float) -> float:
    """0..100; not finite is at the far end."""
    if value is None:
        return 100.0
    if value <= 0:
        return 0.0
    decades = math.log10(value / gate) + DECADES_BELOW
    return 100 * min(1.0, max(0.0, decades / (DECADES_BELOW + DECADES_ABOVE)))


def share_bar(share: float, *, passed: bool) -> Html:
    """A bar of 0..1."""
    return el(
        "svg",
        el("rect", class_="track", x="0", y="2", width="100", height="4", rx="1"),
        el("rect", class_="good" if passed else "bad", x="0", y="2", width=100 * min(1.0, share), height="4", rx="1"),
        **{"class_": "bar", "viewBox": "0 0 100 8", "preserveAspectRatio": "none", "aria-hidden": "true"},
    )


def cosine_map(cosines: Matrix, pictures: Sequence[str], texts: Sequence[str]) -> Html:
    """(K, T) cosines as a map: a column a picture, a row a text; a ring marks the nearest text of each picture."""
    known = [v for row in cosines for v in row if v is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    span = high - low or 1.0
    shades = [[None if v is None else (v - low) / span for v in row] for row in cosines]
    tips = [["not finite" if v is None else f"{v:.4f}" for v in row] for row in cosines]
    return _map(shades, tips, pictures, texts, fill="heat", rings=_nearest(cosines))


def drift_map(ours: Matrix, reference: Matrix, gate: float, pictures: Sequence[str], texts: Sequence[str]) -> Html:
    """(K, T) differences on the gauges' logarithmic scale; from three quarters of the ink on, a gate is broken."""
    shades: list[list[float | None]] = []
    tips: list[list[str]] = []
    for our_row, their_row in zip(ours, reference, strict=True):
        apart = [None if a is None or b is None else abs(a - b) for a, b in zip(our_row, their_row, strict=True)]
        shades.append([None if v is None else _log_place(v, gate) / 100 for v in apart])
        tips.append(["not finite" if v is None else f"{v:.1e}" for v in apart])
    return _map(shades, tips, pictures, texts, fill="drift", rings=[None] * len(shades))


def _nearest(cosines: Matrix) -> list[int | None]:
    """Index of the largest value in each row, None where a value is not finite."""
    return [
        None if any(v is None for v in row) else max(range(len(row)), key=lambda i: row[i] or 0.0) for row in cosines
    ]


def _map(
    shades: Matrix,
    tips: Sequence[Sequence[str]],
    pictures: Sequence[str],
    texts: Sequence[str],
    *,
    fill: str,
    rings: Sequence[int | None],
) -> Html:
    columns, rows = min(len(pictures), MAP_LIMIT), min(len(texts), MAP_LIMIT)
    marks: list[Html] = []
    for column in range(columns):
        x = LABEL_PX + column * CELL_PX
        marks.append(el("text", f"P{column + 1}", x=x + CELL_PX / 2, y=14, text_anchor="middle"))
        for row in range(rows):
            y, shade = 20 + row * CELL_PX, shades[column][row]
            tip = el("title", f"{pictures[column]} · {texts[row] or '(empty text)'}: {tips[column][row]}")
            look = "bad" if shade is None else fill
            ink = 1.0 if shade is None else 0.04 + 0.96 * shade
            box = el("rect", tip, class_=look, x=x, y=y, width=CELL_PX - 1, height=CELL_PX - 1, rx=2, fill_opacity=ink)
            marks.append(box)
        ring = rings[column]
        if ring is not None and ring < rows:
            y = 20 + ring * CELL_PX
            marks.append(el("circle", class_="ring", cx=x + (CELL_PX - 1) / 2, cy=y + (CELL_PX - 1) / 2, r=4.5))
    for row in range(rows):
        marks.append(el("text", f"T{row + 1}", x=LABEL_PX - 5, y=20 + row * CELL_PX + 13, text_anchor="end"))
    width, height = LABEL_PX + columns * CELL_PX, 22 + rows * CELL_PX
    return el("svg", *marks, class_="map", width=width, height=height, viewBox=f"0 0 {width} {height}")
