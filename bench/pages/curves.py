"""Cost by batch, picture size and model size: plots with their fits, and the tables under them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.curves import Fit, curve_table, fit_of
from bench.pages.section import Results, Section, block
from clipdeploy.pages.charts import Axis, Series, line_chart, standalone

_ABOUT = """`python -m bench.curves`: what one run of the image encoder takes, in the runtime's own sessions on prepared
pixels, each compiled for its batch. All points of a curve take turns; upright lines reach from the fastest round to the
slowest, dashed ones are fitted, with the least squares of relative errors."""


@dataclass(frozen=True)
class _Plot:
    """How a curve is drawn and told.

    Attributes:
        title: above it.
        x: its axis.
        note: what a fit says, below the name of its line.
        about: above the plot on the page.
        joined: whether its points are.
    """

    title: str
    x: Axis
    note: Callable[[Fit], str]
    about: str
    joined: bool = True


_PLOTS = {
    "batch": _Plot(
        "One run of {model}, by batch",
        Axis("batch", log=True, ticks=(1, 2, 4, 8, 16, 32, 64)),
        lambda fit: f"{fit.fixed:.1f} + {fit.slope:.2f} ms a picture",
        "**By batch.** `fixed` is what a run costs before its first picture, `slope` each picture more: where `fixed` "
        "is small beside `slope`, batches bring little.",
    ),
    "image-size": _Plot(
        "{batch} pictures through {model}, by picture size",
        Axis("patches of 32 px a picture"),
        lambda fit: f"{fit.fixed:.1f} + {fit.slope:.3f} ms a patch",
        "**By picture size.** A picture of side s has (s / 32)² patches; twice the side is four times the patches.",
    ),
    "model-size": _Plot(
        "One picture, by model size",
        Axis("matrix products of a picture", "GFLOP", log=True),
        lambda fit: f"grows as GFLOP^{fit.exponent:.2f}",
        "**By model size.** An exponent of 1 means that twice the products take twice the time; below 1, larger models "
        "use the machine better.",
        joined=False,
    ),
}


def curves_section(results: Results) -> list[Section]:
    """The section, when the curves were measured."""
    record = results.get("curves")
    if record is None:
        return []
    parts = [_ABOUT, results.measured(record)]
    for name, curve in record["curves"].items():
        plot = _PLOTS[name]
        parts += [
            plot.about,
            f"![{_title(plot, curve)}, milliseconds](images/{image_name(name)})",
            block(curve_table(curve)),
        ]
    return [Section("Cost by batch, picture size and model size", tuple(parts))]


def plots(results: Results) -> dict[str, str]:
    """File names and the SVG files of the curves that were measured."""
    record = results.get("curves")
    return (
        {} if record is None else {image_name(name): plot_of(name, curve) for name, curve in record["curves"].items()}
    )


def image_name(curve: str) -> str:
    """Of its file in docs/images."""
    return f"bench-{curve}.svg"


def plot_of(name: str, curve: dict[str, Any]) -> str:
    """An SVG file: a line for each backend and precision, with its fit."""
    plot = _PLOTS[name]
    series = []
    for pair, points in curve["pairs"].items():
        fit = fit_of(curve["fits"][pair]) if pair in curve["fits"] else None
        xs = [point["x"] for point in points]
        series.append(
            Series(
                pair,
                [(point["x"], point["ms"]) for point in points],
                joined=plot.joined,
                note=plot.note(fit) if fit else "",
                fit=[(x, fit.at(x)) for x in _between(min(xs), max(xs)) if fit.at(x) > 0] if fit else (),
                spans=[(point["x"], min(point["rounds_ms"]), max(point["rounds_ms"])) for point in points],
                tips=[f"{pair}, {point['name']}: {point['ms']:.1f} ms" for point in points],
            )
        )
    y = Axis("one run", "ms", log=True)
    return standalone(line_chart(series, x=plot.x, y=y, title=_title(plot, curve), width=720, height=380))


def _title(plot: _Plot, curve: dict[str, Any]) -> str:
    points = next(iter(curve["pairs"].values()))
    return plot.title.format(model=curve.get("model", ""), batch=points[0]["batch"])


def _between(low: float, high: float, steps: int = 24) -> list[float]:
    return [float(x) for x in np.geomspace(low, high, steps)]
