"""The confusion matrix of few classes as a picture: a row a class, a column an answer."""

from __future__ import annotations

from clipdeploy.evaluate.records import EvaluateResult, PairFigures
from clipdeploy.pages.markup import Html, el

MOST_CLASSES = 40
"""With pictures; more would be too small to read."""

_CELL_PX, _LETTER_PX, _GAP_PX = 14, 5.4, 6
_LONGEST = 22

MATRIX_CSS = """
.matrix { display:block; } .matrix text { fill:var(--soft); font-size:9.5px; } .matrix .empty { fill:var(--track); }
"""


def confusion_matrix(result: EvaluateResult, pair: PairFigures) -> Html:
    """Of each class's pictures the share that got each answer, as ink; what is right in one colour, the rest in
    another. Classes without pictures have no row, answers that nobody got no column."""
    counts = {(one.truth, one.answer): one.count for one in pair.confusions}
    for index, total in enumerate(result.class_counts):
        wrong = sum(count for (truth, _), count in counts.items() if truth == index)
        if total - wrong:
            counts[index, index] = total - wrong
    rows = [index for index, total in enumerate(result.class_counts) if total]
    columns = sorted({answer for _, answer in counts} | set(rows))
    margin = _LETTER_PX * max(len(_short(result.classes[index])) for index in columns) + _GAP_PX
    marks = [_row_name(result, index, row, margin) for row, index in enumerate(rows)]
    marks += [_column_name(result, index, column, margin) for column, index in enumerate(columns)]
    for row, truth in enumerate(rows):
        y = margin + row * _CELL_PX
        marks.append(_rect(margin, y, len(columns) * _CELL_PX, "empty", None, 1.0))
        for column, answer in enumerate(columns):
            count = counts.get((truth, answer), 0)
            if count:
                total = result.class_counts[truth]
                tip = f"{result.classes[truth]} called {result.classes[answer]}: {count} of {total}"
                look = "heat" if truth == answer else "drift"
                marks.append(_rect(margin + column * _CELL_PX, y, _CELL_PX, look, tip, 0.15 + 0.85 * count / total))
    width, height = margin + len(columns) * _CELL_PX, margin + len(rows) * _CELL_PX
    label = f"confusion matrix of {pair.name}"
    svg = el(
        "svg",
        *marks,
        class_="matrix",
        width=round(width),
        height=round(height),
        viewBox=f"0 0 {round(width)} {round(height)}",
        role="img",
        aria_label=label,
    )
    return el("div", svg, class_="scroll")


def _rect(x: float, y: float, width: float, look: str, tip: str | None, ink: float) -> Html:
    children = () if tip is None else (el("title", tip),)
    size = {"x": x, "y": y, "width": width - 1, "height": _CELL_PX - 1}
    return el("rect", *children, **size, class_=look, fill_opacity=None if ink == 1.0 else round(ink, 3))


def _row_name(result: EvaluateResult, index: int, row: int, margin: float) -> Html:
    y = margin + row * _CELL_PX + _CELL_PX * 0.72
    return el("text", _short(result.classes[index]), x=margin - _GAP_PX, y=y, text_anchor="end")


def _column_name(result: EvaluateResult, index: int, column: int, margin: float) -> Html:
    x, y = margin + column * _CELL_PX + _CELL_PX * 0.72, margin - _GAP_PX
    return el("text", _short(result.classes[index]), x=x, y=y, transform=f"rotate(-90 {x:.1f} {y:.1f})")


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
