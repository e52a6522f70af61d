"""A Clip and a Baked as a stream asks them: mixed frames, one run where they fit, and the answers of the Clip."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import clipdeploy
from clipdeploy.errors import ImageError, InputError, TextError
from clipdeploy.runtime.clip import Clip
from clipdeploy.runtime.encoders import Encoders
from clipdeploy.runtime.nv12 import nv12_to_rgb
from clipdeploy.runtime.stream import BakedAnswerer, ClipAnswerer, Frame, Scores, Stream, Thresholds, to_rgb
from clipdeploy.spec import FrameColor, FrameSpec, Precision
from tests.bundles import make_bundle
from tests.stream.fakes import FakeAnswerer, FakeSource

pytest.importorskip("onnxruntime", reason="the engine is onnxruntime: pip install 'clipdeploy[cpu]'")
pytest.importorskip("onnx", reason="tiny graphs are written with onnx: pip install 'clipdeploy[export]'")

RNG = np.random.default_rng(0)
LABELS = ["a dog", "a cat", "a bird"]
SPECS = ("48x40:rgb", "48x40:bgr", "48x40:nv12")


def picture(width: int = 48, height: int = 40) -> NDArray[np.uint8]:
    return np.kron(RNG.integers(0, 256, (height // 8, width // 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)


def frame(pixels: NDArray[np.uint8], color: FrameColor = "rgb") -> Frame:
    return Frame(pixels, color, "cam", 0, time.monotonic(), time.time())


def nv12() -> NDArray[np.uint8]:
    return np.kron(RNG.integers(60, 200, (60 // 4, 48 // 4)), np.ones((4, 4))).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from clipdeploy.frames import FramesRequest, add_frames

    folder = make_bundle(tmp_path_factory.mktemp("bundles") / "tiny")
    add_frames(FramesRequest(folder, SPECS))
    return folder


@pytest.fixture(scope="module")
def clip(folder: Path) -> Iterator[Clip]:
    with clipdeploy.load(folder, backend="onnxruntime", threads=1) as opened:
        yield opened


def logits_of(clip: Clip, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
    answers = clip.classify(list(pictures), LABELS)
    return np.array([[dict(zip(one.labels, one.logits, strict=True))[label] for label in LABELS] for one in answers])


def test_mixed_sizes_and_orders_are_answered_as_the_clip_does(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [picture(64, 56), picture(), picture(80, 40)]
    expected = logits_of(clip, pictures)
    runs: list[int] = []
    real = Encoders.run

    def run(self: Encoders, tower: Any, batch: Any, *given: Any, **named: Any) -> Any:
        runs.append(len(batch))
        return real(self, tower, batch, *given, **named)

    answerer = ClipAnswerer(clip, LABELS, in_graph=False)
    monkeypatch.setattr(Encoders, "run", run)
    frames = [frame(pictures[0]), frame(np.ascontiguousarray(pictures[1][..., ::-1]), "bgr"), frame(pictures[2])]
    scores = answerer.answer(frames)
    assert scores.labels == tuple(LABELS)
    np.testing.assert_allclose(scores.logits, expected, atol=1e-6)
    np.testing.assert_allclose(scores.probabilities.sum(axis=1), 1.0)
    assert runs == [3]
    flipped = [np.ascontiguousarray(one[..., ::-1]) for one in pictures]
    np.testing.assert_allclose(answerer.answer([frame(one, "bgr") for one in flipped]).logits, expected, atol=1e-6)


def test_frames_of_a_graph_go_into_it_and_others_do_not(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []
    real = clip.encode_frames

    def encode_frames(frames: Any, *, color: str, batch_size: int) -> Any:
        asked.append((color, len(frames) if isinstance(frames, list) else 1))
        return real(frames, color=color, batch_size=batch_size)

    monkeypatch.setattr(clip, "encode_frames", encode_frames)
    pictures = [picture(), picture(64, 56), picture(), picture()]
    frames = [frame(one) for one in pictures]
    scores = ClipAnswerer(clip, LABELS).answer(frames)
    assert asked == [("rgb", 3)]
    np.testing.assert_allclose(scores.logits, logits_of(clip, pictures), atol=0.3)  # a level here and there
    for color, pixels in (("bgr", np.ascontiguousarray(pictures[0][..., ::-1])), ("nv12", nv12())):
        one = frame(pixels, color)  # type: ignore[arg-type]
        scores = ClipAnswerer(clip, LABELS, in_graph=True).answer([one])
        expected = logits_of(clip, [np.ascontiguousarray(to_rgb(one))])
        np.testing.assert_allclose(scores.logits, expected, atol=0.3)
    assert asked[1:] == [("bgr", 1), ("nv12", 1)]


def test_in_graph_and_nothing_else(clip: Clip) -> None:
    with pytest.raises(InputError, match="64x56"):
        ClipAnswerer(clip, LABELS, in_graph=True).answer([frame(picture(64, 56))])


def test_labels_are_swapped_and_keep_their_template(clip: Clip) -> None:
    answerer = ClipAnswerer(clip, LABELS, "the {}")
    answerer.swap(["a fish"])
    assert (answerer.labels, answerer.templates) == (("a fish",), ("the {}",))
    assert answerer.answer([frame(picture())]).logits.shape == (1, 1)
    with pytest.raises(TextError):
        answerer.swap(["a fish", "a fish"])
    assert answerer.labels == ("a fish",)
    answerer.swap(["a bird"], "a photo of a {}.")
    assert answerer.templates == ("a photo of a {}.",)


def test_thresholds_of_another_model_are_refused(clip: Clip) -> None:
    thresholds = Thresholds(tuple(LABELS), (1.0, 1.0, 1.0), embedding_space="another")
    with pytest.raises(InputError, match="another embedding space"):
        Stream(clip, FakeSource(), labels=LABELS, thresholds=thresholds)
    with pytest.raises(InputError, match="no threshold for 'a fish'"):
        Stream(clip, FakeSource(), labels=["a fish"], thresholds=Thresholds(tuple(LABELS), (1.0, 1.0, 1.0)))


def test_a_stream_over_a_clip(clip: Clip) -> None:
    pictures = [picture() for _ in range(12)]
    with pytest.raises(InputError, match="no labels of its own"):
        Stream(clip, pictures)
    with Stream(clip, iter(pictures), labels=LABELS, gate=None, smoothing=None) as running:
        results = list(running)
    logits = np.concatenate([one.scores.logits for one in results])
    np.testing.assert_allclose(logits, logits_of(clip, pictures), atol=0.3)
    np.testing.assert_array_equal(results[3].decision.logits, results[3].scores.logits[0])
    assert clip.encode_text("still open").shape == (1, clip.spec.embed_dim)  # it is the caller's


class FakeBaked:
    """A baked bundle of the mean of its frames."""

    labels = ("dark", "bright")
    templates = ("{}",)
    precision = Precision.FP16
    baked = SimpleNamespace(embedding_space="space")
    spec = SimpleNamespace(probability="sigmoid")

    def __init__(self, frame: str | None) -> None:
        self.frame = None if frame is None else FrameSpec.parse(frame)

    def logits(self, frames: Any, *, color: str) -> NDArray[np.float32]:
        if self.frame is not None and color != self.frame.color:
            raise InputError(f"takes {self.frame}, got {color}")
        many = frames if isinstance(frames, list) else [frames]
        means = np.array([float(one.mean()) for one in many], np.float32) / 32 - 4
        return np.stack([-means, means], axis=1)


@pytest.mark.parametrize("wanted", [None, "48x40:rgb"])
def test_a_baked_bundle_is_asked_in_one_run(wanted: str | None) -> None:
    baked: Any = FakeBaked(wanted)
    scores = BakedAnswerer(baked).answer([frame(np.full((40, 48, 3), value, np.uint8)) for value in (0, 255)])
    assert isinstance(scores, Scores)
    np.testing.assert_allclose(scores.logits, [[4.0, -4.0], [-3.96875, 3.96875]])
    np.testing.assert_allclose(scores.probabilities, 1 / (1 + np.exp(-scores.logits)))
    answerer = BakedAnswerer(baked)
    assert (answerer.labels, answerer.templates, answerer.precision) == (("dark", "bright"), ("{}",), "fp16")
    assert answerer.embedding_space == "space"
    with Stream(baked, [[frame(np.zeros((40, 48, 3), np.uint8))]], gate=None) as running:
        assert [one.decision.labels for one in running] == [("dark", "bright")]
    with pytest.raises(InputError, match="cannot be swapped"):
        running.swap(["other"])


def test_a_baked_bundle_names_what_does_not_fit() -> None:
    baked: Any = FakeBaked("48x40:rgb")
    frames = [frame(picture()), frame(picture(), "bgr")]
    with pytest.raises(InputError, match="takes 48x40:rgb, got bgr"):
        BakedAnswerer(baked).answer(frames)
    baked.labels = ()
    with pytest.raises(InputError, match="baked without labels"):
        BakedAnswerer(baked)


def test_frames_to_rgb() -> None:
    pixels = picture()
    assert to_rgb(frame(pixels)) is pixels
    np.testing.assert_array_equal(to_rgb(frame(pixels, "bgr")), pixels[..., ::-1])
    planes = nv12()
    np.testing.assert_array_equal(to_rgb(frame(planes, "nv12")), nv12_to_rgb(planes))
    with pytest.raises(ImageError, match=r"nv12 frame has the shape"):
        to_rgb(frame(pixels, "nv12"))
    with pytest.raises(ImageError, match=r"a frame of rgb has the shape"):
        to_rgb(frame(planes))


def test_fakes_are_answerers() -> None:
    with pytest.raises(InputError, match="has its own labels"):
        Stream(FakeAnswerer(), FakeSource(), labels=["a"])
