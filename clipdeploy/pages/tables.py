"""Tables of a page."""

from __future__ import annotations

from collections.abc import Sequence

from clipdeploy.pages.markup import Html, el

TABLE_CSS = """
table { border-collapse:collapse; width:100%; font-size:.88rem; margin-top:.6rem; }
th { text-align:left; color:var(--soft); font-weight:600; } th, td { padding:.2rem .7rem .2rem 0; vertical-align:top; }
tbody td, tbody th { border-top:1px solid var(--line); font-variant-numeric:tabular-nums; overflow-wrap:anywhere; }
tbody th { color:inherit; font-weight:500; }
.numbers th:not(:first-child), .numbers td { text-align:right; padding:.2rem 0 .2rem .8rem; overflow-wrap:normal; }
.numbers tbody tr:not(.first) td { border-top-color:transparent; }
"""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    """Rows of text."""
    return _scrolled(head, [el("tr", [el("td", cell) for cell in row]) for row in rows])


def grouped_table(head: Sequence[str], groups: Sequence[tuple[str, Sequence[Sequence[str]]]]) -> Html:
    """Rows of numbers, each group under one name in the first column."""
    rows = [
        el(
            "tr",
            el("th", name, scope="row", rowspan=len(group)) if not number else None,
            [el("td", cell) for cell in row],
            class_=None if number else "first",
        )
        for name, group in groups
        for number, row in enumerate(group)
    ]
    return _scrolled(head, rows, look="numbers")


def _scrolled(head: Sequence[str], rows: Sequence[Html], look: str | None = None) -> Html:
    """It scrolls by itself where the page is narrower, with a finger or with the keys."""
    names = el("thead", el("tr", [el("th", name, scope="col") if name else el("td") for name in head]))
    return el("div", el("table", names, el("tbody", rows), class_=look), class_="scroll", tabindex="0")
