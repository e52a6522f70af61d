"""`load_baked` on every backend: what it takes, what it refuses, and engines that have two outputs."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")
pytest.importorskip("tokenizers", reason="the tiny bundles bring a tokenizer")

import clipdeploy
from clipdeploy.baking import BakeRequest, bake_bundle
from clipdeploy.bundle import Bundle
from clipdeploy.errors import BackendError, ImageError, InputError
from clipdeploy.spec import FrameSpec, Precision, Tower
from tests.fake_gpu import install, put_engine
from tests.runtime.fake_backends import golden_bundle

LABELS = ("a cat", "a dog", "a car")
FRAME = FrameSpec(96, 64, "bgr")


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("baked")
    source = golden_bundle(folder / "tiny").folder
    bake_bundle(BakeRequest(source, folder / "pictures", LABELS))
    bake_bundle(BakeRequest(source, folder / "door", LABELS, frame=FRAME))
    return folder / "door"


def frames(count: int = 5) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, *FRAME.shape), dtype=np.uint8)


def test_one_frame_many_frames_and_none(door: Path) -> None:
    with clipdeploy.load_baked(door, usual_batch=2) as baked:
        assert baked.labels == LABELS and baked.frame == FRAME and baked.precision is Precision.FP32
        assert "96x64:bgr -> 3 labels" in repr(baked)
        given = frames()
        every = baked.logits(given)
        assert (every.shape, every.dtype) == ((5, 3), np.float32)
        np.testing.assert_allclose(baked.logits(given[0]), every[:1], atol=1e-4)
        np.testing.assert_allclose(baked.logits(list(given), batch_size=2), every, atol=1e-4)
        np.testing.assert_allclose(baked.logits(given[:, ::-1, ::-1][:, ::-1, ::-1]), every, atol=1e-4)
        assert baked.logits([]).shape == (0, 3)
        assert baked.classify([]) == []
        assert isinstance(baked.classify([given[0]]), list)
    with pytest.raises(BackendError, match="is closed"):
        baked.logits(given)


def test_pictures(door: Path) -> None:
    with clipdeploy.load_baked(door.parent / "pictures") as baked:
        pictures = [np.zeros((20, 30, 3), np.uint8), np.full((50, 40, 3), 200, np.uint8)]
        assert baked.frame is None and baked.logits(pictures).shape == (2, 3)
        answer = baked.classify(pictures[0], color="bgr")
        assert isinstance(answer, clipdeploy.Classification) and set(answer.labels) == set(LABELS)


def test_what_it_refuses(door: Path) -> None:
    with clipdeploy.load_baked(door) as baked:
        with pytest.raises(InputError, match=r"takes frames of 96x64:bgr, got 64x96:bgr"):
            baked.logits(np.zeros((96, 64, 3), np.uint8))
        with pytest.raises(InputError, match=r"takes frames of 96x64:bgr, got 96x64:rgb"):
            baked.logits(frames(), color="rgb")
        with pytest.raises(ImageError, match="this bundle takes frames of 96x64:bgr"):
            baked.logits(frames().astype(np.float32))
        with pytest.raises(ImageError, match="this bundle takes frames of 96x64:bgr"):
            baked.logits("photo.jpg")
        with pytest.raises(InputError, match=r"top must be in 1\.\.3, got 4"):
            baked.classify(frames(), top=4)
        with pytest.raises(InputError, match="has labels in its graph, which gives no embeddings"):
            baked.embed(frames())
    with pytest.raises(InputError, match="holds no int8 graph"):
        clipdeploy.load_baked(door, precision="int8", backend="onnxruntime")


def test_threads_share_it(door: Path) -> None:
    with clipdeploy.load_baked(door) as baked:
        given, answers = frames(8), dict[int, np.ndarray]()
        expected = baked.logits(given)

        def run(index: int) -> None:
            answers[index] = baked.logits(given[index])

        threads = [threading.Thread(target=run, args=(index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    np.testing.assert_allclose(np.concatenate([answers[index] for index in range(8)]), expected, atol=1e-4)


def test_an_engine_with_two_outputs(door: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(door)
    cuda, _ = install(monkeypatch)
    put_engine(bundle, Tower.IMAGE, tmp_path, bands=[[1, 2, 4]])
    try:
        expected = clipdeploy.load_baked(door, backend="onnxruntime").logits(frames())
        with clipdeploy.load_baked(door, backend="tensorrt") as baked:
            for _ in range(5):  # often enough to be recorded
                np.testing.assert_allclose(baked.logits(frames()), expected, atol=1e-4)
            assert cuda.launches > 0
        assert cuda.left == (0, 0, 0, 0, 0)
    finally:
        bundle.refresh()
        bundle.add_all([], without=[name for name in bundle.manifest.files if name.startswith("engines/")])


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
def test_openvino_rounds_the_encoder_alone(door: Path, precision: Precision) -> None:
    pytest.importorskip("openvino")
    from clipdeploy.runtime.openvino import OpenVinoSession, core
    from clipdeploy.runtime.ov.parts import cut

    if precision is Precision.BF16 and "BF16" not in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor does not compute in bf16")
    parts = cut(core().read_model(str(door / "visual.onnx")), "logits")
    assert [part.exact for part in parts] == [True, False, True]
    assert [part.model.input(0).get_any_name() for part in parts] == ["frame", "pixel_values", "image_embeds"]
    expected = OpenVinoSession(door / "visual.onnx").run(frames())
    session = OpenVinoSession(door / "visual.onnx", precision=precision, usual_batch=2)
    atol = 1e-3 if precision is Precision.FP32 else 1.0  # of logits up to 100: a hundredth of a cosine
    for rows in (1, 2, 5):
        np.testing.assert_allclose(session.run(frames()[:rows]), expected[:rows], atol=atol)
    session.close()
    with pytest.raises(BackendError, match="is closed"):
        session.run(frames())


def test_openvino_leaves_other_graphs_whole(door: Path) -> None:
    pytest.importorskip("openvino")
    from clipdeploy.runtime.openvino import core
    from clipdeploy.runtime.ov.parts import cut

    (part,) = cut(core().read_model(str(door.parent / "tiny" / "visual.onnx")), "image_embeds")
    assert not part.exact
    assert [value.get_any_name() for value in part.model.inputs] == ["pixel_values"]
