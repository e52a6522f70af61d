"""From file to label, stage by stage; copies on a GPU of the imagination."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipdeploy.benchmark import worker
from clipdeploy.benchmark.drawn import SIZE_PX, draw, pictures_for, repeated
from clipdeploy.benchmark.records import STAGES
from clipdeploy.benchmark.stages import OnGpu, each, file_to_label, some_labels, time_stages
from clipdeploy.errors import ImageError


def once(call: Callable[[], object], seconds: float) -> list[float]:
    call()
    return [seconds]


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths:
        Image.fromarray(np.random.default_rng(1).integers(0, 256, (50, 60, 3), dtype=np.uint8)).save(path)
    return paths


def test_on_the_cpu_there_are_no_copies(tiny: Path, pictures: list[Path]) -> None:
    import clipdeploy

    with clipdeploy.load(tiny, backend="onnxruntime") as clip:
        taken = time_stages(clip, pictures, once, 5.0)
        assert list(taken) == [stage for stage in STAGES if not stage.startswith("copy")]
        assert all(calls == [1.0] for calls in taken.values())
        label = file_to_label(clip)(pictures[0])
        assert label == some_labels(clip).answers(clip.encode_image(pictures[0]), None)


def test_on_a_gpu_copies_are_apart(tiny: Path, pictures: list[Path], tmp_path: Path, monkeypatch: Any) -> None:
    import shutil

    import clipdeploy
    from clipdeploy.bundle import Bundle
    from clipdeploy.runtime.trt.cuda import Cuda
    from clipdeploy.runtime.trt.product import import_cuda
    from clipdeploy.spec import Tower
    from tests.fake_gpu import install, put_engine

    cuda, _ = install(monkeypatch)
    bundle = Bundle.open(shutil.copytree(tiny, tmp_path / "tiny"))
    put_engine(bundle, Tower.IMAGE, tmp_path)
    with clipdeploy.load(bundle.folder, backend="tensorrt") as clip:
        taken = time_stages(clip, pictures, once, 0.2)
        assert set(taken) == set(STAGES)
        assert all(min(calls) >= 0 for calls in taken.values())
        assert len(taken["copy in"]) == len(taken["encoder"]) == len(taken["copy out"]) > 0
        height, width = clip.spec.pixels.height, clip.spec.pixels.width
        pixels = np.random.default_rng(0).standard_normal((1, 3, height, width)).astype(np.float32)
        there = OnGpu(Cuda(import_cuda("tensorrt")), pixels)
        np.testing.assert_array_equal(clip.encode_pixels(there).numpy(), clip.encode_pixels(pixels))
        there.close()
    assert cuda.used == 0


def test_items_take_turns() -> None:
    met: list[int] = []
    call = each(met.append, [1, 2])
    for _ in range(3):
        call()
    assert met == [1, 2, 1]


def test_pictures_are_drawn_where_none_are_given(tmp_path: Path) -> None:
    pictures, what = pictures_for((), tmp_path)
    assert what == "4 drawn JPEGs, 1920x1080"
    with Image.open(pictures[0]) as picture:
        assert picture.size == SIZE_PX
        assert picture.format == "JPEG"
    again = draw(tmp_path / "again.jpg", 0)
    assert again.read_bytes() == pictures[0].read_bytes()


def test_given_pictures_are_looked_at_first(tmp_path: Path, pictures: list[Path]) -> None:
    taken, what = pictures_for(pictures, tmp_path)
    assert taken == [picture.resolve() for picture in pictures]
    assert what == "3 given files, 60x50"
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        pictures_for([*pictures, broken], tmp_path)
    assert repeated(taken, 5) == [str(taken[index]) for index in (0, 1, 2, 0, 1)]
    assert repeated(taken, 1) == [str(picture) for picture in taken]


def test_a_worker_answers_in_this_process_as_in_its_own(tiny: Path, pictures: list[Path]) -> None:
    asked = worker.Worker(0.0)
    how = {"bundle": str(tiny), "backend": "onnxruntime", "precision": "fp32", "target": None, "threads": 1}
    told = asked.open({**how, "usual_batch": 1}, images=True, texts=True)
    assert told["loaded"] > 0
    assert "by name" in told["reason"]
    assert asked.images(3, 0.0)[0] > 0
    assert asked.texts(2, 0.0)[0] > 0
    assert asked.folder([str(picture) for picture in pictures], 2) > 0
    clip = asked._clip
    asked.open({**how, "usual_batch": 8}, images=True, texts=False)
    assert asked._clip is clip, "ONNX Runtime on the CPU prepares for no batch"
    asked._close()
