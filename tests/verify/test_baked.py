"""The ladder of a baked bundle: that it holds, what it says when it does not, and of whom."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")
pytest.importorskip("tokenizers", reason="the tiny bundles bring a tokenizer")

import onnx

from clipdeploy.baking import BakeRequest, bake_bundle
from clipdeploy.bundle import Bundle
from clipdeploy.errors import BundleCorruptError, InputError
from clipdeploy.manifest import dump
from clipdeploy.pipeline import VerifyRequest, verify_bundle
from clipdeploy.request import CheckpointRequest
from clipdeploy.runtime.selftest.baked import BAKED_ARRAYS
from clipdeploy.spec import FrameSpec, Precision
from clipdeploy.verify import from_json, text_table, to_json
from clipdeploy.verify.page import render
from tests.bundles import make_bundle
from tests.runtime.fake_backends import golden_bundle

LABELS = ("a red circle", "ein Café", "a dog, asleep")
FRAME = FrameSpec(96, 64, "nv12")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return golden_bundle(tmp_path_factory.mktemp("baked") / "tiny").folder


@pytest.fixture(scope="module")
def baked(source: Path) -> dict[str, Path]:
    """Three of them: pixels to logits in two precisions, frames to logits, frames to embeddings."""
    out = {name: source.parent / name for name in ("pixels", "frames", "eyes")}
    bake_bundle(BakeRequest(source, out["pixels"], LABELS, precisions=("fp32", "fp16")))
    bake_bundle(BakeRequest(source, out["frames"], LABELS, frame=FRAME))
    bake_bundle(BakeRequest(source, out["eyes"], None, frame=FRAME))
    return out


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "auto"])
@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("pixels", ["pixels", "logits", "top1"]),
        ("frames", ["frames", "logits", "top1"]),
        ("eyes", ["frames", "embeddings"]),
    ],
)
def test_it_holds(baked: dict[str, Path], name: str, stages: list[str], backend: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    seen: list[str] = []
    request = VerifyRequest(baked[name], backend=backend, html=tmp_path / "report.html")
    report = verify_bundle(request, progress=lambda step, *_: seen.append(step))
    assert [stage.name for stage in report.stages] == stages
    assert report.passed and report.first_drift is None
    assert [stage.name for stage in report.stages if stage.skipped] == (["frames"] if "frames" in stages else [])
    assert seen[-len(stages) - 1 :] == [*stages, "report"]
    assert len(report.pictures) == 8 and report.texts == (LABELS if "top1" in stages else ())
    assert report.summary.startswith("all 3 stages hold" if name == "pixels" else f"{len(stages) - 1} stages hold; not")
    assert "PASS" in text_table(report)
    again = from_json(to_json(report))
    assert [stage.checks for stage in again.stages] == [stage.checks for stage in report.stages]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "the bundle" in page and ("Café" in page) == ("top1" in stages)
    assert render(report).count("<section") == len(stages) + 2 + ("top1" in stages)


def test_a_half_precision_graph(baked: dict[str, Path]) -> None:
    report = verify_bundle(VerifyRequest(baked["pixels"], precision="fp16", backend="onnxruntime"))
    assert report.passed and report.precision == "fp16"
    checks = {check.name for check in report.stage("logits").checks}
    assert {"max abs to ONNX Runtime, in batches", "max abs to fp32, one at a time"} <= checks


def spoiled(folder: Path, out: Path, precision: Precision = Precision.FP32, *, by: float) -> Path:
    """A copy in which every logit's graph has one initialiser scaled: labels drift."""
    shutil.copytree(folder, out)
    bundle = Bundle.open(out)
    name = "visual.onnx" if precision is Precision.FP32 else f"visual_{precision.value}.onnx"
    model = onnx.load(out / name)
    rows = next(one for one in model.graph.initializer if one.name.startswith("labels/") and len(one.dims) == 2)
    values = onnx.numpy_helper.to_array(rows) * np.float32(by)
    rows.CopyFrom(onnx.numpy_helper.from_array(values, rows.name))
    onnx.save(model, out / "spoiled")
    entry = bundle.manifest.files[name]
    bundle.add(name, out / "spoiled", kind="graph", origin="t", tower=entry.tower, precision=precision)
    (out / "spoiled").unlink()
    return out


def test_labels_that_drift(baked: dict[str, Path], tmp_path: Path) -> None:
    report = verify_bundle(VerifyRequest(spoiled(baked["pixels"], tmp_path / "door", by=-1.0), backend="onnxruntime"))
    assert not report.passed and report.first_drift == "logits"
    assert report.stage("pixels").passed and not report.stage("top1").passed
    found = report.stage("logits").finding
    assert found is not None and "ONNX Runtime answered otherwise" in found.cause
    assert "max abs to ONNX Runtime, in batches" in found.numbers
    assert "FAIL: first drift: logits (2 of 3 stages fail)" in text_table(report)
    assert "answers differ" in (report.stage("top1").finding or found).numbers


def test_what_the_type_itself_has_lost(baked: dict[str, Path], tmp_path: Path) -> None:
    """The fp32 answers are moved, those of the fp16 graph are not: the engine is right, the graph is not."""
    out = Path(shutil.copytree(baked["pixels"], tmp_path / "door"))
    with np.load(out / BAKED_ARRAYS) as stored:
        arrays = dict(stored)
    arrays["reference"] = arrays["reference"] + np.float32(20)
    np.savez(tmp_path / "moved.npz", **arrays)
    Bundle.open(out).add(BAKED_ARRAYS, tmp_path / "moved.npz", kind="golden", origin="t")
    report = verify_bundle(VerifyRequest(out, precision="fp16", backend="onnxruntime"))
    found = report.stage("logits").finding
    assert found is not None and found.cause.startswith("the quantiser") and "to fp32" in found.numbers
    assert report.stage("top1").passed  # held to the graph's own answers


def test_an_engine_that_gives_no_numbers(baked: dict[str, Path], tmp_path: Path) -> None:
    out = spoiled(baked["pixels"], tmp_path / "door", by=float("nan"))
    report = verify_bundle(VerifyRequest(out, backend="onnxruntime"))
    found = report.stage("logits").finding
    assert found is not None and "not finite" in found.cause
    assert report.cosines == ()
    assert json.loads(to_json(report))["passed"] is False


def test_labels_that_nobody_can_tell_apart(source: Path, tmp_path: Path) -> None:
    bake_bundle(BakeRequest(source, tmp_path / "door", ("one",)))
    report = verify_bundle(VerifyRequest(tmp_path / "door", backend="onnxruntime"))
    assert report.stage("top1").passed  # one label is always the best
    out = Path(shutil.copytree(tmp_path / "door", tmp_path / "blank"))
    bundle = Bundle.open(out)
    left = {name: entry for name, entry in bundle.manifest.files.items() if not name.startswith("golden/")}
    (out / "manifest.json").write_text(dump(bundle.manifest.__class__(**{**vars(bundle.manifest), "files": left})))
    with pytest.raises(BundleCorruptError, match="holds no golden samples"):
        verify_bundle(VerifyRequest(out, backend="onnxruntime"))


def test_nothing_else_is_its_reference(baked: dict[str, Path]) -> None:
    for more in ({"checkpoint": CheckpointRequest("RN50", random_weights=True)}, {"images": (Path("a.png"),)}):
        with pytest.raises(InputError, match="compared with its own golden samples"):
            verify_bundle(VerifyRequest(baked["pixels"], **more))


def test_without_golden_samples_from_the_start(tmp_path: Path) -> None:
    bake_bundle(BakeRequest(make_bundle(tmp_path / "tiny"), tmp_path / "door", LABELS))
    with pytest.raises(BundleCorruptError, match="nothing says what it should answer"):
        verify_bundle(VerifyRequest(tmp_path / "door"))
