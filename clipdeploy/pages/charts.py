"""Charts as SVG, pure functions of data. On a page they take their look from `CHART_CSS`; `standalone` makes a file.

Text keeps its size where a chart is as wide as it is drawn: of 440 px, two stand beside each other on a page and one
on a phone.
"""

from __future__ import annotations

from clipdeploy.pages.bars import Bar, Stack, bar_chart, stacked_bars
from clipdeploy.pages.chart_style import CHART_CSS, FILE_CSS
from clipdeploy.pages.lines import Level, Series, line_chart
from clipdeploy.pages.markup import Html, el, style
from clipdeploy.pages.scales import Axis

__all__ = [
    "CHART_CSS",
    "Axis",
    "Bar",
    "Level",
    "Series",
    "Stack",
    "bar_chart",
    "line_chart",
    "stacked_bars",
    "standalone",
]

_MARGIN_PX = 16


def standalone(chart: Html) -> str:
    """An .svg file of a chart, for Markdown: its style inside, on paper of its own, light or dark as its reader is."""
    head, inside = chart.split(">", 1)
    width, height = (int(side) for side in head.split('viewBox="0 0 ')[1].split('"')[0].split())
    whole = (width + 2 * _MARGIN_PX, height + 2 * _MARGIN_PX)
    about = Html(head.split('aria-label="')[1].split('"')[0])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" width="{whole[0]}" height="{whole[1]}" '
        f'viewBox="{-_MARGIN_PX} {-_MARGIN_PX} {whole[0]} {whole[1]}" role="img" aria-label="{about}">'
        f"{style(FILE_CSS)}"
        f"{el('rect', x=-_MARGIN_PX, y=-_MARGIN_PX, width=whole[0], height=whole[1], rx=10, class_='paper')}"
        f"{inside}\n"
    )
