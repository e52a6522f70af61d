"""Raw camera frames through their graph and the image encoder: the runtime's own pixels, and who may not serve."""

from __future__ import annotations

import asyncio
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="frame graphs are written with onnx")
pytest.importorskip("onnxruntime", reason="frame graphs are checked with it: pip install 'clipdeploy[cpu]'")
pytest.importorskip("tokenizers", reason="the tiny bundles bring a tokenizer")

import clipdeploy
from clipdeploy.bundle import Bundle, NewFile
from clipdeploy.errors import BackendError, BundleCorruptError, EngineError, ImageError, InputError
from clipdeploy.frames import FramesRequest, add_frames
from clipdeploy.frames.graph import frame_graph
from clipdeploy.runtime import framed
from clipdeploy.runtime.selftest import frames as frames_module
from clipdeploy.runtime.selftest.frames import expected_pixels, pixel_drift, synthetic_frames
from clipdeploy.runtime.selftest.golden_frames import answers_name, golden_frames, read_answers
from clipdeploy.runtime.session import Session
from clipdeploy.spec import FrameSpec, Precision, Tower
from tests.bundles import EMBED_DIM, image_weights, make_bundle, pixel_spec, write_image_graph
from tests.fake_gpu import install, put_engine
from tests.runtime.fake_backends import golden_bundle
from tests.runtime.fake_session import FakeArray

BGR, RGB, NV12 = FrameSpec(320, 240, "bgr"), FrameSpec(90, 160, "rgb"), FrameSpec(96, 64, "nv12")
ALL = (BGR, RGB, NV12)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = golden_bundle(tmp_path_factory.mktemp("framed") / "tiny").folder
    add_frames(FramesRequest(folder, ALL))
    return folder


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Bundle:
    return Bundle.open(shutil.copytree(made, tmp_path / "bundle"))


@pytest.fixture(autouse=True)
def nothing_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPDEPLOY_CACHE", str(tmp_path / "cache"))


def replace_graph(bundle: Bundle, frame: FrameSpec, like: FrameSpec, **changes: Any) -> None:
    """Put the frame graph of another preprocessing, or of other frames, in place of one."""
    path = bundle.folder / "other.onnx"
    spec, output = pixel_spec(**changes), bundle.model.image.input
    path.write_bytes(frame_graph(like, spec, output, opset=18, ir_version=9).SerializeToString())
    bundle.add_all([NewFile(frame.graph_name, path, "frame", "tests", frame=frame)])
    path.unlink()


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("frame", ALL, ids=str)
def test_as_the_pictures_themselves(made: Path, backend: str, frame: FrameSpec) -> None:
    pytest.importorskip(backend)
    frames = synthetic_frames(frame, 3)
    with clipdeploy.load(made, backend=backend) as clip:
        assert set(clip.frames) == set(ALL)
        pixels = clip.frame_pixels(frames, color=frame.color)
        expected = expected_pixels(frames, frame, clip.spec.pixels)
        assert pixels.dtype == np.float32
        assert pixel_drift(pixels, expected, clip.spec.pixels).passed
        embeds = clip.encode_frames(frames, color=frame.color)
        assert embeds.shape == (3, EMBED_DIM)
        np.testing.assert_allclose(embeds, clip.encode_pixels(expected), rtol=0, atol=1e-3)
        np.testing.assert_allclose(embeds, clip.encode_pixels(pixels), rtol=0, atol=1e-6)
        if frame.color != "nv12":
            np.testing.assert_allclose(embeds, clip.encode_image(frames, color=frame.color), rtol=0, atol=1e-3)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_the_frame_graph_stays_in_float32(made: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision) -> None:
    asked = []
    opens = framed.open_session

    def noted(graph: Path, **options: Any) -> Session:
        asked.append((graph.name, options["precision"], options["threads"]))
        return opens(graph, **options)

    monkeypatch.setattr(framed, "open_session", noted)
    with clipdeploy.load(made, precision=precision, backend="onnxruntime", threads=1) as clip:
        clip.encode_frames(synthetic_frames(BGR), color="bgr")
    assert asked == [("320x240-bgr.onnx", Precision.FP32, 1)]


def test_however_they_lie(made: Path) -> None:
    frames = synthetic_frames(RGB, 5)
    wide = np.zeros((5, 160, 180, 3), np.uint8)
    wide[:, :, ::2] = frames
    with clipdeploy.load(made, backend="onnxruntime") as clip:
        whole = clip.encode_frames(frames)
        for other in (np.asfortranarray(frames), wide[:, :, ::2], list(frames), tuple(frames)):
            np.testing.assert_array_equal(clip.encode_frames(other), whole)
        np.testing.assert_array_equal(clip.encode_frames(frames[::-1])[::-1], whole)
        mirrored = clip.encode_frames(frames[:, :, ::-1])
        np.testing.assert_array_equal(mirrored, clip.encode_frames(frames[:, :, ::-1].copy()))
        for size in (1, 2, 32):
            np.testing.assert_allclose(clip.encode_frames(frames, batch_size=size), whole, rtol=0, atol=1e-6)
        assert clip.encode_frames(frames[0]).shape == (1, EMBED_DIM)
        np.testing.assert_allclose(clip.encode_frames([frames[0]])[0], whole[0], rtol=0, atol=1e-6)
        assert clip.encode_frames([]).shape == clip.encode_frames(frames[:0]).shape == (0, EMBED_DIM)
        np.testing.assert_array_equal(frames, synthetic_frames(RGB, 5))  # nobody wrote to them


def test_many_pixels_at_once_go_through_in_parts(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = synthetic_frames(RGB, 7)
    with clipdeploy.load(made, backend="onnxruntime") as clip:
        whole = clip.encode_frames(frames)
    monkeypatch.setattr(framed, "_AT_ONCE_BYTES", 2 * frames[0].size)
    with clipdeploy.load(made, backend="onnxruntime") as clip:
        np.testing.assert_allclose(clip.encode_frames(frames), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("frames", "color", "told"),
    [
        (np.zeros((240, 320, 3), np.float32), "bgr", "values 0..255 as uint8"),
        (np.zeros((240, 320, 3), np.uint16), "bgr", "values 0..255 as uint8"),
        (np.zeros((240, 320), np.uint8), "bgr", 'color="nv12" takes'),
        (np.zeros((240, 320, 4), np.uint8), "bgr", r"frame\[..., :3\]"),
        (np.zeros((3, 240, 320), np.uint8), "bgr", "channels come last"),
        (np.zeros((0, 320, 3), np.uint8), "bgr", "was the camera read"),
        (np.zeros((1, 96, 96, 3), np.uint8), "nv12", r"pass \(H \* 3 / 2, W\)"),
        (np.zeros((97, 96), np.uint8), "nv12", "without padding"),
        ("frame.jpg", "bgr", "go to encode_image"),
        ([np.zeros((240, 320, 3), np.uint8), np.zeros((24, 32, 3), np.uint8)], "bgr", "encode them apart"),
        (["frame.jpg"], "bgr", "frame 0 is no array"),
    ],
)
def test_what_is_no_frame(made: Path, frames: Any, color: str, told: str) -> None:
    with clipdeploy.load(made, backend="onnxruntime") as clip, pytest.raises(ImageError, match=told):
        clip.encode_frames(frames, color=color)


def test_frames_that_no_graph_takes(made: Path) -> None:
    with clipdeploy.load(made, backend="onnxruntime") as clip:
        with pytest.raises(InputError, match="no graph for frames of 64x48:bgr; it holds: 320x240:bgr, ") as caught:
            clip.encode_frames(np.zeros((48, 64, 3), np.uint8), color="bgr")
        assert f"clipdeploy frames {made} --frame 64x48:bgr" in (caught.value.fix or "")
        with pytest.raises(InputError, match="frames of 320x240:rgb") as caught:
            clip.encode_frames(np.zeros((240, 320, 3), np.uint8))
        assert 'pass color="bgr"' in (caught.value.fix or "")
        with pytest.raises(InputError, match="unknown colour order 'grb'"):
            clip.encode_frames(np.zeros((240, 320, 3), np.uint8), color="grb")
        with pytest.raises(InputError, match="batch_size"):
            clip.encode_frames(np.zeros((240, 320, 3), np.uint8), color="bgr", batch_size=0)
        with pytest.raises(InputError, match="takes arrays in the memory of the host"):
            clip.encode_frames(FakeArray(np.zeros((1, 240, 320, 3), np.uint8)), color="bgr")


def test_opened_once_and_closed_with_the_clip(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Session] = []
    closed: list[Session] = []
    opens = framed.open_front

    def noted(*given: Any, **options: Any) -> Session:
        session = opens(*given, **options)
        opened.append(session)
        close = session.close
        monkeypatch.setattr(session, "close", lambda: (closed.append(session), close()))
        return session

    monkeypatch.setattr(framed, "open_front", noted)
    frames = synthetic_frames(RGB, 2)
    with clipdeploy.load(made, backend="onnxruntime") as clip:
        assert not opened  # at first use
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: clip.encode_frames(frames), range(24)))
        assert len(opened) == 1
        for answer in answers:
            np.testing.assert_array_equal(answer, answers[0])
    assert closed == opened
    with pytest.raises(BackendError, match="is closed"):
        clip.encode_frames(frames)


def test_labels_and_asyncio(made: Path) -> None:
    frames, labels = synthetic_frames(BGR, 2), ["a dog", "a cat"]
    with clipdeploy.load(made, backend="onnxruntime") as clip:
        embeds = clip.encode_frames(frames, color="bgr")
        classifier = clip.classifier(labels)
        answers = classifier.classify_frames(frames, color="bgr")
        assert [a.label for a in answers] == [a.label for a in classifier.classify_embeddings(embeds)]

        async def both() -> None:
            np.testing.assert_array_equal(await clip.aio.encode_frames(frames, color="bgr"), embeds)
            swift = await clip.aio.classifier(labels)
            assert await swift.classify_frames(frames, color="bgr") == answers

        asyncio.run(both())


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_graph_that_drifts_does_not_serve(bundle: Bundle, backend: str) -> None:
    pytest.importorskip(backend)
    replace_graph(bundle, RGB, RGB, interpolation="bilinear")
    frames = synthetic_frames(RGB)
    with clipdeploy.load(bundle, backend=backend) as clip:
        with pytest.raises(BackendError, match=r"frame graph for 90x160:rgb on .* levels of 255 at most") as caught:
            clip.encode_frames(frames)
        assert f"clipdeploy verify {bundle.folder} --backend {backend}" in (caught.value.fix or "")
        clip.encode_frames(synthetic_frames(BGR), color="bgr")  # another one does
    with clipdeploy.load(bundle, backend=backend, self_test=False) as clip:
        assert clip.encode_frames(frames).shape == (2, EMBED_DIM)


def test_a_graph_of_other_frames_is_told(bundle: Bundle) -> None:
    replace_graph(bundle, RGB, FrameSpec(160, 90))
    with (
        clipdeploy.load(bundle, backend="onnxruntime") as clip,
        pytest.raises(BundleCorruptError, match=r"frames/90x160-rgb.onnx has .*90, 160"),
    ):
        clip.encode_frames(synthetic_frames(RGB))


def test_tested_once_for_each_circumstance(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(frames_module, "synthetic_frames", lambda f: drawn.append(f) or synthetic_frames(f))
    for _ in range(2):
        with clipdeploy.load(bundle, backend="onnxruntime") as clip:
            clip.encode_frames(synthetic_frames(RGB))
    assert drawn == [RGB]
    replace_graph(bundle, RGB, RGB)
    with clipdeploy.load(bundle, backend="onnxruntime") as clip:
        clip.encode_frames(synthetic_frames(RGB))
    assert drawn == [RGB, RGB]


def test_what_counts_as_drift() -> None:
    spec = pixel_spec()
    expected = np.zeros((1, 3, 32, 32), np.float32)
    level = 1 / (255 * spec.std[1])
    ours = expected.copy()
    ours[0, 1, 4, 5] = level * 1.0001
    drift = pixel_drift(ours, expected, spec)
    assert (drift.levels, drift.channel, drift.row, drift.column, drift.passed) == (1.0, 1, 4, 5, True)
    ours[0, 1, 4, 5] = 2 * level
    assert not pixel_drift(ours, expected, spec).passed
    ours = np.where(np.arange(32 * 32).reshape(32, 32) < 11, np.float32(level), expected)  # 1.07 % of the values
    assert not pixel_drift(ours, expected, spec).passed
    ours = expected.copy()
    ours[0, 0, 0, 0] = np.nan
    drift = pixel_drift(ours, expected, spec)
    assert drift.levels == np.inf and not drift.passed


@pytest.mark.parametrize("frame", [*ALL, FrameSpec(20, 20), FrameSpec(1000, 40, "bgr")], ids=str)
def test_golden_pictures_as_frames(frame: FrameSpec) -> None:
    """What the crop shows of such a frame is the picture, as far as its size allows."""
    spec = pixel_spec()
    pictures = synthetic_frames(FrameSpec(32, 32), 2)
    smooth = (pictures // 128 * 60 + np.linspace(40, 160, 32)[None, :, None, None]).astype(np.uint8)
    frames = golden_frames(smooth, frame, spec)
    assert frames.shape == (2, *frame.shape)
    seen, given = expected_pixels(frames, frame, spec), expected_pixels(smooth, FrameSpec(32, 32), spec)
    likeness = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(seen, given, strict=True)]
    assert min(likeness) > (0.7 if min(frame.width, frame.height) < 32 else 0.85)
    assert abs(np.corrcoef(seen[0].ravel(), given[1].ravel())[0, 1]) < min(likeness)


class Gpu:
    """A bundle with engines for frames on a GPU of the imagination."""

    def __init__(self, bundle: Bundle, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("onnx_ir", reason="joining needs the extra: pip install 'clipdeploy[engine]'")
        self.bundle, self.work = bundle, work
        install(monkeypatch)

    def put(self, frame: FrameSpec, back: Path | None = None) -> None:
        from clipdeploy.engine.frames import join_frame
        from clipdeploy.runtime.engines import graph_sha256

        joined = self.work / "joined.onnx"
        join_frame(self.bundle.frame_graph(frame), back or self.bundle.path("visual.onnx"), joined)
        sha256 = graph_sha256(self.bundle, "visual.onnx", frame)
        put_engine(self.bundle, Tower.IMAGE, self.work, graph=joined, frame=frame, graph_sha256=sha256)


@pytest.fixture
def gpu(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gpu:
    return Gpu(bundle, tmp_path, monkeypatch)


@pytest.mark.parametrize("frame", ALL, ids=str)
def test_an_engine_for_frames(gpu: Gpu, frame: FrameSpec) -> None:
    gpu.put(frame)
    frames = synthetic_frames(frame, 9)
    with clipdeploy.load(gpu.bundle, backend="onnxruntime") as plain:
        expected = plain.encode_frames(frames, color=frame.color)
    with clipdeploy.load(gpu.bundle, backend="tensorrt") as clip:
        assert clip.frames == (frame,)
        assert f"frames of {frame}" in clip.backend.reason
        np.testing.assert_allclose(clip.encode_frames(frames, color=frame.color), expected, rtol=0, atol=1e-5)
        with pytest.raises(BackendError, match="gives no pixels"):
            clip.frame_pixels(frames, color=frame.color)
        with pytest.raises(EngineError, match="holds no tensorrt engine of the image tower in fp32"):
            clip.encode_pixels(np.zeros((1, 3, 32, 32), np.float32))


def test_frames_that_no_engine_takes(gpu: Gpu) -> None:
    gpu.put(BGR)
    with clipdeploy.load(gpu.bundle, backend="tensorrt") as clip:
        with pytest.raises(EngineError, match="no tensorrt engine of the image tower for frames of 90x160:rgb") as told:
            clip.encode_frames(synthetic_frames(RGB))
        assert f"build-engine {gpu.bundle.folder} --tower image --precision fp32 --frame 90x160:rgb" in str(told.value)
        assert "clipdeploy frames" not in str(told.value)
        with pytest.raises(EngineError) as told:
            clip.encode_frames(np.zeros((48, 64, 3), np.uint8))
        assert f"clipdeploy frames {gpu.bundle.folder} --frame 64x48:rgb && clipdeploy build-engine" in str(told.value)


def test_an_engine_of_another_frame_graph_is_not_taken(gpu: Gpu) -> None:
    gpu.put(BGR)
    replace_graph(gpu.bundle, BGR, BGR, interpolation="bilinear")
    with pytest.raises(EngineError):
        clipdeploy.load(gpu.bundle, backend="tensorrt")


def test_an_engine_that_answers_wrongly_does_not_serve(gpu: Gpu) -> None:
    wrong = image_weights()
    wrong[::2] *= 0.5
    gpu.put(BGR, write_image_graph(gpu.work / "wrong.onnx", wrong))
    frames = synthetic_frames(BGR)
    with clipdeploy.load(gpu.bundle, backend="tensorrt") as clip:
        with pytest.raises(
            BackendError, match="engine of the image encoder for frames of 320x240:bgr in fp32 on"
        ) as told:
            clip.encode_frames(frames, color="bgr")
        assert "drifts from the checkpoint on" in str(told.value)
    with clipdeploy.load(gpu.bundle, backend="tensorrt", self_test=False) as clip:
        assert clip.encode_frames(frames, color="bgr").shape == (2, EMBED_DIM)


def test_recorded_answers_are_of_these_frames(bundle: Bundle) -> None:
    frames = golden_frames(synthetic_frames(FrameSpec(32, 32), 2), BGR, bundle.model.pixels)
    with pytest.raises(BundleCorruptError, match=f"{answers_name(BGR)} is of other frames"):
        read_answers(bundle, BGR, frames)


def test_a_bundle_without_golden_samples(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "plain")
    add_frames(FramesRequest(folder, (RGB,)))
    assert answers_name(RGB) not in Bundle.open(folder).manifest.files
    with clipdeploy.load(folder, backend="onnxruntime") as clip:
        assert clip.encode_frames(synthetic_frames(RGB)).shape == (2, EMBED_DIM)
