"""Picture files, caption files and videos of the demo world."""

from __future__ import annotations

import csv
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipdeploy.demo import HELD_OUT, class_names, video, write_captions, write_images, write_video
from clipdeploy.demo.video import Truth
from clipdeploy.errors import InputError, OutputError


def test_labelled_pictures_lie_in_a_folder_a_class(tmp_path: Path) -> None:
    written = write_images(tmp_path / "pictures", count=30)
    assert len(written.paths) == len(written.labels) == 30
    assert set(written.labels) == set(class_names(HELD_OUT))
    sizes = set()
    for path, label in zip(written.paths, written.labels, strict=True):
        assert path.parent.name == label.replace(" ", "_")
        with Image.open(path) as picture:
            assert picture.format == "JPEG"
            sizes.add(picture.size)
    assert {w > h for w, h in sizes} == {True, False}


def test_the_same_seed_writes_the_same_files(tmp_path: Path) -> None:
    runs = [write_images(tmp_path / name, count=5, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    first, again, other = ([path.read_bytes() for path in run.paths] for run in runs)
    assert first == again
    assert first != other


def test_captions_come_as_a_table(tmp_path: Path) -> None:
    written = write_captions(tmp_path, count=6, per_image=3, size=(80, 60))
    with written.table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) == 18
    assert [row["caption"] for row in rows] == list(written.captions)
    assert len({row["image"] for row in rows}) == 6
    for row in rows:
        with Image.open(tmp_path / row["image"]) as picture:
            assert picture.size == (80, 60)


@pytest.fixture(scope="module")
def clip() -> list[tuple[Image.Image, Truth]]:
    return list(video(seconds=6, fps=5, size=(160, 120), seed=4))


def test_objects_enter_and_leave_and_the_light_changes(clip: list[tuple[Image.Image, Truth]]) -> None:
    counts = [len(truth.objects) for _, truth in clip]
    assert len(clip) == 30
    assert min(counts) == 0
    assert max(counts) >= 1
    assert any(b > a for a, b in pairwise(counts))
    assert any(b < a for a, b in pairwise(counts))
    lights = [truth.light for _, truth in clip]
    assert max(lights) - min(lights) > 0.3
    brightness = [float(np.asarray(frame, np.float32).mean()) for frame, _ in clip]
    assert np.corrcoef(lights, brightness)[0, 1] > 0.9


def test_what_is_declared_visible_changes_the_pixels_of_its_box(clip: list[tuple[Image.Image, Truth]]) -> None:
    empty_frame, empty = next((frame, truth) for frame, truth in clip if not truth.objects)
    bare = np.asarray(empty_frame, np.float32) / empty.light
    seen = 0
    for frame, truth in clip:
        changed = np.abs(np.asarray(frame, np.float32) / truth.light - bare).max(2) > 40
        declared = np.zeros(changed.shape, bool)
        for one in truth.objects:
            left, top, right, bottom = one["box"]
            declared[top:bottom, left:right] = True
            if one["share"] > 0.3:
                seen += 1
                assert changed[top:bottom, left:right].mean() > 0.15, (truth.index, one)
        # and nothing else does, but for the blurred rims and the noise
        assert (changed & ~declared).mean() < 0.02, truth.index
    assert seen > 10


def test_a_video_is_written_with_its_truth(tmp_path: Path) -> None:
    written = write_video(tmp_path, seconds=1, fps=5, size=(64, 48), gif=True)
    rows = [json.loads(line) for line in written.truth.read_text(encoding="utf-8").splitlines()]
    assert [row["frame"] for row in rows] == list(range(5))
    assert [path.name for path in written.frames] == [f"{i:05d}.jpg" for i in range(5)]
    for row in rows:
        assert row["labels"] == [one["label"] for one in row["objects"]]
        assert set(row["labels"]) <= set(class_names())
    assert written.gif is not None
    with Image.open(written.gif) as animated:
        assert getattr(animated, "n_frames", 1) > 1


def test_impossible_wishes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="split"):
        write_images(tmp_path, split="test")
    with pytest.raises(InputError, match="0 pictures"):
        write_images(tmp_path, count=0)
    with pytest.raises(InputError, match="no frame"):
        next(video(seconds=0))
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot make"):
        write_images(file / "below", count=1)
