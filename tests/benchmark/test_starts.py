"""Cold starts: the arithmetic, and real processes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipdeploy.benchmark.starts import _start, cold_starts
from clipdeploy.benchmark.turns import Count
from clipdeploy.benchmark.worker import COMMAND


def run(shift: float, **changes: float | None) -> dict[str, float | None]:
    """A process started at 100 s that takes 0.1 s to begin, and then `shift` for each step."""
    marks = {"imported": 1, "loaded": 2, "first_image": 3, "first_text": 4}
    taken: dict[str, float | None] = {name: 100.1 + steps * shift for name, steps in marks.items()}
    return {"started": 100.0, "begun": 100.1, **taken, "second_image_ms": 10 * shift, **changes}


def test_the_median_of_all_but_the_very_first() -> None:
    start = _start([run(9.0), run(1.0), run(3.0), run(2.0)])
    assert start.process_s == pytest.approx(0.1)
    steps = (start.import_s, start.load_s, start.first_image_s, start.first_text_s)
    assert steps == pytest.approx((2.0, 2.0, 2.0, 2.0))
    assert start.whole_s == pytest.approx(8.1)
    assert start.second_image_ms == pytest.approx(20.0)
    assert start.first_ever_s == pytest.approx(36.1)


def test_without_an_encoder_its_step_is_none() -> None:
    start = _start([run(1.0, first_text=None)] * 2)
    assert start.first_text_s is None
    assert start.whole_s == pytest.approx(3.1)
    start = _start([run(1.0, first_image=None, second_image_ms=None)] * 2)
    assert start.first_image_s is None
    assert start.second_image_ms is None
    assert start.first_text_s == pytest.approx(2.0)


def test_real_processes(tiny: Path, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(picture)
    how = {
        "bundle": str(tiny),
        "backend": "onnxruntime",
        "precision": "fp32",
        "target": None,
        "threads": None,
        "usual_batch": 1,
    }
    good = {"how": how, "picture": str(picture), "images": True, "texts": True}
    asked = {"good": good, "bad": {**good, "how": {**how, "precision": "int8"}}}
    count = Count(lambda *_: None, 4)
    starts, failed = cold_starts(asked, 1, command=COMMAND, environment={}, count=count)
    start = starts["good"]
    steps = (start.process_s, start.import_s, start.load_s, start.first_image_s, start.first_text_s)
    assert all(step is not None and step > 0 for step in steps)
    assert sum(step or 0 for step in steps) == pytest.approx(start.whole_s)
    assert start.first_ever_s is not None
    assert list(failed) == ["bad"]
    assert "int8" in str(failed["bad"])
    assert count.done == 4


def test_a_process_that_dies_at_once_is_told_of(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "import sys; sys.exit('cannot begin')")
    starts, failed = cold_starts({"a": {}}, 2, command=command, environment={}, count=Count(lambda *_: None, 3))
    assert not starts
    assert "exit code 1 at cold_start: cannot begin" in str(failed["a"])
