"""What fell: right in the reference, wrong now, the furthest first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from clipdeploy.evaluate import drops
from clipdeploy.evaluate.drops import worst_drops
from clipdeploy.evaluate.figures import rank_all
from clipdeploy.evaluate.metrics import Ranked
from clipdeploy.evaluate.records import Dataset, Item
from tests.bundles import model_spec
from tests.evaluate.test_agreement import KEYS, unit

BEFORE = unit([[3, 1, 0, 0], [5, 1, 0, 0], [1, 3, 0, 0], [0, 1, 3, 0]])
NOW = unit([[1, 3, 0, 0], [4, 5, 0, 0], [1, 3, 0, 0], [0, 1, 3, 0]])


def dataset(count: int = 4) -> Dataset:
    truths = (0, 0, 0, 2)
    items = [Item(f"{row}.jpg", lambda: b"", truth=truths[row % 4]) for row in range(count)]
    return Dataset("d", "zeroshot_classification", "folders", items, classes=("cat", "dog", "fox"))


def seen(images: np.ndarray, of: Dataset) -> tuple[Ranked, Any, Any]:
    return rank_all(of, images, KEYS)[0], images, KEYS


def test_the_furthest_first_with_names_and_chances() -> None:
    of, spec = dataset(), model_spec(100, logit_scale=10.0)
    first, second = worst_drops(of, spec, seen(BEFORE, of), seen(NOW, of))
    assert (first.item, first.name, first.words) == (0, "0.jpg", ("cat", "cat", "dog"))
    assert (second.item, second.name) == (1, "1.jpg")
    assert first.margin_before == pytest.approx(-first.margin_now)
    assert first.margin_before - first.margin_now > second.margin_before - second.margin_now
    assert first.chances is not None
    before, now, truth = first.chances
    logits = 10.0 * NOW[0] @ KEYS.T
    assert now == pytest.approx(np.exp(logits[1]) / np.exp(logits).sum(), rel=1e-5)
    assert before == pytest.approx(now) and truth < 0.01


def test_a_sigmoid_stands_for_itself() -> None:
    of, spec = dataset(), model_spec(100, logit_scale=10.0, logit_bias=-5.0, probability="sigmoid")
    first = worst_drops(of, spec, seen(BEFORE, of), seen(NOW, of))[0]
    assert first.chances is not None
    assert first.chances[0] == pytest.approx(1 / (1 + np.exp(5 - 10 * BEFORE[0, 0])), rel=1e-5)


def test_none_where_nothing_fell_and_a_bounded_number() -> None:
    of, spec = dataset(), model_spec(100)
    assert worst_drops(of, spec, seen(NOW, of), seen(BEFORE, of)) == ()
    many = dataset(400)
    before, now = seen(np.tile(BEFORE, (100, 1)), many), seen(np.tile(NOW, (100, 1)), many)
    found = worst_drops(many, spec, before, now)
    assert len(found) == drops.KEPT
    assert [drop.item for drop in found[:2]] == [0, 4]  # equals in order


def test_captions_are_told_by_their_words() -> None:
    items = [Item("a", lambda: b"", captions=(0, 1)), Item("b", lambda: b"", captions=(2,))]
    of = Dataset("d", "zeroshot_retrieval", "csv", items, captions=("one", "two", "three"))
    before, now = unit([[1, 3, 0, 0], [0, 0, 1, 0]]), unit([[1, 0, 3, 0], [0, 0, 1, 0]])
    (drop,) = worst_drops(of, model_spec(100), seen(before, of), seen(now, of))
    assert (drop.truth, drop.before, drop.now, drop.words) == (1, 1, 2, ("two", "two", "three"))
    assert drop.chances is None
