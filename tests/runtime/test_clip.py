"""The runtime's face: load, encode, classify, compare."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import clipdeploy
from clipdeploy.errors import BackendError, BundleCorruptError, BundleNotFoundError, ImageError, InputError, TextError
from clipdeploy.runtime import chosen as chosen_module
from clipdeploy.runtime.clip import Clip
from clipdeploy.runtime.encoders import Encoders
from clipdeploy.spec import Precision, Tower
from tests.bundles import EMBED_DIM, image_weights, make_bundle, model_spec, text_weights, write_text_graph
from tests.runtime.pictures import noise

pytest.importorskip("onnxruntime", reason="the engine is onnxruntime: pip install 'clipdeploy[cpu]'")
pytest.importorskip("onnx", reason="tiny graphs are written with onnx: pip install 'clipdeploy[export]'")

PICTURES = [noise(40 + 3 * i, 60 - 2 * i, seed=i) for i in range(7)]
LABELS = ["a dog", "a cat", "a bird"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def clip(folder: Path) -> Iterator[Clip]:
    with clipdeploy.load(folder, backend="onnxruntime") as opened:
        yield opened


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_it_says_what_it_is(clip: Clip, folder: Path) -> None:
    assert clip.spec == clip.bundle.model
    assert clip.precision is Precision.FP32
    assert clip.embedding_space == clip.bundle.manifest.embedding_space
    assert clip.backend.name == "onnxruntime"
    assert "asked for by name" in clip.backend.reason
    assert "tiny-linear" in repr(clip)
    assert clipdeploy.load(clip.bundle).bundle is clip.bundle


def test_auto_says_what_it_chose(folder: Path) -> None:
    for precision in ("fp32", "auto"):
        with clipdeploy.load(folder, precision=precision) as clip:
            assert clip.backend.name in ("onnxruntime", "openvino")
            assert "chosen by auto" in clip.backend.reason
            assert clip.precision in (Precision.FP32, Precision.BF16)
            assert clip.encode_image(PICTURES).shape == (7, EMBED_DIM)


def test_pictures_are_embedded_as_the_graph_says(clip: Clip) -> None:
    embeds = clip.encode_image(PICTURES)
    expected = unit(clip.images(PICTURES).reshape(len(PICTURES), -1).astype(np.float64) @ image_weights())
    assert embeds.shape == (7, EMBED_DIM)
    assert embeds.dtype == np.float32
    np.testing.assert_allclose(embeds, expected, rtol=0, atol=1e-5)


def test_texts_are_embedded_as_the_graph_says(clip: Clip) -> None:
    texts = ["a dog", "", "zebra " * 50]
    table = text_weights(clip.spec.tokens.vocab_size).astype(np.float64)
    expected = unit(table[clip.tokenizer(texts)].mean(axis=1))
    np.testing.assert_allclose(clip.encode_text(texts), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(clip.encode_tokens(clip.tokenizer(texts)), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(clip.encode_tokens(clip.tokenizer(texts).astype(np.int32)), expected, rtol=0, atol=1e-6)


def test_one_is_many_of_one(clip: Clip, tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    Image.fromarray(PICTURES[0]).save(path)
    one = clip.encode_image([PICTURES[0]])
    assert one.shape == (1, EMBED_DIM)
    for kind in (PICTURES[0], path, str(path), path.read_bytes(), Image.fromarray(PICTURES[0])):
        assert np.array_equal(clip.encode_image(kind), one)
    assert np.array_equal(clip.encode_image(PICTURES[0][..., ::-1], color="bgr"), one)
    assert np.array_equal(clip.encode_text("a dog"), clip.encode_text(["a dog"]))


@pytest.mark.parametrize("size", [1, 3, 7, 32])
def test_batches_keep_the_order(clip: Clip, size: int) -> None:
    expected = np.concatenate([clip.encode_image(one) for one in PICTURES])
    np.testing.assert_allclose(clip.encode_image(PICTURES, batch_size=size), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(clip.encode_image(iter(PICTURES), batch_size=size), expected, rtol=0, atol=1e-6)
    pixels = clip.images(PICTURES)
    np.testing.assert_allclose(clip.encode_pixels(pixels, batch_size=size), expected, rtol=0, atol=1e-6)
    texts = [f"a photo of {i}" for i in range(9)]
    np.testing.assert_allclose(clip.encode_text(texts, batch_size=size), clip.encode_text(texts), rtol=0, atol=1e-6)


def test_frames_in_one_array(clip: Clip) -> None:
    frames = np.stack([noise(50, 40, seed=i) for i in range(3)])
    assert np.array_equal(clip.encode_image(frames), clip.encode_image(list(frames)))
    assert len(clip.classify(frames, LABELS)) == 3


def test_a_generator_is_read_as_the_encoder_comes_to_it(folder: Path) -> None:
    """A batch that is full is run before more than the next one is taken."""
    clip = clipdeploy.load(folder, backend="onnxruntime", threads=1)
    taken: list[int] = []

    def pictures() -> Iterator[np.ndarray]:
        for index in range(100):
            taken.append(index)
            yield PICTURES[index % 7]

    seen = [len(taken) for _ in clip.encode_many(pictures(), batch_size=5)]
    assert len(seen) == 100
    assert max(count - index for index, count in enumerate(seen)) <= 10
    assert clip.encode_image(pictures(), batch_size=5).shape == (100, EMBED_DIM)


def test_nothing_in_gives_nothing_out(clip: Clip) -> None:
    empty = [
        clip.encode_image([]),
        clip.encode_image(iter(())),
        clip.encode_pixels(np.zeros((0, 3, 32, 32), np.float32)),
        clip.encode_text([]),
        clip.encode_tokens(np.zeros((0, 77), np.int64)),
    ]
    for embeds in empty:
        assert embeds.shape == (0, EMBED_DIM)
        assert embeds.dtype == np.float32
    assert clip.classify([], LABELS) == []
    assert clip.similarity([], LABELS).shape == (0, 3)


def spy_on_sessions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that grows by the name of each graph that is loaded into the engine."""
    opened: list[str] = []
    real = chosen_module.open_session

    def open_session(graph: Path, **options: Any) -> Any:
        opened.append(graph.name)
        return real(graph, **options)

    monkeypatch.setattr(chosen_module, "open_session", open_session)
    return opened


def test_towers_are_opened_when_they_are_needed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = spy_on_sessions(monkeypatch)
    clip = clipdeploy.load(folder, backend="onnxruntime")
    assert opened == []
    clip.encode_image(PICTURES[0])
    clip.encode_image(PICTURES[1])
    assert opened == ["visual.onnx"]
    clip.encode_text("a dog")
    assert opened == ["visual.onnx", "textual.onnx"]


def test_labels_are_the_mean_of_normalised_texts(clip: Clip) -> None:
    templates = ["a photo of a {}.", "the {}", "a very large and blurry {} in the dark"]
    bank = clip.encode_labels(LABELS, templates)
    texts = [[t.replace("{}", label) for t in templates] for label in LABELS]
    expected = unit(np.stack([clip.encode_text(row).astype(np.float64).mean(axis=0) for row in texts]))
    np.testing.assert_allclose(bank, expected, rtol=0, atol=1e-6)
    assert np.array_equal(clip.encode_labels(LABELS), clip.encode_text([f"a photo of a {x}." for x in LABELS]))
    assert clip.encode_labels(LABELS, "openai").shape == (3, EMBED_DIM)


def test_a_bank_is_made_once_and_is_not_the_callers(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = clip.encode_labels(LABELS)
    kept = bank.copy()
    bank[:] = 0
    calls: list[Any] = []
    monkeypatch.setattr(Encoders, "run", lambda self, *given: calls.append(given))
    assert np.array_equal(clip.encode_labels(LABELS), kept)
    assert np.array_equal(clip.encode_labels(list(LABELS), "default"), kept)
    assert calls == []


def test_classify_one(clip: Clip) -> None:
    answer = clip.classify(PICTURES[0], LABELS)
    logits = 100.0 * (clip.encode_image(PICTURES[0]) @ clip.encode_labels(LABELS).T)[0]
    order = np.argsort(-logits)
    assert answer.labels == tuple(LABELS[i] for i in order)
    np.testing.assert_allclose(answer.logits, logits[order], rtol=0, atol=1e-4)
    exact = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(answer.probabilities, exact[order], rtol=1e-3)
    assert sum(answer.probabilities) == pytest.approx(1.0)
    assert answer.label == answer.labels[0]


def test_classify_many(clip: Clip) -> None:
    answers = clip.classify(PICTURES, LABELS, template="the {}", top=2)
    assert [len(a.labels) for a in answers] == [2] * 7
    for picture, answer in zip(PICTURES, answers, strict=True):
        alone = clip.classify(picture, LABELS, template="the {}", top=2)
        assert alone.labels == answer.labels
        np.testing.assert_allclose(alone.logits, answer.logits, rtol=0, atol=1e-3)


def test_classify_with_a_sigmoid(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "siglip", probability="sigmoid", logit_scale=10.0, logit_bias=-3.0)
    answer = clipdeploy.load(folder).classify(PICTURES[0], LABELS)
    np.testing.assert_allclose(answer.probabilities, 1 / (1 + np.exp(-np.array(answer.logits))), rtol=1e-9)
    clip = clipdeploy.load(folder)
    cosines = clip.similarity(PICTURES[0], [f"a photo of a {x}." for x in answer.labels])[0]
    np.testing.assert_allclose(answer.logits, 10.0 * cosines - 3.0, rtol=0, atol=1e-5)


@pytest.mark.parametrize("top", [0, 4, -1, 1.5, True, "2"])
def test_top_out_of_range(clip: Clip, top: Any) -> None:
    with pytest.raises(InputError, match=r"top must be in 1\.\.3"):
        clip.classify(PICTURES[0], LABELS, top=top)


def test_similarity_of_all_kinds(clip: Clip) -> None:
    expected = clip.encode_image(PICTURES) @ clip.encode_text(LABELS).T
    images, texts = clip.encode_image(PICTURES), clip.encode_text(LABELS)
    for left in (PICTURES, images, images * 3, images.astype(np.float64)):
        for right in (LABELS, texts, texts * 0.5):
            cosines = clip.similarity(left, right)
            assert cosines.dtype == np.float32
            np.testing.assert_allclose(cosines, expected, rtol=0, atol=2e-6)
    assert clip.similarity(PICTURES[0], "a dog").shape == (1, 1)


@pytest.mark.parametrize(
    ("images", "texts", "message"),
    [
        (np.zeros((2, 5), np.float32), LABELS, r"shape \(N, 16\), got float32 \(2, 5\)"),
        (np.zeros((2, 16), np.float32), LABELS, "finite and not zero"),
        (np.full((2, 16), np.nan, np.float32), LABELS, "finite and not zero"),
        (PICTURES[0], np.zeros((2, 16), np.int64), "must be floats"),
    ],
)
def test_embeddings_that_are_none(clip: Clip, images: Any, texts: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        clip.similarity(images, texts)


def test_a_label_that_is_too_long(clip: Clip) -> None:
    clip.classify(PICTURES[0], ["x" * 60])
    with pytest.raises(TextError, match=r"'a photo of a x{66}…' has 212 tokens, the model reads 77"):
        clip.classify(PICTURES[0], ["dog", "x" * 200])
    letters = 77 - clip.tokenizer.count("a photo of a .")
    clip.classify(PICTURES[0], ["x" * letters])
    with pytest.raises(TextError, match="has 78 tokens"):
        clip.classify(PICTURES[0], ["x" * (letters + 1)])


@pytest.mark.parametrize("images", [None, 3, 2.5])
def test_a_thing_that_is_no_picture(clip: Clip, images: Any) -> None:
    with pytest.raises(ImageError, match="expected a picture or several"):
        clip.encode_image(images)


def test_a_broken_picture_is_named(clip: Clip, tmp_path: Path) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        clip.encode_image([PICTURES[0], path])
    with pytest.raises(ImageError, match=r"^picture 5: an array of float32"):
        clip.encode_image([*PICTURES[:5], np.zeros((3, 3), np.float32)], batch_size=2)


@pytest.mark.parametrize("texts", [None, 3, b"a dog", np.zeros((2, 77)), {"a"}])
def test_a_thing_that_is_no_text(clip: Clip, texts: Any) -> None:
    with pytest.raises(TextError, match="expected a text or a list of texts"):
        clip.encode_text(texts)


def test_a_text_that_is_none_among_texts(clip: Clip) -> None:
    with pytest.raises(TextError):
        clip.encode_text(["a dog", 3])  # type: ignore[list-item]


@pytest.mark.parametrize("ids", [np.full((1, 77), 514), np.full((1, 77), -1)])
def test_ids_outside_the_vocabulary(clip: Clip, ids: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"must lie in 0\.\.513"):
        clip.encode_tokens(ids)


@pytest.mark.parametrize("ids", [np.zeros((1, 77), np.float32), [[1] * 77]])
def test_ids_of_another_kind(clip: Clip, ids: Any) -> None:
    with pytest.raises(InputError, match="must be an ndarray of int64 or int32"):
        clip.encode_tokens(ids)


@pytest.mark.parametrize("pixels", [np.zeros((1, 3, 32, 32)), np.zeros((3, 32, 32), np.float32), "photo.jpg"])
def test_pixels_of_another_kind(clip: Clip, pixels: Any) -> None:
    with pytest.raises(InputError, match="pixel_values must"):
        clip.encode_pixels(pixels)


@pytest.mark.parametrize("size", [0, -1, 1.5, True, None])
def test_a_batch_size_that_is_none(clip: Clip, size: Any) -> None:
    with pytest.raises(InputError, match="batch_size must be a positive whole number"):
        clip.encode_image(PICTURES, batch_size=size)


def test_an_engine_that_gives_no_numbers(clip: Clip) -> None:
    with pytest.raises(BackendError, match=r"not finite \(fp32\), rows \[1\]"):
        clip.encode_pixels(np.stack([np.ones((3, 32, 32)), np.full((3, 32, 32), np.inf)]).astype(np.float32))


def test_a_precision_that_is_not_there(folder: Path) -> None:
    with pytest.raises(InputError, match="holds: fp32"):
        clipdeploy.load(folder, precision="int8")
    with pytest.raises(InputError, match="fp32, fp16, bf16, int8, fp8"):
        clipdeploy.load(folder, precision="int9")


def test_a_precision_that_is_there(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "two", precisions=(Precision.FP32, Precision.FP16))
    assert clipdeploy.load(folder, precision="fp16").precision is Precision.FP16


def test_arguments_of_load(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown backend 'openvin'[^\n]*\n.*\"openvino\""):
        clipdeploy.load(folder, backend="openvin")
    with pytest.raises(InputError, match="threads"):
        clipdeploy.load(folder, threads=0)
    with pytest.raises(InputError, match="usual_batch"):
        clipdeploy.load(folder, usual_batch=0)
    with pytest.raises(BundleNotFoundError, match="does not exist"):
        clipdeploy.load(tmp_path / "nowhere")


def test_hashes_are_checked_unless_told(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "altered")
    graph = folder / "visual.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\x00")
    with pytest.raises(BundleCorruptError, match=r"visual\.onnx is altered"):
        clipdeploy.load(folder)
    clipdeploy.load(folder, check_hashes=False)


def test_a_graph_that_is_not_the_manifests(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "other")
    clip = clipdeploy.load(folder)
    write_text_graph(folder / "visual.onnx", text_weights(9))
    with pytest.raises(
        BundleCorruptError, match=r"the image graph has .*input_ids.*, the manifest says .*pixel_values"
    ):
        clip.encode_image(PICTURES[0])


def test_a_closed_clip(folder: Path) -> None:
    with clipdeploy.load(folder) as clip:
        clip.encode_image(PICTURES[0])
    with pytest.raises(BackendError, match="closed"):
        clip.encode_image(PICTURES[0])
    with pytest.raises(BackendError, match="closed"):
        clip.encode_text("a dog")
    clip.close()


def test_threads_share_a_clip(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight threads start at once; every tower is opened once, and all answers are those of one thread."""
    opened = spy_on_sessions(monkeypatch)
    expected = clipdeploy.load(folder, backend="onnxruntime").classify(PICTURES, LABELS)
    opened.clear()
    clip = clipdeploy.load(folder, backend="onnxruntime", threads=1)
    start = threading.Barrier(8)

    def work(index: int) -> list[Any]:
        start.wait()
        return [clip.classify(PICTURES, LABELS) for _ in range(5)]

    with ThreadPoolExecutor(8) as pool:
        answers = [answer for answers in pool.map(work, range(8)) for answer in answers]
    assert len(answers) == 40
    for answer in answers:
        assert [a.labels for a in answer] == [e.labels for e in expected]
        for one, other in zip(answer, expected, strict=True):
            np.testing.assert_allclose(one.logits, other.logits, rtol=0, atol=1e-3)
    assert sorted(opened) == ["textual.onnx", "visual.onnx"]


def test_the_tiny_bundle_is_what_it_says(folder: Path) -> None:
    clip = clipdeploy.load(folder)
    assert clip.spec == model_spec(clip.spec.tokens.vocab_size)
    assert clip.bundle.precisions(Tower.IMAGE) == [Precision.FP32]
    ids = clip.tokenizer(["It's a DOG, 25!"])
    assert ids.shape == (1, 77)
    assert ids[0, 0] == clip.spec.tokens.start_id
    assert clip.tokenizer.count("It's a DOG, 25!") == 2 + len("it'sadog,25!")
