"""Thresholds: measured from negatives, kept in a file, refused where they do not fit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipdeploy.errors import ImageError, InputError, OutputError
from clipdeploy.runtime.scores import probabilities
from clipdeploy.runtime.stream.decide import Levels, Thresholds, calibrate_thresholds, negatives_needed
from clipdeploy.runtime.stream.records import Frame, Scores


class Brightness:
    """Answers with the value of a frame's first pixel, and with ten times that."""

    labels = ("dim", "bright")
    embedding_space = "space-1"
    templates = ("a photo of a {}.",)
    precision = "fp32"

    def answer(self, frames: Sequence[Frame]) -> Scores:
        value = np.array([float(frame.pixels.flat[0]) for frame in frames])
        logits = np.stack([value, 10 * value], axis=1)
        return Scores(self.labels, logits, probabilities(logits, "softmax"))


def pictures(values: Sequence[int]) -> list[np.ndarray]:
    return [np.full((2, 2, 3), value, np.uint8) for value in values]


def test_it_takes_so_many_negatives() -> None:
    assert [negatives_needed(share) for share in (0.5, 0.1, 0.05, 0.01, 0.001)] == [1, 9, 19, 99, 999]


def test_the_threshold_is_the_quantile_that_a_further_negative_passes_seldom_enough() -> None:
    shuffled = np.random.default_rng(1).permutation(99).tolist()
    found = calibrate_thresholds(Brightness(), pictures(shuffled), false_alarms=0.01)
    assert found.values == (98.0, 980.0)  # the largest of 99 bounds 1 %
    found = calibrate_thresholds(Brightness(), pictures(shuffled), false_alarms=0.1)
    assert found.values == (89.0, 890.0)  # the 90th smallest of 99: 10 of the 100 places lie above
    spread = float(np.std(np.arange(99)))
    assert found.margins == pytest.approx((0.1 * spread, 1.0 * spread))
    assert (found.labels, found.false_alarms, found.negatives) == (("dim", "bright"), 0.1, 99)
    assert (found.embedding_space, found.templates, found.precision) == ("space-1", ("a photo of a {}.",), "fp32")


def test_fresh_negatives_pass_as_seldom_as_was_promised() -> None:
    """Over many calibrations with few negatives, on average; the plain quantile would let 2.5 times as many through."""
    rng = np.random.default_rng(2)
    passed = []
    for _ in range(400):
        drawn = rng.normal(size=(19 + 200, 1))
        value = np.sort(drawn[:19, 0])[18]
        bound = calibrate_thresholds(Given(drawn[:19]), pictures([0] * 19), false_alarms=0.05)
        assert bound.values == (value,)
        passed.append(float((drawn[19:, 0] > value).mean()))
    assert np.mean(passed) == pytest.approx(0.05, abs=0.006)


class Given:
    """Answers with the next rows of a table."""

    labels = ("thing",)

    def __init__(self, logits: np.ndarray) -> None:
        self.left = logits

    def answer(self, frames: Sequence[Frame]) -> Scores:
        rows, self.left = self.left[: len(frames)], self.left[len(frames) :]
        return Scores(self.labels, rows, probabilities(rows, "softmax"))


def test_pictures_files_and_frames_all_serve(tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    Image.new("L", (3, 3), 7).save(path)
    frame = Frame(np.full((3, 3, 3), 9, np.uint8), "bgr", "door", 0, 0.0, 0.0)
    made = calibrate_thresholds(Brightness(), [path, Image.new("RGBA", (2, 2), (8, 8, 8, 8)), frame], false_alarms=0.3)
    assert made.values == (9.0, 90.0)
    with pytest.raises(ImageError, match=r"missing\.png"):
        calibrate_thresholds(Brightness(), [tmp_path / "missing.png"], false_alarms=0.5)


def test_too_few_negatives_say_how_many_it_takes() -> None:
    with pytest.raises(InputError, match="at least 99 negatives, got 40") as caught:
        calibrate_thresholds(Brightness(), pictures(range(40)))
    assert "59 more" in str(caught.value.fix)
    assert "0.025" in str(caught.value.fix)  # above 1 / 41, so that 40 do suffice
    calibrate_thresholds(Brightness(), pictures(range(40)), false_alarms=0.025)
    with pytest.raises(InputError, match="got 0"):
        calibrate_thresholds(Brightness(), [], false_alarms=0.5)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_an_impossible_share_is_refused(share: float) -> None:
    with pytest.raises(InputError, match="share"):
        calibrate_thresholds(Brightness(), pictures([1]), false_alarms=share)


def test_a_file_keeps_everything(tmp_path: Path) -> None:
    made = calibrate_thresholds(Brightness(), pictures(range(99)))
    path = tmp_path / "thresholds.json"
    made.to_json(path)
    assert Thresholds.from_json(path) == made
    assert [p.name for p in tmp_path.iterdir()] == ["thresholds.json"]
    with pytest.raises(OutputError, match="nowhere"):
        made.to_json(tmp_path / "nowhere" / "thresholds.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": [1.0]}, "values"),
        ({"margins": [1.0]}, "margins"),
        ({"margins": [1.0, -1.0]}, "negative"),
        ({"values": [1.0, float("nan")]}, "finite"),
        ({"labels": ["a", "a"]}, "distinct"),
        ({"labels": [], "values": []}, "at least one"),
        ({"schema": 2}, "this version"),
        ({"surprise": 1}, "surprise"),
        ({"values": ["high", 1.0]}, "values"),
    ],
)
def test_a_file_that_is_wrong_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    good = {"schema": 1, "labels": ["a", "b"], "values": [1.0, 2.0]}
    path = tmp_path / "thresholds.json"
    path.write_text(json.dumps(good))
    assert Thresholds.from_json(path).values == (1.0, 2.0)
    path.write_text(json.dumps({**good, **change}))
    with pytest.raises(InputError, match=message):
        Thresholds.from_json(path)


@pytest.mark.parametrize("text", ["", "[1]", "{", "\udcff"])
def test_what_is_no_such_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "thresholds.json"
    with pytest.raises(InputError, match="thresholds"):
        Thresholds.from_json(path)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"thresholds\.json"):
        Thresholds.from_json(path)


def test_labels_that_were_never_measured_get_the_median() -> None:
    made = Thresholds(("a", "b", "c"), (10.0, 30.0, 20.0), (1.0, 2.0, 3.0))
    assert made.levels(("c", "new")) == (Levels(20.0, 17.0), Levels(20.0, 18.0))
    assert Thresholds(("a",), (5.0,)).levels(("a",)) == (Levels(5.0, 5.0),)


def test_thresholds_of_something_else_are_refused() -> None:
    made = Thresholds(("a", "b"), (1.0, 2.0), embedding_space="one", templates=("a {}",), precision="fp32")
    fits = {"embedding_space": "one", "templates": ["a {}"], "precision": "fp32"}
    made.check(["b"], **fits)  # type: ignore[arg-type]
    made.check(["a", "b"])
    with pytest.raises(InputError, match="no threshold for 'c'"):
        made.check(["a", "c"])
    for name, other in (("embedding_space", "two"), ("templates", ["the {}"]), ("precision", "int8")):
        with pytest.raises(InputError, match=f"another {name.replace('_', ' ')}") as caught:
            made.check(["a"], **{**fits, name: other})  # type: ignore[arg-type]
        assert "clipdeploy thresholds" in str(caught.value.fix)
    Thresholds(("a",), (1.0,)).check(["a"], **fits)  # type: ignore[arg-type]
