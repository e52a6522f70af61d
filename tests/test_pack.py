"""What a device needs of a bundle, as a bundle of its own."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipdeploy.bank import BankRequest, bank_labels
from clipdeploy.bundle import Bundle, NewFile
from clipdeploy.errors import BundleCorruptError, InputError, OutputError, TextError
from clipdeploy.pack import PackOutcome, PackRequest, pack_bundle
from clipdeploy.runtime.clip import load
from clipdeploy.spec import Precision, Tower
from tests.bundles import make_bundle

pytest.importorskip("onnxruntime")

Pack = Callable[..., PackOutcome]
IMAGE, TEXT = (Tower.IMAGE,), (Tower.TEXT,)
LABELS = ["dog", "cat"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle with fp32 and int8 graphs for two targets, what quantising records of them, and two labels."""
    folder = make_bundle(tmp_path / "tiny")
    bundle = Bundle.open(folder)
    kinds: dict[str, Any] = {"tower": Tower.IMAGE, "precision": Precision.INT8}
    files = [
        NewFile("visual_int8.onnx", folder / "visual.onnx", "graph", "tests", target="tensorrt", **kinds),
        NewFile("visual_int8.onnx.data", _file(tmp_path, "weights"), "weights", "tests", tower=Tower.IMAGE),
        NewFile("visual_int8_cpu.onnx", folder / "visual.onnx", "graph", "tests", target="cpu", **kinds),
        NewFile("golden/golden.json", _file(tmp_path, "index"), "golden", "tests"),
        NewFile("report/parity.html", _file(tmp_path, "page"), "report", "tests"),
    ]
    for stem in ("visual_int8", "visual_int8_cpu"):
        files.append(NewFile(f"golden/{stem}.npz", _file(tmp_path, f"{stem} answers"), "golden", "tests"))
        files.append(NewFile(f"report/quantize_{stem}.json", _file(tmp_path, f"{stem} json"), "report", "tests"))
        files.append(NewFile(f"report/quantize_{stem}.html", _file(tmp_path, f"{stem} html"), "report", "tests"))
    bank_labels(BankRequest(folder, ("dog", "cat")))
    bundle.add_all(files)
    return folder


@pytest.fixture
def pack(folder: Path, tmp_path: Path) -> Pack:
    def call(**kwargs: Any) -> PackOutcome:
        return pack_bundle(PackRequest(folder, kwargs.pop("output", tmp_path / "device"), **kwargs))

    return call


def _file(folder: Path, content: str) -> Path:
    path = folder / hashlib.sha256(content.encode()).hexdigest()[:12]
    path.write_text(content, encoding="utf-8")
    return path


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def graphs_in(folder: Path) -> list[str]:
    return [name for name in names_in(folder) if name.endswith(".onnx")]


def test_a_camera_needs_one_graph_and_the_bank(pack: Pack, folder: Path, tmp_path: Path) -> None:
    outcome = pack(towers=IMAGE, precisions=("int8",), target="cpu")
    device = tmp_path / "device"
    banks = [name for name in names_in(folder) if name.startswith("banks/")]
    assert names_in(device) == sorted(
        [
            *banks,
            "golden/golden.json",
            "golden/visual_int8_cpu.npz",
            "manifest.json",
            "report/quantize_visual_int8_cpu.json",
            "visual_int8_cpu.onnx",
        ]
    )
    old, new = Bundle.open(folder).manifest, Bundle.open(device).manifest
    assert new.files == {name: old.files[name] for name in new.files}
    assert (new.embedding_space, new.provenance, new.model) == (old.embedding_space, old.provenance, old.model)
    assert outcome.size_bytes == sum(
        path.stat().st_size for path in device.rglob("*.*") if path.name != "manifest.json"
    )
    assert outcome.size_before_bytes == sum(entry.size_bytes for entry in old.files.values())
    assert outcome.files.keys() | outcome.left.keys() == old.files.keys()
    assert (outcome.labels, outcome.graphs) == (2, {"image": ("visual_int8_cpu.onnx",)})
    assert outcome.notes == ("it holds no text encoder: it knows the banked labels and no others",)


def test_it_classifies_banked_labels_without_text_encoder_and_tokenizer(
    pack: Pack, folder: Path, tmp_path: Path
) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), dtype=np.uint8)
    with load(folder, backend="onnxruntime", self_test=False) as clip:
        expected = clip.classify(pictures, LABELS)
        rows, cosines = clip.encode_labels(LABELS), clip.similarity(pictures, "a photo of a cat.")
    pack(towers=IMAGE, precisions=("int8",), target="cpu")
    shutil.rmtree(folder)
    with load(tmp_path / "device", precision="int8", backend="onnxruntime", self_test=False) as clip:
        assert clip.classify(pictures, LABELS) == expected
        assert np.array_equal(clip.encode_labels(LABELS), rows)
        assert np.array_equal(clip.encode_text("a photo of a dog."), rows[:1])
        assert np.allclose(clip.similarity(pictures, "a photo of a cat."), cosines, atol=1e-6)  # embedded in a pair
        with pytest.raises(TextError, match="has no text encoder, and no bank of it holds the label 'cow'"):
            clip.classify(pictures, [*LABELS, "cow"])
        with pytest.raises(TextError, match="no bank of it holds the text 'cow'"):
            clip.encode_text("cow")
        with pytest.raises(InputError, match="no graph of the text tower") as caught:
            clip.encode_tokens(np.zeros((1, 77), np.int64))
        assert caught.value.fix and "packed from" in caught.value.fix


def test_without_a_choice_all_graphs_go_along(pack: Pack, folder: Path, tmp_path: Path) -> None:
    outcome = pack()
    left = ["report/parity.html", "report/quantize_visual_int8.html", "report/quantize_visual_int8_cpu.html"]
    assert sorted(outcome.left) == left
    assert names_in(tmp_path / "device") == [name for name in names_in(folder) if name not in left]
    assert outcome.notes == ()


def test_an_encoder_without_the_precision_is_taken_in_fp32(pack: Pack, tmp_path: Path) -> None:
    outcome = pack(precisions=("int8",), target="tensorrt")
    device = tmp_path / "device"
    assert graphs_in(device) == ["textual.onnx", "visual_int8.onnx"]
    assert {"tokenizer.json", "visual_int8.onnx.data"} <= set(names_in(device))
    assert outcome.notes == ("the text encoder has no int8 graph: taken in fp32",)
    # What is asked for when labels are banked is asked of the text encoder.
    pack(precisions=("int8",), golden=False, overwrite=True)
    assert bank_labels(BankRequest(device, ("cow",))).precision == "fp32"
    with pytest.raises(InputError, match="no int8 graph of the text tower"):
        bank_labels(BankRequest(device, ("hen",), precision="int8"))


def test_several_precisions(pack: Pack, tmp_path: Path) -> None:
    pack(towers=IMAGE, precisions=("fp32", "int8"))
    assert graphs_in(tmp_path / "device") == ["visual.onnx", "visual_int8.onnx", "visual_int8_cpu.onnx"]


def test_without_golden_samples_their_records_stay_behind(pack: Pack, tmp_path: Path) -> None:
    outcome = pack(golden=False)
    assert not [name for name in names_in(tmp_path / "device") if name.startswith(("golden/", "report/"))]
    assert outcome.notes[-1].startswith("it holds no golden samples")


def test_a_picture_encoder_alone_says_that_it_cannot_classify(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "plain")
    outcome = pack_bundle(PackRequest(folder, tmp_path / "device", towers=IMAGE))
    assert f"cannot classify them; bank labels first: clipdeploy bank {folder} --label" in outcome.notes[0]
    with load(tmp_path / "device", backend="onnxruntime", self_test=False) as clip:
        assert clip.encode_image(np.zeros((40, 60, 3), np.uint8)).shape == (1, 16)
        with pytest.raises(TextError, match="no bank of it holds the label 'dog'"):
            clip.encode_labels(["dog"])


def test_a_text_encoder_alone(pack: Pack, tmp_path: Path) -> None:
    outcome = pack(towers=TEXT)
    assert graphs_in(tmp_path / "device") == ["textual.onnx"]
    assert outcome.notes == ("it holds no image encoder: it embeds texts, and takes no pictures",)
    with load(tmp_path / "device", backend="onnxruntime", self_test=False) as clip:
        assert clip.encode_text(["dog"]).shape == (1, 16)


@pytest.mark.parametrize(
    ("choice", "why"),
    [
        ({"precisions": ("fp16",)}, "holds no fp16 graph of the image tower"),
        ({"towers": TEXT, "precisions": ("int8",)}, "holds no int8 graph of the text tower"),
        ({"precisions": ("int4",)}, "unknown precision 'int4'"),
    ],
)
def test_what_is_not_there_is_refused(pack: Pack, tmp_path: Path, choice: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        pack(**choice)
    assert not (tmp_path / "device").exists()


def test_a_packed_bundle_packs_again_and_lacks_what_it_lacks(pack: Pack, tmp_path: Path) -> None:
    pack(towers=IMAGE, precisions=("int8",))
    device = tmp_path / "device"
    again = pack_bundle(PackRequest(device, tmp_path / "again", target="cpu"))
    assert graphs_in(tmp_path / "again") == ["visual_int8_cpu.onnx"]
    assert again.labels == 2
    with pytest.raises(InputError, match="has no text encoder"):
        pack_bundle(PackRequest(device, tmp_path / "third", towers=TEXT))
    with pytest.raises(InputError, match="has no text encoder, which embeds labels"):
        bank_labels(BankRequest(device, ("cow",), precision="int8"))
    assert bank_labels(BankRequest(device, ("dog",))).added == ()


def test_an_altered_file_leaves_nothing(pack: Pack, folder: Path, tmp_path: Path) -> None:
    path = folder / "textual.onnx"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    pack(towers=IMAGE, output=tmp_path / "pictures")  # it is not taken
    with pytest.raises(BundleCorruptError, match=r"textual\.onnx is altered"):
        pack()
    assert not (tmp_path / "device").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".device")]


def test_a_foreign_bank_is_refused(pack: Pack, folder: Path, tmp_path: Path) -> None:
    (path,) = (folder / "banks").glob("*.json")
    index = tmp_path / "foreign.json"
    index.write_text(json.dumps({**json.loads(path.read_text()), "embedding_space": "0" * 16}), encoding="utf-8")
    Bundle.open(folder).add_all([NewFile(f"banks/{path.name}", index, "bank", "tests")])
    with pytest.raises(BundleCorruptError, match="embedding space 0000000000000000"):
        pack()


def test_what_is_there_is_replaced_only_when_asked(pack: Pack, folder: Path, tmp_path: Path) -> None:
    pack()
    with pytest.raises(OutputError, match="exists already"):
        pack(towers=IMAGE)
    pack(towers=IMAGE, overwrite=True)
    assert "textual.onnx" not in names_in(tmp_path / "device")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(OutputError, match="is not a bundle"):
        pack(output=tmp_path / "mine", overwrite=True)
    for inside in (folder, folder / "device"):
        with pytest.raises(OutputError):
            pack(output=inside, overwrite=True)
    assert (folder / "textual.onnx").is_file()


def test_a_packed_bundle_is_verified_as_far_as_it_goes(demo_bundle: Path, tmp_path: Path) -> None:
    from clipdeploy.pipeline import VerifyRequest, verify_bundle

    pack_bundle(PackRequest(demo_bundle, tmp_path / "pictures", towers=IMAGE))
    report = verify_bundle(VerifyRequest(tmp_path / "pictures"))
    assert report.passed
    assert [stage.name for stage in report.stages if stage.skipped] == ["tokens", "text_tower"]
    assert report.stage("text_tower").skipped == "the text encoder has no graph in the bundle and was not verified"
    assert report.summary == "4 stages hold; not verified: tokens, text tower"
    pack_bundle(PackRequest(demo_bundle, tmp_path / "texts", towers=TEXT))
    report = verify_bundle(VerifyRequest(tmp_path / "texts"))
    assert report.passed
    assert [stage.name for stage in report.stages if stage.skipped] == ["image_tower"]
