"""The rung of camera frames: pixels through the backend, or an engine's embeddings, and what is said of a drift."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx", reason="frame graphs are written with onnx")
pytest.importorskip("onnx_ir", reason="joining needs the extra: pip install 'clipdeploy[engine]'")
pytest.importorskip("onnxruntime", reason="frame graphs are checked with it: pip install 'clipdeploy[cpu]'")
pytest.importorskip("tokenizers", reason="the tiny bundles bring a tokenizer")

import clipdeploy
from clipdeploy.bundle import Bundle, NewFile
from clipdeploy.engine.frames import join_frame
from clipdeploy.frames import FramesRequest, add_frames
from clipdeploy.frames.graph import frame_graph
from clipdeploy.runtime.engines import graph_sha256
from clipdeploy.spec import FrameSpec, Tower
from clipdeploy.verify import GoldenReference, ParityReport, verify
from clipdeploy.verify.page import render
from clipdeploy.verify.report import from_json, text_table, to_json
from tests.bundles import image_weights, pixel_spec, write_image_graph
from tests.fake_gpu import install, put_engine
from tests.runtime.fake_backends import golden_bundle

BGR, NV12 = FrameSpec(320, 240, "bgr"), FrameSpec(96, 64, "nv12")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = golden_bundle(tmp_path_factory.mktemp("verify-frames") / "tiny").folder
    add_frames(FramesRequest(folder, (BGR, NV12)))
    return folder


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Bundle:
    return Bundle.open(shutil.copytree(made, tmp_path / "bundle"))


def verified(bundle: Bundle, backend: str = "onnxruntime") -> ParityReport:
    with clipdeploy.load(bundle, backend=backend, self_test=False) as clip:
        return verify(bundle, reference=GoldenReference(bundle), clip=clip)


def put_other(bundle: Bundle, **changes: Any) -> None:
    path, output = bundle.folder / "other.onnx", bundle.model.image.input
    path.write_bytes(frame_graph(BGR, pixel_spec(**changes), output, opset=18, ir_version=9).SerializeToString())
    bundle.add_all([NewFile(BGR.graph_name, path, "frame", "tests", frame=BGR)])


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_it_holds(bundle: Bundle, backend: str) -> None:
    pytest.importorskip(backend)
    report = verified(bundle, backend)
    assert [stage.name for stage in report.stages][:3] == ["pixels", "frames", "tokens"]
    stage = report.stage("frames")
    assert stage.passed and [sample.name for sample in stage.samples] == [str(BGR), str(NV12)]
    assert len(stage.checks) == 4
    assert from_json(to_json(report)).stages == report.stages
    assert "all 7 stages hold" in text_table(report) and "Camera frames become" in render(report)


def test_a_bundle_that_takes_none_has_no_such_stage(tmp_path: Path) -> None:
    report = verified(golden_bundle(tmp_path / "plain"))
    assert len(report.stages) == 6 and report.passed


def test_a_drift_is_named(bundle: Bundle) -> None:
    put_other(bundle, interpolation="bilinear")
    report = verified(bundle)
    assert report.first_drift == "frames" and not report.passed
    finding = report.stage("frames").finding
    assert finding is not None and finding.sample == str(BGR)
    assert "of 255 levels, on " in finding.numbers and "another preprocessing" in finding.cause
    assert "first drift: frames" in text_table(report) and str(BGR) in render(report)
    assert [stage.name for stage in report.stages if stage.failed] == ["frames"]


@pytest.mark.parametrize("right", [True, False])
def test_an_engine(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, right: bool) -> None:
    install(monkeypatch)
    weights = image_weights()
    weights[::2] *= 1.0 if right else 0.5
    joined = tmp_path / "joined.onnx"
    join_frame(bundle.frame_graph(BGR), write_image_graph(tmp_path / "v.onnx", weights), joined)
    sha256 = graph_sha256(bundle, "visual.onnx", BGR)
    put_engine(bundle, Tower.IMAGE, tmp_path, graph=joined, frame=BGR, graph_sha256=sha256)
    report = verified(bundle, "tensorrt")
    stage = report.stage("frames")
    assert stage.passed is right and report.first_drift == (None if right else "frames")
    assert [check.name for check in stage.checks] == ["320x240:bgr: max abs", "320x240:bgr: cosine"]
    if not right:
        assert stage.finding is not None and "build-engine" in stage.finding.fix
