"""The frontier of a quantised encoder: every recipe a mark, the budget a line, the chosen one told apart."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("onnx", reason="needs the extra: pip install 'clipdeploy[export]'")

from clipdeploy.calibration.accuracy import Accuracy, Budget
from clipdeploy.calibration.budget import Recipe, Trial
from clipdeploy.calibration.results import SampleNote, TowerQuantised
from clipdeploy.quantize.page import frontier, render
from clipdeploy.spec import Precision, Tower

CHOSEN = Recipe("max", kept=frozenset({"block 3"}))


def trial(recipe: Recipe, size_bytes: int, cosine: float) -> Trial:
    return Trial(recipe, 48, size_bytes, Accuracy(cosine, cosine, top1=1.0, decided=4, samples=4))


TRIALS = (
    trial(Recipe("max"), 88_000_000, 0.981),
    trial(Recipe("max", smooth=True), 88_400_000, 0.989),
    trial(CHOSEN, 95_000_000, 0.996),
    trial(Recipe("max", kept=frozenset({"a", "b"})), 103_000_000, 1.0),  # of which no loss can be measured
)


def quantised(trials: tuple[Trial, ...], recipe: Recipe) -> TowerQuantised:
    found = next(one for one in trials if one.recipe == recipe)
    return TowerQuantised(
        tower=Tower.IMAGE,
        precision=Precision.INT8,
        target="tensorrt",
        graph=Path("visual_int8.onnx"),
        weights=None,
        opset=20,
        recipe=recipe,
        accuracy=found.accuracy,
        budget=Budget(cosine_mean=0.99, cosine_min=0.97),
        measured_as="as ONNX Runtime computes it",
        layers=(),
        trials=trials,
        float32=(("/ln_post", "its range"),),
        samples=SampleNote(4, "ab" * 32, 4, 4, 0, "no labels", {}),
        seconds=3.0,
        size_before=350_000_000,
        size_after=found.size_bytes,
    )


def test_every_recipe_is_a_mark_with_its_figures() -> None:
    root = ElementTree.fromstring(frontier(quantised(TRIALS, CHOSEN)))
    assert len(list(root.iter("circle"))) == len(TRIALS)
    tips = [tip.text for tip in root.iter("title")]
    assert "max ranges, 1 block given back: 95.0 MB, mean cosine 0.99600" in tips
    texts = [text.text for text in root.iter("text")]
    assert {"chosen", "within the budget", "beyond it", "budget", "size, MB", "1 - mean cosine"} <= set(texts)
    large = [group for group in root.iter("g") if "scale(1.5)" in group.attrib["transform"]]
    assert len(large) == 1
    assert "good" in large[0].find("path").attrib["class"]  # type: ignore[union-attr]


def test_what_costs_more_stands_higher() -> None:
    root = ElementTree.fromstring(frontier(quantised(TRIALS, CHOSEN)))
    at = {
        (group.find("title").text or "").split(":")[0]: float(group.attrib["transform"].split()[1].rstrip(")"))  # type: ignore[union-attr]
        for group in root.iter("g")
        if group.find("title") is not None
    }
    heights = [at[str(one.recipe)] for one in TRIALS]
    assert heights == sorted(heights)


def test_one_recipe_alone_beyond_its_budget_is_drawn() -> None:
    root = ElementTree.fromstring(frontier(quantised(TRIALS[:1], TRIALS[0].recipe)))
    (group,) = [group for group in root.iter("g") if group.find("title") is not None]
    assert "bad" in group.find("path").attrib["class"]  # type: ignore[union-attr]


def test_the_page_has_its_tables() -> None:
    page = ElementTree.fromstring(render(quantised(TRIALS, CHOSEN), "ViT-B-32").split("\n", 1)[1])
    assert [heading.text for heading in page.iter("h2")] == ["frontier", "layers", "what stays in float32"]
    cells = [cell.text for cell in page.iter("td")]
    assert {"/ln_post", "its range"} <= set(cells)
