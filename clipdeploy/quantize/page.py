"""The record of a quantised encoder as one page: the frontier as a plot, the table of layers, the samples."""

from __future__ import annotations

from clipdeploy.calibration.budget import Trial
from clipdeploy.calibration.results import TowerQuantised
from clipdeploy.pages.charts import CHART_CSS, Axis, Level, Series, line_chart
from clipdeploy.pages.markup import Html, el, page
from clipdeploy.pages.style import CSS
from clipdeploy.pages.tables import TABLE_CSS, table
from clipdeploy.quantize.report import LAYER_HEAD, TRIAL_HEAD, layer_rows, summary, trial_rows

_LEAST = 1e-7  # of 1 - cosine: what float32 leaves


def render(result: TowerQuantised, model: str) -> str:
    """The page as text."""
    title = f"{result.precision.value} of the {result.tower.value} encoder"
    facts = [el("div", el("dt", name), el("dd", value)) for name, value in summary(result)]
    return page(
        f"{title} · {model}",
        CSS + CHART_CSS + TABLE_CSS,
        el(
            "main",
            el("header", el("p", "quantisation report", class_="over"), el("h1", f"{title}, {model}"), el("dl", facts)),
            el(
                "section",
                el("h2", "frontier"),
                el(
                    "p",
                    "Each mark is a recipe that was built and measured: the further down, the closer to fp32. The "
                    "dotted line is the budget's mean cosine.",
                    class_="meaning",
                ),
                frontier(result),
                table(TRIAL_HEAD, trial_rows(result)),
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
                table(LAYER_HEAD, layer_rows(result)),
            ),
            _float32(result),
            el("footer", "clipdeploy quantize"),
        ),
    )


def frontier(result: TowerQuantised) -> Html:
    """Size against 1 - mean cosine, logarithmic."""
    chosen = [trial for trial in result.trials if trial.recipe == result.recipe]
    others = [trial for trial in result.trials if trial.recipe != result.recipe]
    held = [trial for trial in others if trial.accuracy.holds(result.budget)]
    kinds = (
        ("chosen", chosen, "good" if result.accuracy.holds(result.budget) else "bad"),
        ("within the budget", held, "good"),
        ("beyond it", [trial for trial in others if trial not in held], "bad"),
    )
    return line_chart(
        [
            Series(
                name,
                [(trial.size_bytes / 1e6, _loss(trial)) for trial in trials],
                joined=False,
                tips=[_tip(trial) for trial in trials],
                colour=look,
                large=name == "chosen",
            )
            for name, trials, look in kinds
            if trials
        ],
        x=Axis("size", "MB", zero=False),
        y=Axis("1 - mean cosine", log=True),
        title="",
        width=640,
        height=300,
        levels=[Level("budget", max(1.0 - result.budget.cosine_mean, _LEAST))],
    )


def _tip(trial: Trial) -> str:
    return f"{trial.recipe}: {trial.size_bytes / 1e6:.1f} MB, mean cosine {trial.accuracy.cosine_mean:.5f}"


def _loss(trial: Trial) -> float:
    return max(1.0 - trial.accuracy.cosine_mean, _LEAST)


def _float32(result: TowerQuantised) -> Html | None:
    if not result.float32:
        return None
    return el(
        "section",
        el("h2", "what stays in float32"),
        el("p", "Beyond the range of 16 bits, or lost in it.", class_="meaning"),
        table(("node", "why"), result.float32),
    )
