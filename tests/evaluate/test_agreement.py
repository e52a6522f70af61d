"""What a pair and its reference have in common, against hand-made answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from clipdeploy.evaluate.agreement import compare
from clipdeploy.evaluate.figures import rank_all
from clipdeploy.evaluate.records import Dataset, Item

KEYS = np.eye(3, 4, dtype=np.float32)


def unit(rows: list[list[float]]) -> np.ndarray:
    """Rows of length 1, float32."""
    array = np.array(rows, np.float32)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def item(name: str, **truth: Any) -> Item:
    """A picture that nobody opens."""
    return Item(name, lambda: b"", **truth)


def test_of_all_answers_and_of_those_that_are_right() -> None:
    items = [item(name, truth=truth) for name, truth in zip("abcd", (0, 1, 1, 1), strict=True)]
    dataset = Dataset("d", "zeroshot_classification", "folders", items, classes=("x", "y", "z"))
    before = unit([[3, 1, 0, 0], [3, 1, 0, 0], [0, 1, 3, 0], [0, 3, 1, 0]])
    now = unit([[3, 1, 0, 0], [1, 3, 0, 0], [0, 1, 3, 0], [3, 1, 0, 0]])
    found = compare("PyTorch fp32", rank_all(dataset, before, KEYS), rank_all(dataset, now, KEYS), before, now)
    assert (found.reference, found.same_answer) == ("PyTorch fp32", 0.5)
    shares = (found.both_right, found.only_reference, found.only_this, found.both_wrong)
    assert shares == (0.25, 0.25, 0.25, 0.25)
    assert found.cosine_least == pytest.approx(0.3)
    assert found.cosine_mean == pytest.approx((1 + 0.6 + 1 + 0.3) / 4)


def test_captions_are_asked_both_ways() -> None:
    items = [item("a", captions=(0, 1)), item("b", captions=(2,))]
    dataset = Dataset("d", "zeroshot_retrieval", "csv", items, captions=("x", "y", "z"))
    pictures, captions = unit([[1, 0, 0, 0], [0, 1, 0, 0]]), unit([[1, 0, 0, 0], [0, 1, 0, 0], [1, 3, 0, 0]])
    to_text, to_image = rank_all(dataset, pictures, captions)
    assert to_text.right.tolist() == [True, False]  # b is closest to a's second caption
    assert to_image.right.tolist() == [True, False, True]
    same = compare("r", (to_text, to_image), (to_text, to_image), pictures, pictures)
    assert (same.same_answer, same.both_right, same.both_wrong) == (1.0, 0.6, 0.4)
