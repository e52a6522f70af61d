"""Labels, templates and probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from clipdeploy.errors import TextError
from clipdeploy.runtime.labels import TEMPLATES, check_labels, fill_templates, resolve_templates
from clipdeploy.runtime.scores import probabilities, rank


def test_the_80_templates_are_openais() -> None:
    metadata = pytest.importorskip("open_clip.zero_shot_metadata", reason="open_clip ships them as well")
    assert TEMPLATES["openai"] == tuple(t("{}") for t in metadata.OPENAI_IMAGENET_TEMPLATES)


def test_the_80_templates_are_distinct() -> None:
    assert len(set(TEMPLATES["openai"])) == 80
    assert all(t.count("{}") == 1 for t in TEMPLATES["openai"])


def test_templates_by_name_alone_or_several() -> None:
    assert resolve_templates("default") == ("a photo of a {}.",)
    assert resolve_templates("a {} at night") == ("a {} at night",)
    assert resolve_templates(["{}", "the {}"]) == ("{}", "the {}")
    assert len(resolve_templates("openai")) == 80


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("a photo", "has no {}"),
        ("opneai", 'did you mean template="openai"'),
        ([], "is empty"),
        (["a {}", "a photo"], "'a photo' has no {}"),
        (["a {}", 3], "got int: 3"),
        (None, "got NoneType"),
        (b"a {}", "got bytes"),
    ],
)
def test_a_template_that_is_none(template: Any, message: str) -> None:
    with pytest.raises(TextError) as caught:
        resolve_templates(template)
    assert message in str(caught.value)


def test_labels_are_kept_as_they_are() -> None:
    assert check_labels(["a Dog", " cat ", "{}"]) == ("a Dog", " cat ", "{}")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "empty"),
        ("dog", "put them into a list"),
        (["dog", ""], "label 1 is empty"),
        (["dog", " \t"], "label 1 is empty"),
        (["dog", 3], "label 1 must be a text, got int"),
        (["a", "b", "a"], "labels 0 and 2 are the same: 'a'"),
        (["big dog", "big  dog "], "labels 0 and 1 are the same"),
        (None, "got NoneType"),
        ({"dog"}, "got set"),
    ],
)
def test_labels_that_are_none(labels: Any, message: str) -> None:
    with pytest.raises(TextError) as caught:
        check_labels(labels)
    assert message in str(caught.value)


def test_texts_of_a_label_stand_side_by_side_and_braces_stay() -> None:
    texts = fill_templates(["x{0}", "y"], ["a {}", "{} {}"])
    assert texts == ["a x{0}", "x{0} x{0}", "a y", "y y"]


def test_softmax_and_sigmoid() -> None:
    logits = np.array([[1.0, 2.0, 3.0]])
    np.testing.assert_allclose(probabilities(logits, "softmax"), [[0.09003057, 0.24472847, 0.66524096]], rtol=1e-7)
    np.testing.assert_allclose(probabilities(logits, "sigmoid"), [[0.73105858, 0.88079708, 0.95257413]], rtol=1e-7)
    np.testing.assert_allclose(probabilities(-logits, "sigmoid"), 1 - probabilities(logits, "sigmoid"), rtol=1e-12)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_extreme_logits_stay_finite(kind: Any) -> None:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        chances = probabilities(np.array([[1e6, -1e6, 0.0]], dtype=np.float32), kind)
    assert chances[0, :2].tolist() == [1.0, 0.0]


def test_the_best_come_first_and_ties_keep_their_order() -> None:
    logits = np.array([1.0, 3.0, 2.0, 3.0])
    answer = rank(("a", "b", "c", "d"), logits, logits / 10, top=3)
    assert answer.labels == ("b", "d", "c")
    assert answer.logits == (3.0, 3.0, 2.0)
    assert answer.probabilities == (0.3, 0.3, 0.2)
    assert (answer.label, answer.probability) == ("b", 0.3)
