"""The record of a quantised encoder as one page: the frontier as a plot, the table of layers, the samples."""

from __future__ import annotations

import math
from collections.abc import Sequence

from clipdeploy.calibration.budget import Trial
from clipdeploy.calibration.results import TowerQuantised
from clipdeploy.pages.markup import Html, el, page
from clipdeploy.pages.style import CSS
from clipdeploy.quantize.report import LAYER_HEAD, TRIAL_HEAD, layer_rows, summary, trial_rows

_WIDTH, _HEIGHT = 640, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 16, 14, 34
_LEAST = 1e-7  # of 1 - cosine: what float32 leaves

_MORE = """
table { border-collapse:collapse; width:100%; font-size:.88rem; margin-top:.6rem; }
th { text-align:left; color:var(--soft); font-weight:600; } th, td { padding:.2rem .7rem .2rem 0; vertical-align:top; }
td { border-top:1px solid var(--line); font-variant-numeric:tabular-nums; overflow-wrap:anywhere; }
.frontier { width:100%; height:auto; margin-top:.6rem; } .frontier text { fill:var(--soft); font-size:11px; }
.axis { stroke:var(--line); } .limit { stroke:var(--bad); stroke-dasharray:5 4; }
"""


def render(result: TowerQuantised, model: str) -> str:
    """The page as text."""
    title = f"{result.precision.value} of the {result.tower.value} encoder"
    facts = [el("div", el("dt", name), el("dd", value)) for name, value in summary(result)]
    return page(
        f"{title} · {model}",
        CSS + _MORE,
        el(
            "main",
            el("header", el("p", "quantisation report", class_="over"), el("h1", f"{title}, {model}"), el("dl", facts)),
            el(
                "section",
                el("h2", "frontier"),
                el(
                    "p",
                    "Each dot is a recipe that was built and measured: the further down, the closer to fp32. The full "
                    "one was chosen; the dashed line is the budget's mean cosine.",
                    class_="meaning",
                ),
                frontier(result),
                _table(TRIAL_HEAD, trial_rows(result)),
            ),
            el(
                "section",
                el("h2", "layers"),
                el(
                    "p",
                    "Sensitivity is 1 - mean cosine with that block alone quantised; measured where blocks had to "
                    "be given back.",
                    class_="meaning",
                ),
                _table(LAYER_HEAD, layer_rows(result)),
            ),
            _float32(result),
            el("footer", "clipdeploy quantize"),
        ),
    )


def frontier(result: TowerQuantised) -> Html:
    """Size against 1 - mean cosine, logarithmic."""
    limit = max(1.0 - result.budget.cosine_mean, _LEAST)
    losses = [_loss(trial) for trial in result.trials]
    sizes = [trial.size_bytes / 1e6 for trial in result.trials]
    top, bottom = math.ceil(math.log10(max(*losses, limit))), math.floor(math.log10(min(*losses, limit)))
    left, right = min(sizes), max(sizes)
    slack = (right - left) * 0.08 or right * 0.05 or 1.0
    left, right = left - slack, right + slack

    def x(size: float) -> float:
        return _LEFT + (size - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)

    def y(loss: float) -> float:
        share = (top - math.log10(loss)) / max(top - bottom, 1)
        return _TOP + share * (_HEIGHT - _TOP - _BOTTOM)

    marks: list[Html] = []
    for power in range(bottom, top + 1):
        height = y(10.0**power)
        marks.append(el("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=height, y2=height, class_="axis"))
        marks.append(el("text", f"{10.0**power:.0e}", x=_LEFT - 8, y=height + 4, text_anchor="end"))
    marks.append(el("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y(limit), y2=y(limit), class_="limit"))
    for trial, size, loss in zip(result.trials, sizes, losses, strict=True):
        chosen = trial.recipe == result.recipe
        tip = el("title", f"{trial.recipe}: {size:.1f} MB, mean cosine {trial.accuracy.cosine_mean:.5f}")
        look = "good" if trial.accuracy.holds(result.budget) else "bad"
        marks.append(
            el("circle", tip, cx=x(size), cy=y(loss), r=6 if chosen else 4, class_=look, fill_opacity=_ink(chosen))
        )
    digits = 1 if max(sizes) - min(sizes) > 1 else 3
    for size in dict.fromkeys((min(sizes), max(sizes))):
        marks.append(el("text", f"{size:.{digits}f} MB", x=x(size), y=_HEIGHT - 10, text_anchor="middle"))
    return el("svg", *marks, class_="frontier", viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label="frontier")


def _loss(trial: Trial) -> float:
    return max(1.0 - trial.accuracy.cosine_mean, _LEAST)


def _ink(chosen: bool) -> float:
    return 1.0 if chosen else 0.45


def _float32(result: TowerQuantised) -> Html | None:
    if not result.float32:
        return None
    return el(
        "section",
        el("h2", "what stays in float32"),
        el("p", "Beyond the range of 16 bits, or lost in it.", class_="meaning"),
        _table(("node", "why"), result.float32),
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    return el(
        "div",
        el(
            "table",
            el("tr", [el("th", name) for name in head]),
            [el("tr", [el("td", cell) for cell in row]) for row in rows],
        ),
        class_="scroll",
    )
