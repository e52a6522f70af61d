"""The stage: frame graphs in a bundle, checked, all or none, once."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="frame graphs need: pip install 'clipdeploy[engine]'")
pytest.importorskip("onnxruntime", reason="frame graphs are run once: pip install 'clipdeploy[cpu]'")

import onnx

from clipdeploy.bundle import Bundle
from clipdeploy.errors import BundleNotFoundError, InputError, ParityError
from clipdeploy.frames import FramesRequest, add_frames
from clipdeploy.manifest import MANIFEST, dump
from clipdeploy.spec import BakedSpec, FrameSpec, Tower
from tests.bundles import make_bundle, pixel_spec
from tests.frames.frames import expected, noise, opened

HD, VGA = FrameSpec(1280, 720, "bgr"), FrameSpec(640, 480, "nv12")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "tiny")


def state(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_adds_each_kind_once(bundle: Path) -> None:
    told = []
    asked = FramesRequest(bundle, ("1280x720:bgr", VGA, HD))
    outcome = add_frames(asked, progress=lambda what, done, total: told.append((what, done, total)))
    assert [(one.frame, one.built) for one in outcome.frames] == [(HD, True), (VGA, True)]
    assert told == [("frame graphs", 0, 2), ("frame graphs", 1, 2), ("frame graphs", 2, 2)]
    first = outcome.frames[0]
    assert (first.graph, first.resized, first.crop) == ("frames/1280x720-bgr.onnx", (56, 32), (12, 0, 44, 32))
    assert (first.share, first.size_bytes) == (0, (bundle / first.graph).stat().st_size)

    opened_again = Bundle.open(bundle)
    assert opened_again.frames() == [HD, VGA]
    entry = opened_again.manifest.files[HD.graph_name]
    assert (entry.kind, entry.frame, entry.opset, entry.tower) == ("frame", HD, 19, None)

    before = state(bundle)
    again = add_frames(asked)
    assert [one.built for one in again.frames] == [False, False]
    assert again.frames[0].share is None
    assert state(bundle) == before

    more = add_frames(FramesRequest(bundle, (HD, "320x240")))
    assert [one.built for one in more.frames] == [False, True]
    assert len(Bundle.open(bundle).frames()) == 3


def test_gives_what_the_tower_takes(bundle: Path) -> None:
    add_frames(FramesRequest(bundle, (HD,)))
    graph = Bundle.open(bundle).frame_graph(HD)
    frames = noise(HD, 2)
    pixels = opened(graph, "onnxruntime").run(frames)
    np.testing.assert_array_equal(pixels, expected(frames, HD, pixel_spec()))
    towers = onnx.load(bundle / "visual.onnx")
    assert onnx.load(graph).opset_import[0].version == towers.opset_import[0].version


def test_overwrite_makes_the_same_again(bundle: Path) -> None:
    add_frames(FramesRequest(bundle, (HD,)))
    before = state(bundle)
    (bundle / HD.graph_name).write_bytes(b"broken"[:1] * (bundle / HD.graph_name).stat().st_size)
    outcome = add_frames(FramesRequest(bundle, (HD,), overwrite=True))
    assert outcome.frames[0].built
    assert state(bundle) == before


def test_all_or_none(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that does not make Pillow's pixels keeps all out."""
    from clipdeploy.frames import coefficients

    before, split = state(bundle), coefficients._split

    def off(values: np.ndarray, fine_bits: int) -> tuple[np.ndarray, np.ndarray]:
        coarse, fine = split(values, fine_bits)
        return (coarse * np.float32(0.99), fine) if values.shape[1] > 500 else (coarse, fine)

    monkeypatch.setattr(coefficients, "_split", off)
    with pytest.raises(ParityError, match=r"frames of 4096x2160:rgb .* levels of 255 .* nothing was added"):
        add_frames(FramesRequest(bundle, ("320x240", "4096x2160")))
    assert state(bundle) == before


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ((), "no frames given"),
        (("1920",), "'1920' is no size of a frame"),
        (("640x480:yuv",), "unknown colour order 'yuv'"),
        (("641x480:nv12",), "an nv12 frame has even sides"),
        (("320x240", "4000x10"), "4000x10:rgb are too long and thin"),
    ],
)
def test_frames_that_are_none(bundle: Path, frames: tuple[str, ...], said: str) -> None:
    before = state(bundle)
    with pytest.raises(InputError, match=said):
        add_frames(FramesRequest(bundle, frames))
    assert state(bundle) == before


def test_baked_bundles_are_refused(bundle: Path) -> None:
    manifest = Bundle.open(bundle).manifest
    baked = replace(manifest, baked=BakedSpec(("a dog",), ("{}",), HD, manifest.embedding_space))
    (bundle / MANIFEST).write_text(dump(baked), "utf-8")
    with pytest.raises(InputError, match="is baked") as caught:
        add_frames(FramesRequest(bundle, (HD,)))
    assert caught.value.fix and "--frame" in caught.value.fix


def test_bundles_without_an_image_encoder(bundle: Path) -> None:
    manifest = Bundle.open(bundle).manifest
    files = {name: entry for name, entry in manifest.files.items() if entry.tower is not Tower.IMAGE}
    (bundle / MANIFEST).write_text(dump(replace(manifest, files=files)), "utf-8")
    with pytest.raises(InputError, match="no image encoder"):
        add_frames(FramesRequest(bundle, (HD,)))


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFoundError):
        add_frames(FramesRequest(tmp_path / "nowhere", (HD,)))


def test_moves_with_the_bundle(bundle: Path, tmp_path: Path) -> None:
    add_frames(FramesRequest(bundle, (HD,)))
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    assert Bundle.open(copy).frames() == [HD]
