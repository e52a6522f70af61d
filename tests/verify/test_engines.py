"""The ladder over built engines, on a GPU of the imagination: what is the engine's own fault is told apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("onnx", reason="the tiny bundles are written with onnx")
pytest.importorskip("onnxruntime", reason="the GPU of the imagination computes with it: pip install 'clipdeploy[cpu]'")
pytest.importorskip("torchvision", reason="the tiny checkpoint resizes with it: pip install 'clipdeploy[export]'")

from clipdeploy.bundle import Bundle, NewFile
from clipdeploy.cli.root import root
from clipdeploy.errors import EngineError
from clipdeploy.pipeline import VerifyRequest, verify_bundle
from clipdeploy.runtime.ort import OrtSession
from clipdeploy.runtime.selftest.recorded import answers_name, inputs_sha256, report_name
from clipdeploy.spec import Precision, Tower
from clipdeploy.verify import from_json, read_golden, text_table, to_json, write_golden
from tests.bundles import image_weights, make_bundle, write_image_graph
from tests.fake_gpu import install, put_engine
from tests.verify.conftest import as_any
from tests.verify.test_end_to_end import TinyCheckpoint


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    made = Bundle.open(make_bundle(tmp_path / "tiny"))
    write_golden(as_any(TinyCheckpoint(made)), made)
    return made


def request(bundle: Bundle, precision: str = "fp32") -> VerifyRequest:
    return VerifyRequest(bundle.folder, precision=precision, backend="tensorrt")


def quantised(bundle: Bundle, work: Path) -> None:
    """An int8 graph of the image tower, with the record that quantising leaves."""
    name, source = "visual_int8.onnx", bundle.graph(Tower.IMAGE)
    pixels = read_golden(bundle).pixels
    np.savez(work / "answers.npz", embeds=OrtSession(source).run(pixels), inputs_sha256=inputs_sha256(pixels))
    record = {
        "budget": {"cosine_mean": 0.995, "cosine_min": 0.97, "top1": 0.99},
        "accuracy": {"cosine_mean": 0.999, "cosine_min": 0.99},
        "samples": {"measured": 8, "held_out": 8},
    }
    (work / "record.json").write_text(json.dumps(record), encoding="utf-8")
    bundle.add_all(
        [
            NewFile(
                name, source, "graph", "t", tower=Tower.IMAGE, precision=Precision.INT8, opset=19, target="tensorrt"
            ),
            NewFile(report_name(name), work / "record.json", "report", "t"),
            NewFile(answers_name(name), work / "answers.npz", "golden", "t"),
        ]
    )


def test_engines_that_hold(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, _ = install(monkeypatch)
    for tower in Tower:
        put_engine(bundle, tower, tmp_path, bands=[[1, 1, 1], [2, 4, 8]])
    report = verify_bundle(request(bundle))
    assert report.passed, text_table(report)
    assert report.backend == "tensorrt"
    assert cuda.used == 0
    done = CliRunner().invoke(root, ["verify", str(bundle.folder), "--backend", "tensorrt", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["backend"] == "tensorrt"


def test_an_engine_that_computes_something_else(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    other = write_image_graph(tmp_path / "other.onnx", image_weights(seed=9))
    put_engine(bundle, Tower.IMAGE, tmp_path, graph=other)
    put_engine(bundle, Tower.TEXT, tmp_path)
    report = verify_bundle(request(bundle))
    assert report.first_drift == "image_tower"
    assert report.stage("text_tower").passed


@pytest.mark.parametrize("holds", [True, False])
def test_an_int8_engine_is_held_against_onnx_runtime_on_the_same_graph(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holds: bool
) -> None:
    install(monkeypatch)
    quantised(bundle, tmp_path)
    weights = image_weights() + (0 if holds else 0.15) * image_weights(seed=9)
    graph = write_image_graph(tmp_path / "engine.onnx", weights.astype(np.float32))
    put_engine(bundle, Tower.IMAGE, tmp_path, precision=Precision.INT8, graph=graph)
    put_engine(bundle, Tower.TEXT, tmp_path)
    stage = verify_bundle(request(bundle, "int8")).stage("image_tower")
    (check,) = [check for check in stage.checks if check.name == "cosine to ONNX Runtime"]
    assert (check.gate, check.passed) == (0.995, holds)
    assert stage.passed is holds
    if stage.finding is not None:
        assert stage.finding.cause.startswith("the engine: ONNX Runtime answered otherwise")


@pytest.mark.parametrize("built", list(Tower))
def test_an_encoder_without_an_engine_is_not_verified(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: Tower
) -> None:
    """The usual device: pictures are embedded on it, texts were embedded before."""
    install(monkeypatch)
    put_engine(bundle, built, tmp_path)
    here, there = (f"{tower.value}_tower" for tower in sorted(Tower, key=lambda tower: tower is not built))
    other = there.split("_")[0]
    report = verify_bundle(request(bundle))
    stages = {stage.name: stage for stage in report.stages}
    assert report.passed and report.first_drift is None
    assert [name for name, stage in stages.items() if not stage.passed] == [there]
    assert stages[here].samples and not stages[there].samples and not stages[there].failed  # type: ignore[index]
    assert list(report.precisions) == [built.value]
    for name in ("similarity", "top1"):
        assert report.stage(name).notes[0].startswith(f"the {other} embeddings are the reference's")  # type: ignore[arg-type]
    page = tmp_path / "parity.html"
    words = ["verify", str(bundle.folder), "--backend", "tensorrt"]
    done = CliRunner().invoke(root, [*words, "--html", str(page)])
    assert done.exit_code == 0, done.output
    told = f"the {other} encoder has no engine and was not verified"
    assert f"note: {other} tower: {told}" in done.stdout
    assert f"--tower {other} --precision fp32" in done.stdout
    assert f"PASS: 5 stages hold; not verified: {other} tower" in done.stdout
    written = page.read_text(encoding="utf-8")
    assert told in written and f"not verified: {other} tower" in written
    assert 'class="mark skip"' in written and 'class="mark fail"' not in written
    data = json.loads(CliRunner().invoke(root, [*words, "--json"]).stdout)
    (skipped,) = [stage for stage in data["stages"] if stage["passed"] is not True]
    assert (data["passed"], skipped["name"], skipped["passed"]) == (True, there, None)
    assert skipped["skipped"].startswith(told)
    assert from_json(to_json(report)).stages == report.stages


def test_what_has_an_engine_still_fails_where_the_other_has_none(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    put_engine(bundle, Tower.IMAGE, tmp_path, graph=write_image_graph(tmp_path / "o.onnx", image_weights(seed=9)))
    report = verify_bundle(request(bundle))
    assert (report.passed, report.first_drift) == (False, "image_tower")
    assert not report.stage("similarity").passed
    assert report.summary.startswith("first drift: image_tower")
    assert "of 5 stages fail" in text_table(report)


def test_an_engine_that_does_not_fit_is_no_missing_one(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    put_engine(bundle, Tower.IMAGE, tmp_path)
    put_engine(bundle, Tower.TEXT, tmp_path, version="10.13.0")
    report = verify_bundle(request(bundle))
    assert report.stage("image_tower").passed
    assert (report.passed, report.first_drift) == (False, "text_tower")
    finding = report.stage("text_tower").finding
    assert finding is not None
    assert "version: built for 10.13.0, here 10.3.0" in finding.cause
    assert "clipdeploy build-engine" in finding.fix


def test_without_any_engine_there_is_nothing_to_verify(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    with pytest.raises(EngineError, match="holds no tensorrt engine of the image tower"):
        verify_bundle(request(bundle))
