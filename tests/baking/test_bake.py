"""A baked bundle: what is written, what it answers, and what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")
pytest.importorskip("tokenizers", reason="the tiny bundles bring a tokenizer")

import onnx

import clipdeploy
from clipdeploy.baking import BakeRequest, bake_bundle
from clipdeploy.bank import BankRequest, bank_labels
from clipdeploy.bundle import Bundle
from clipdeploy.errors import BackendError, InputError, OutputError, TextError
from clipdeploy.pack import PackRequest, pack_bundle
from clipdeploy.quantize import QuantizeRequest, quantize_bundle
from clipdeploy.runtime.backends import BackendChoice
from clipdeploy.runtime.chosen import settle
from clipdeploy.runtime.scores import probabilities
from clipdeploy.runtime.selftest.baked import BAKED_ARRAYS, hold_baked, read_baked
from clipdeploy.spec import FrameSpec, Precision, Tower
from tests.bundles import make_bundle
from tests.runtime.fake_backends import golden_bundle

LABELS = ("a red circle", "ein Café", "a dog, asleep")
TEMPLATES = ("a photo of a {}.", "the {}")
FRAME = FrameSpec(96, 64, "bgr")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return golden_bundle(tmp_path_factory.mktemp("bake") / "tiny").folder


@pytest.fixture(scope="module")
def door(tiny: Path) -> Path:
    """The tiny bundle with labels and frames in its graph."""
    out = tiny.parent / "door"
    bake_bundle(BakeRequest(tiny, out, LABELS, TEMPLATES, FRAME))
    return out


def frames(count: int = 5, frame: FrameSpec = FRAME) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, *frame.shape), dtype=np.uint8)


def table(answers: list[clipdeploy.Classification], what: str) -> np.ndarray:
    """Logits or probabilities, in the order of the labels."""
    return np.array([[dict(zip(a.labels, getattr(a, what), strict=True))[label] for label in LABELS] for a in answers])


def test_what_is_written(tiny: Path, door: Path) -> None:
    bundle = Bundle.open(door)
    baked = bundle.manifest.baked
    assert baked is not None
    assert (baked.labels, baked.templates, baked.frame) == (LABELS, TEMPLATES, FRAME)
    assert baked.embedding_space == Bundle.open(tiny).manifest.embedding_space
    assert set(bundle.manifest.files) == {"visual.onnx", "labels.txt", "golden/baked.json", "golden/baked.npz"}
    assert (door / "labels.txt").read_text(encoding="utf-8") == "a red circle\nein Café\na dog, asleep\n"
    image = bundle.model.image
    assert (image.input, image.output.name, image.output.shape) == (FRAME.tensor, "logits", ("batch", 3))
    model = onnx.load(door / "visual.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["frame"]
    assert [value.name for value in model.graph.output] == ["probabilities", "logits"]
    inner = {name for node in model.graph.node for name in node.output}
    assert {"pixel_values", "image_embeds"} <= inner  # where it can be cut
    assert [node.op_type for node in model.graph.node if "frame" in node.input] == ["Cast"]  # as TensorRT asks
    assert [path.name for path in door.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "auto"])
def test_it_answers_as_classify_does(tiny: Path, door: Path, backend: str) -> None:
    pytest.importorskip("openvino")
    given = frames()
    with clipdeploy.load(tiny, backend="onnxruntime") as clip:
        expected = clip.classify(list(given), LABELS, template=TEMPLATES, color="bgr")
    with clipdeploy.load_baked(door, backend=backend) as baked:
        answers = baked.classify(given)
        assert isinstance(answers, list)
        np.testing.assert_allclose(table(answers, "logits"), table(expected, "logits"), atol=1e-3)
        np.testing.assert_allclose(table(answers, "probabilities"), table(expected, "probabilities"), atol=1e-4)
        one = baked.classify(given[0], top=1)
        assert isinstance(one, clipdeploy.Classification)
        assert one.label == expected[0].label and len(one.labels) == 1


def test_the_graph_gives_the_probabilities_of_its_logits(door: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(door / "visual.onnx", providers=["CPUExecutionProvider"])
    chances, logits = session.run(["probabilities", "logits"], {"frame": frames()})
    np.testing.assert_allclose(chances, probabilities(logits, "softmax"), atol=1e-6)


@pytest.mark.parametrize("frame", [None, FrameSpec(64, 96, "rgb"), FrameSpec(98, 50, "nv12")])
def test_pictures_sigmoid_and_other_frames(tmp_path: Path, frame: FrameSpec | None) -> None:
    source = make_bundle(tmp_path / "tiny", probability="sigmoid", logit_scale=12.5, logit_bias=-3.25)
    outcome = bake_bundle(BakeRequest(source, tmp_path / "out", LABELS, (), frame))
    assert "no golden samples" in outcome.notes[0] and outcome.samples == 0
    clip, baked = clipdeploy.load(source), clipdeploy.load_baked(tmp_path / "out")
    assert (baked.frame, baked.templates) == (frame, ("a photo of a {}.",))
    if frame is None:
        given = list(np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), dtype=np.uint8))
        expected = clip.classify(given, LABELS)
    else:
        from clipdeploy.runtime.selftest.frames import expected_pixels

        given = frames(3, frame)
        embeds = clip.encode_pixels(expected_pixels(given, frame, clip.spec.pixels))
        expected = clip.classifier(LABELS).classify_embeddings(embeds)
    answers = baked.classify(given)
    np.testing.assert_allclose(table(answers, "logits"), table(expected, "logits"), atol=1e-4)
    np.testing.assert_allclose(table(answers, "probabilities"), table(expected, "probabilities"), atol=1e-5)


def test_embeddings(tiny: Path, tmp_path: Path) -> None:
    outcome = bake_bundle(BakeRequest(tiny, tmp_path / "eyes", None, frame=FRAME))
    assert outcome.labels == () and not (tmp_path / "eyes" / "labels.txt").exists()
    with clipdeploy.load_baked(tmp_path / "eyes") as baked, clipdeploy.load(tiny) as clip:
        expected = clip.encode_image(list(frames()), color="bgr")
        np.testing.assert_allclose(baked.embed(frames()), expected, atol=1e-5)
        with pytest.raises(InputError, match="baked without labels: its graph gives embeddings"):
            baked.classify(frames())


def test_labels_come_from_banks_where_there_is_no_text_encoder(tiny: Path, tmp_path: Path) -> None:
    banked = shutil.copytree(tiny, tmp_path / "banked")
    bank_labels(BankRequest(banked, LABELS))
    pack_bundle(PackRequest(banked, tmp_path / "packed", towers=(Tower.IMAGE,)))
    bake_bundle(BakeRequest(tmp_path / "packed", tmp_path / "out", LABELS))
    bake_bundle(BakeRequest(tiny, tmp_path / "other", LABELS))
    pictures = [frames()[0]]
    ours, theirs = (clipdeploy.load_baked(tmp_path / name).logits(pictures) for name in ("out", "other"))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    with pytest.raises(TextError, match="no bank of it holds the label 'a cat'"):
        bake_bundle(BakeRequest(tmp_path / "packed", tmp_path / "cat", ("a cat",)))
    assert not (tmp_path / "cat").exists()


def test_a_baked_bundle_can_be_packed(door: Path, tmp_path: Path) -> None:
    outcome = pack_bundle(PackRequest(door, tmp_path / "device"))
    assert outcome.notes == () and "labels.txt" in outcome.files
    with clipdeploy.load_baked(tmp_path / "device") as baked:
        assert baked.labels == LABELS
        assert baked.logits(frames()).shape == (5, 3)


def test_frames_of_the_bundle_are_taken(tiny: Path, door: Path, tmp_path: Path) -> None:
    from clipdeploy.frames import FramesRequest, add_frames

    framed = shutil.copytree(tiny, tmp_path / "framed")
    add_frames(FramesRequest(framed, (FRAME,)))
    bake_bundle(BakeRequest(framed, tmp_path / "out", LABELS, TEMPLATES, FRAME))
    ours, theirs = (clipdeploy.load_baked(folder).logits(frames()) for folder in (tmp_path / "out", door))
    np.testing.assert_array_equal(ours, theirs)


def test_for_processors_frames_stay_8_bits_for_longer(tiny: Path, door: Path, tmp_path: Path) -> None:
    bake_bundle(BakeRequest(tiny, tmp_path / "cpu", LABELS, TEMPLATES, FRAME, target="cpu"))
    first = [node.op_type for node in onnx.load(tmp_path / "cpu" / "visual.onnx").graph.node if "frame" in node.input]
    assert "Cast" not in first
    ours, theirs = (clipdeploy.load_baked(folder).logits(frames()) for folder in (tmp_path / "cpu", door))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_the_self_test_sees_what_is_wrong(door: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPDEPLOY_CACHE", str(tmp_path / "cache"))
    folder = shutil.copytree(door, tmp_path / "wrong")
    model = onnx.load(folder / "visual.onnx")
    stored = next(tensor for tensor in model.graph.initializer if tensor.name == "labels/weights")
    weights = onnx.numpy_helper.to_array(stored).copy()
    weights[0] += 5  # a row of what the embedding is multiplied with
    stored.CopyFrom(onnx.numpy_helper.from_array(weights, stored.name))
    onnx.save(model, folder / "visual.onnx")
    told = r"does not pass its self-test: it drifts from .* golden samples; worst"
    altered = clipdeploy.load_baked(folder, backend="onnxruntime", check_hashes=False)
    with pytest.raises(BackendError, match=told):
        altered.logits(frames())
    with clipdeploy.load_baked(folder, backend="onnxruntime", check_hashes=False, self_test=False) as altered:
        assert altered.logits(frames()).shape == (5, 3)


def test_the_golden_samples_are_what_the_unbaked_bundle_answers(tiny: Path, door: Path) -> None:
    from clipdeploy.runtime.selftest.golden_frames import golden_frames

    bundle = Bundle.open(door)
    samples = read_baked(bundle)
    given = golden_frames(samples.crops, FRAME, bundle.model.pixels)
    with clipdeploy.load(tiny) as clip:
        expected = table(clip.classify(list(given), LABELS, template=TEMPLATES, color="bgr"), "logits")
    np.testing.assert_allclose(samples.answers["reference"], expected, atol=1e-3)
    chosen = settle(bundle, Precision.FP32, BackendChoice("onnxruntime", "tests"))
    from clipdeploy.runtime.chosen import open_encoder

    count, cosine = hold_baked(chosen, open_encoder(chosen, Tower.IMAGE), 4)
    assert count == len(samples.crops) and cosine > 0.99999


def test_golden_samples_of_another_shape_are_refused(door: Path, tmp_path: Path) -> None:
    from clipdeploy.errors import BundleCorruptError

    folder = shutil.copytree(door, tmp_path / "altered")
    np.savez(folder / BAKED_ARRAYS, crops=np.zeros((2, 3, 3, 3), np.uint8))
    with pytest.raises(BundleCorruptError, match="are not those of this bundle"):
        read_baked(Bundle(folder, Bundle.open(door).manifest))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"labels": ()}, TextError, "the list of labels is empty"),
        ({"labels": ("a cat", "a cat")}, TextError, "labels 0 and 1 are the same"),
        ({"labels": ("a cat\nand a dog",)}, TextError, "has several lines"),
        ({"templates": ("photo",)}, TextError, "has no {} for the label"),
        ({"precisions": ("int8",)}, InputError, "holds no int8 graph of the image tower"),
        ({"precisions": ()}, InputError, "no precision to bake"),
        ({"precisions": ("int4",)}, InputError, "unknown precision 'int4'"),
    ],
)
def test_wrong_requests_write_nothing(
    tiny: Path, tmp_path: Path, changes: dict[str, object], error: type[Exception], message: str
) -> None:
    request = replace(BakeRequest(tiny, tmp_path / "out", LABELS), **changes)
    with pytest.raises(error, match=message):
        bake_bundle(request)
    assert list(tmp_path.iterdir()) == []


def test_places_that_are_taken_stay(tiny: Path, door: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exists already"):
        bake_bundle(BakeRequest(tiny, door, LABELS))
    with pytest.raises(OutputError, match="is not apart from the bundle"):
        bake_bundle(BakeRequest(tiny, tiny / "inside", LABELS))
    copy = shutil.copytree(door, tmp_path / "copy")
    bake_bundle(BakeRequest(tiny, copy, ("one", "two"), overwrite=True))
    assert clipdeploy.load_baked(copy).labels == ("one", "two")


def test_a_failure_at_the_end_leaves_nothing(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise BackendError("made to fail")

    monkeypatch.setattr("clipdeploy.baking.job.hold_baked", fail)
    with pytest.raises(BackendError, match="made to fail"):
        bake_bundle(BakeRequest(tiny, tmp_path / "out", LABELS))
    assert list(tmp_path.iterdir()) == []


def test_what_a_baked_bundle_is_not_for(tiny: Path, door: Path, tmp_path: Path) -> None:
    from clipdeploy.frames import FramesRequest, add_frames

    with pytest.raises(InputError, match=r"is baked: its graph answers by itself"):
        clipdeploy.load(door)
    with pytest.raises(InputError, match="is not baked: it holds encoders"):
        clipdeploy.load_baked(tiny)
    for call in (
        lambda: bake_bundle(BakeRequest(door, tmp_path / "again", LABELS)),
        lambda: bank_labels(BankRequest(door, LABELS)),
        lambda: quantize_bundle(QuantizeRequest(door, "fp16", data=("x",), towers=(Tower.IMAGE,))),
        lambda: add_frames(FramesRequest(door, ("96x64",))),
    ):
        with pytest.raises(InputError, match=f"bundle {door} is baked"):
            call()
    assert list(tmp_path.iterdir()) == []
