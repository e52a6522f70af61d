"""Charts: where marks stand, what is written, and that each is a well-formed picture that tells what it shows."""

from __future__ import annotations

import math
import re
from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pytest

from clipdeploy.pages.chart_style import COLOURS, SERIES
from clipdeploy.pages.charts import (
    CHART_CSS,
    Axis,
    Bar,
    Level,
    Series,
    Stack,
    bar_chart,
    line_chart,
    stacked_bars,
    standalone,
)
from clipdeploy.pages.markup import Html
from clipdeploy.pages.scales import linear_ticks, log_ticks, number, scale, written

X, Y = Axis("batch", log=True, ticks=(1, 8, 32)), Axis("one run", "ms", log=True)
TWO = (
    Series("openvino int8", [(1, 8.6), (8, 55.9), (32, 195.0)]),
    Series("onnxruntime <int8>", [(1, 14.6), (8, 94.9), (32, 330.0)]),
)


def drawn(chart: Html) -> ElementTree.Element:
    return ElementTree.fromstring(chart)


def texts(chart: Html) -> list[str]:
    return [found.text or "" for found in drawn(chart).iter("text")]


def marks(chart: Html, look: str) -> list[tuple[float, float]]:
    """Where the points of a series are, the mark beside its name left out."""
    found = []
    for group in drawn(chart).iter("g"):
        path = group.find("path")
        if path is not None and look in path.attrib["class"].split() and group.find("title") is not None:
            x, y = re.findall(r"-?[\d.]+", group.attrib["transform"])[:2]
            found.append((float(x), float(y)))
    return found


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 152, (0, 50, 100, 150, 200)),
        (0, 9.3, (0, 2, 4, 6, 8, 10)),
        (0.0, 0.31, (0, 0.1, 0.2, 0.3, 0.4)),
        (224, 384, (200, 250, 300, 350, 400)),
        (-3, 4, (-4, -2, 0, 2, 4)),
        (0, 0, (0, 0.2, 0.4, 0.6, 0.8, 1.0)),
    ],
)
def test_linear_ticks_are_round(low: float, high: float, ticks: tuple[float, ...]) -> None:
    assert linear_ticks(low, high, most=5) == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (5, 200, (5, 10, 20, 50, 100, 200)),
        (5, 2000, (10, 100, 1000)),
        (1e-6, 1e-2, (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)),
        (1e-12, 1.0, (1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2, 1.0)),
    ],
)
def test_logarithmic_ticks_are_round(low: float, high: float, ticks: tuple[float, ...]) -> None:
    assert log_ticks(low, high) == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0, "0"), (8.614, "8.61"), (8.6, "8.6"), (52.79, "52.8"), (412.4, "412"), (1064, "1,064"), (0.05, "0.05")),
        *((0.001, "0.001"), (1e-5, "10⁻⁵"), (3.2e-5, "3.2·10⁻⁵"), (2e9, "2·10⁹"), (999.7, "1,000"), (-3.5, "-3.5")),
    ],
)
def test_numbers_have_three_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text


def test_an_axis_writes_its_numbers_in_one_way() -> None:
    assert written((1e-5, 1e-4, 1e-3, 1e-2)) == ["10⁻⁵", "10⁻⁴", "10⁻³", "10⁻²"]
    assert written((0.001, 0.01, 0.1)) == ["0.001", "0.01", "0.1"]


def test_places_follow_the_axis() -> None:
    assert scale(Axis("a"), [0, 100], 50, 250).place(50) == 150
    assert scale(Axis("a", log=True), [1, 100], 0, 200).place(10) == pytest.approx(100)
    assert scale(Axis("a"), [0, 100], 200, 0).place(100) == 0  # upwards


@pytest.mark.parametrize(
    ("axis", "values", "complaint"),
    [
        (Axis("time", log=True), [0.0, 1.0], "above 0"),
        (Axis("time"), [math.nan], "finite"),
        (Axis("time"), [], "finite"),
    ],
)
def test_what_an_axis_cannot_show_is_refused(axis: Axis, values: list[float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        scale(axis, values, 0, 100)


def test_points_stand_where_their_values_are() -> None:
    chart = line_chart(TWO, x=X, y=Y, title="Time by batch")
    fast, slow = marks(chart, "s0"), marks(chart, "s1")
    assert [x for x, _ in fast] == [x for x, _ in slow] == sorted(x for x, _ in fast)
    assert all(below > above for (_, below), (_, above) in zip(fast, slow, strict=True))  # less time is further down
    steps = np.diff([y for _, y in fast])
    assert steps[0] / steps[1] == pytest.approx(math.log(55.9 / 8.6) / math.log(195 / 55.9), abs=0.02)


def test_a_chart_says_what_it_shows() -> None:
    chart = line_chart(TWO, x=X, y=Y, title="Time by batch")
    root = drawn(chart)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == "Time by batch. one run, ms by batch: openvino int8, onnxruntime <int8>"
    assert {"Time by batch", "one run, ms", "batch", "1", "8", "32", "onnxruntime <int8>"} <= set(texts(chart))
    tips = [tip.text for tip in root.iter("title")]
    assert "openvino int8: batch 8, 55.9 ms" in tips


def test_names_of_lines_that_end_together_stand_apart() -> None:
    many = [Series(f"series {i}", [(1, 10 + i), (2, 30 + i / 100)]) for i in range(12)]
    chart = line_chart(many, x=Axis("x"), y=Axis("y"), title="", height=320)
    at = sorted(float(text.attrib["y"]) for text in drawn(chart).iter("text") if (text.text or "").startswith("series"))
    assert len(at) == 12
    assert min(np.diff(at)) >= 15
    assert 0 < at[0] < at[-1] < 320


def test_nothing_is_drawn_outside() -> None:
    levels = [Level("a limit that has a long name", 700.0)]
    for chart in (
        line_chart(TWO, x=X, y=Y, title="", levels=levels),
        line_chart([Series("one", [(3, 5.0)])], x=Axis("x"), y=Axis("y", log=True), title=""),
        bar_chart([Bar("a very long name of a bar, which needs a line", 3.0, ceiling=9.0)], x=Axis("w", "W"), title=""),
        stacked_bars([Stack("a", {"one": 0.0, "two": 3.0})], x=Axis("t", "s"), title=""),
    ):
        root = drawn(chart)
        width, height = map(float, root.attrib["viewBox"].split()[2:])
        for shape in root.iter():
            for name in {"x", "x1", "x2", "cx"} & shape.attrib.keys():
                assert 0 <= float(shape.attrib[name]) <= width, ElementTree.tostring(shape)
            for name in {"y", "y1", "y2", "cy"} & shape.attrib.keys():
                assert 0 <= float(shape.attrib[name]) <= height, ElementTree.tostring(shape)


def test_levels_fits_and_spans() -> None:
    one = Series("a", [(1, 2.0), (2, 4.1)], note="slope 1", fit=[(1, 2.0), (2, 4.0)], spans=[(1, 1.5, 2.5)])
    chart = line_chart([one], x=Axis("x"), y=Axis("y"), title="", levels=[Level("ceiling", 5.0)])
    looks = [shape.attrib.get("class", "") for shape in drawn(chart).iter()]
    assert {"fit stroke s0", "span stroke s0", "level"} <= set(looks)
    assert {"slope 1", "ceiling"} <= set(texts(chart))


def test_bars_are_as_long_as_their_values() -> None:
    chart = bar_chart(
        [Bar("a", 10.0), Bar("b", 40.0, ceiling=80.0)], x=Axis("rate", "a second"), title="Rates", ceiling="at most"
    )
    short, long = (float(rect.attrib["width"]) for rect in drawn(chart).iter("rect"))
    assert long == pytest.approx(4 * short, abs=0.2)
    assert {"10 a second", "40 a second", "at most", "Rates"} <= set(texts(chart))


def test_parts_stand_behind_each_other_in_their_order() -> None:
    stacks = [Stack("x", {"late": 5.0, "early": 20.0}), Stack("y", {"early": 10.0, "late": 0.01})]
    chart = stacked_bars(stacks, x=Axis("time", "ms"), title="", order=("early", "middle", "late"))
    bars = [rect for rect in drawn(chart).iter("rect") if rect.find("title") is not None]
    tips = [rect.find("title").text for rect in bars]  # type: ignore[union-attr]
    assert tips == ["x, early: 20 ms", "x, late: 5 ms", "y, early: 10 ms", "y, late: 0.01 ms"]
    early, late = (float(bar.attrib["x"]) for bar in bars[:2])
    assert late > early
    assert {"25 ms", "early", "late"} <= set(texts(chart))
    assert "middle" not in texts(chart)  # of which there is none
    assert "x 25 ms: early 20 ms, late 5 ms" in drawn(chart).attrib["aria-label"]


def test_no_bars_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs bars"):
        bar_chart([], x=Axis("x"), title="")


def test_a_file_brings_its_look_with_it() -> None:
    chart = line_chart(TWO, x=X, y=Y, title="Time & batch")
    file = standalone(chart)
    root = ElementTree.fromstring(file)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.attrib["aria-label"].startswith("Time & batch. ")
    assert "var(" not in file
    assert "prefers-color-scheme: dark" in file
    assert 'class="paper"' in file
    for look in set(re.findall(r'class="([^"]+)"', file)):
        assert any(f".{name}" in file for name in look.split()), look


def test_a_page_has_a_colour_for_every_series() -> None:
    for name in (*(f"s{i}" for i in range(COLOURS)), "good", "bad"):
        assert f".fill.{name} {{ fill:var(--{name}); }}" in CHART_CSS
        assert f".stroke.{name} {{ stroke:var(--{name}); }}" in CHART_CSS
    assert [CHART_CSS.count(f"--s{i}:") for i in range(COLOURS)] == [2] * COLOURS  # light, dark
    ninth = line_chart([Series(f"{i}", [(1, i + 1)]) for i in range(9)], x=Axis("x"), y=Axis("y"), title="")
    assert len(marks(ninth, "s0")) == 2  # round again


# What is left of linear RGB without one kind of cone: G. M. Machado, M. M. Oliveira, L. A. F. Fernandes, A
# Physiologically-based Model for Simulation of Color Vision Deficiency, 2009, severity 1.0.
EYES = {
    "all cones": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
# Björn Ottosson, A perceptual color space for image processing, 2020: https://bottosson.github.io/posts/oklab/
TO_LMS = [
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
]
TO_LAB = [
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
]


def linear(colour: str) -> np.ndarray:
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    return np.array(TO_LAB) @ np.cbrt(np.array(TO_LMS) @ np.clip(rgb, 0, 1))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("eye", EYES)
def test_colours_keep_apart_for_every_eye(scheme: str, eye: str) -> None:
    seen = [lab(np.array(EYES[eye]) @ linear(colour)) for colour in SERIES[scheme]]
    assert min(float(np.linalg.norm(a - b)) for a, b in combinations(seen, 2)) >= 0.08


@pytest.mark.parametrize(("scheme", "paper"), [("light", "#fffefb"), ("dark", "#1c2024")])
def test_colours_stand_out_from_the_paper(scheme: str, paper: str) -> None:
    """WCAG's contrast of graphical objects, 3:1, rounded."""
    weights = np.array([0.2126, 0.7152, 0.0722])
    for colour in SERIES[scheme]:
        lighter, darker = sorted((float(weights @ linear(one)) for one in (colour, paper)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 2.9, colour
