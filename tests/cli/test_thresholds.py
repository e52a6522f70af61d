"""clipdeploy thresholds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipdeploy.runtime.clip import load
from clipdeploy.runtime.stream import Thresholds
from tests.cli.conftest import Run, document, failure

LABELS = ("--labels", "a dog,a cat")


@pytest.fixture
def empty_places(tmp_path: Path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(12):
        Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def test_the_file_holds_what_the_negatives_say(run: Run, bundle: Path, empty_places: Path, tmp_path: Path) -> None:
    output = tmp_path / "thresholds.json"
    arguments = ("thresholds", bundle, *LABELS, "--negatives", empty_places, "-o", output, "--false-alarms", 0.1)
    answer = document(run(*arguments, "--json"))
    made = Thresholds.from_json(output)
    assert made.labels == ("a dog", "a cat")
    assert [one["enter"] for one in answer["thresholds"]] == list(made.values)
    assert all(one["leave"] < one["enter"] for one in answer["thresholds"])
    assert (answer["negatives"], made.false_alarms) == (12, 0.1)
    with load(bundle) as clip:
        pictures = sorted(empty_places.iterdir())
        logits = {label: [] for label in made.labels}
        for picture in pictures:
            (found,) = clip.classify([picture], made.labels)
            for label, logit in zip(found.labels, found.logits, strict=True):
                logits[label].append(logit)
        for label, value in zip(made.labels, made.values, strict=True):
            # (12 + 1) * 0.9 = 11.7: the largest of twelve
            assert value == pytest.approx(max(logits[label]), abs=1e-4)
        made.check(made.labels, embedding_space=clip.embedding_space, precision="fp32")


def test_a_line_a_label(run: Run, bundle: Path, empty_places: Path, tmp_path: Path) -> None:
    output = tmp_path / "thresholds.json"
    result = run("thresholds", bundle, *LABELS, "--negatives", empty_places, "-o", output, "--false-alarms", 0.1)
    assert result.exit_code == 0
    head, *lines = result.stdout.splitlines()
    assert "10 % of 12 negatives" in head
    assert [line.split("above")[0].strip() for line in lines] == ["a dog", "a cat"]


def test_too_few_say_how_many_and_write_nothing(run: Run, bundle: Path, empty_places: Path, tmp_path: Path) -> None:
    output = tmp_path / "thresholds.json"
    message = failure(run("thresholds", bundle, *LABELS, "--negatives", empty_places, "-o", output))
    assert "at least 99 negatives, got 12" in message
    assert not output.exists()


def test_a_camera_that_never_ends_is_refused(run: Run, bundle: Path, tmp_path: Path) -> None:
    message = failure(
        run("thresholds", bundle, *LABELS, "--negatives", "/dev/video7", "-o", tmp_path / "thresholds.json")
    )
    assert "/dev/video7" in message


def test_labels_are_asked_for(run: Run, bundle: Path, empty_places: Path, tmp_path: Path) -> None:
    message = failure(run("thresholds", bundle, "--negatives", empty_places, "-o", tmp_path / "thresholds.json"))
    assert "labels" in message
