"""clipdeploy export and clipdeploy verify: what they pass on and what they print."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clipdeploy import pipeline
from clipdeploy.errors import CheckpointError
from clipdeploy.pipeline import ExportOutcome, ExportRequest, VerifyRequest
from clipdeploy.request import CheckpointRequest
from clipdeploy.verify import FP32_GATES
from clipdeploy.verify.records import Check, Finding, ParityReport, Stage
from tests.cli.conftest import Run, document, failure

REPORT = ParityReport(
    schema_version=1,
    created="2026-01-01T00:00:00+00:00",
    bundle="out",
    model="tiny",
    embedding_space="0123456789abcdef",
    precision="fp32",
    backend="onnxruntime",
    reference="pytorch",
    versions={},
    reference_versions={},
    gates=FP32_GATES,
    reference_seconds=0.1,
    stages=(Stage("image_tower", (Check("cosine", 0.9999999, ">=", 0.99999),), (), None, (), 0.1),),
    pictures=(),
    texts=(),
    cosines=(),
    reference_cosines=(),
)
DRIFT = Stage(
    "image_tower",
    (Check("cosine", float("nan"), ">=", 0.99999),),
    (),
    Finding("glass.png", "cosine nan", "an overflow", "use fp32"),
    (),
    0.1,
)


class Recorder:
    """Stands for a stage: keeps the request, tells of progress, gives the outcome."""

    def __init__(self, outcome: Any) -> None:
        self.outcome, self.request = outcome, None

    def __call__(self, request: Any, *, progress: Any) -> Any:
        self.request = request
        progress("working", 1, 2)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def outcome(output: Path, **changes: Any) -> ExportOutcome:
    from clipdeploy.export.graph.simplify import SimplifyStep
    from clipdeploy.export.tower import TowerResult
    from clipdeploy.spec import Tower

    steps = (
        SimplifyStep(name="traced", nodes=581, size_bytes=351_000_000, latency_ms=None, max_abs=0.0, seconds=9.0),
        SimplifyStep(name="onnxsim", nodes=290, size_bytes=350_000_000, latency_ms=30.25, max_abs=1.5e-7, seconds=3.0),
    )
    tower = TowerResult(
        tower=Tower.IMAGE, graph=Path("/scratch/visual.onnx"), weights=None, opset=19, steps=steps, seconds=12.0
    )
    return replace(ExportOutcome(output, (tower,), REPORT, seconds=30.0, size_bytes=605_000_000), **changes)


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Recorder:
    recorder = Recorder(outcome(tmp_path / "out"))
    monkeypatch.setattr(pipeline, "export_bundle", recorder)
    return recorder


def test_export_passes_all_on(run: Run, exported: Recorder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("export", "ViT-B-32", "-o", out).exit_code == 0
    assert exported.request == ExportRequest(CheckpointRequest("ViT-B-32"), output=out)
    flags = ("--random-weights", "--no-simplify", "--no-verify", "--measure", "--overwrite")
    assert run("export", "RN50", "-o", out, "--opset", 20, "--seed", 3, "--pretrained", "x", *flags).exit_code == 0
    assert exported.request == ExportRequest(
        CheckpointRequest("RN50", pretrained="x", random_weights=True, seed=3),
        output=out,
        opset=20,
        simplify=False,
        measure=True,
        verify=False,
        overwrite=True,
    )


def test_export_shows_both_tables_and_what_comes_next(run: Run, exported: Recorder, tmp_path: Path) -> None:
    result = run("export", "ViT-B-32", "-o", tmp_path / "out")
    assert "image tower, opset 19, 12 s" in result.stdout
    assert "onnxsim    290  350.0 MB     1.5e-07  30.25 ms" in result.stdout
    assert "PASS" in result.stdout
    assert "605.0 MB, made in 30 s" in result.stdout
    assert f"clipdeploy verify {tmp_path / 'out'}" in result.stderr


def test_export_json(run: Run, exported: Recorder, tmp_path: Path) -> None:
    answer = document(run("export", "ViT-B-32", "-o", tmp_path / "out", "--json"))
    assert answer["bundle"] == str(tmp_path / "out")
    assert answer["parity"] == {"passed": True, "first_drift": None}
    (tower,) = answer["towers"]
    assert tower["graph"] == str(tmp_path / "out" / "visual.onnx")
    assert [step["nodes"] for step in tower["steps"]] == [581, 290]


def test_export_that_fails(run: Run, exported: Recorder, tmp_path: Path) -> None:
    exported.outcome = CheckpointError("unknown model 'ViT-B-23'", fix="did you mean ViT-B-32?")
    assert "fix: did you mean ViT-B-32?" in failure(run("export", "ViT-B-23", "-o", tmp_path / "out"))
    assert run("export", "ViT-B-32").exit_code == 2


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder(REPORT)
    monkeypatch.setattr(pipeline, "verify_bundle", recorder)
    return recorder


def test_verify_passes_all_on(run: Run, verified: Recorder, bundle: Path, photos_folder: Path, tmp_path: Path) -> None:
    assert run("verify", bundle).exit_code == 0
    assert verified.request == VerifyRequest(bundle=bundle)
    flags = ("--checkpoint", "ViT-B-32", "--random-weights", "--seed", 3, "--images", photos_folder / "*.png")
    assert run("verify", bundle, *flags, "--html", tmp_path / "report.html", "--backend", "onnxruntime").exit_code == 0
    assert verified.request == VerifyRequest(
        bundle=bundle,
        checkpoint=CheckpointRequest("ViT-B-32", random_weights=True, seed=3),
        backend="onnxruntime",
        images=(photos_folder / "a.png", photos_folder / "c.png"),
        html=tmp_path / "report.html",
    )


def test_verify_that_passes(run: Run, verified: Recorder, bundle: Path) -> None:
    result = run("verify", bundle)
    assert result.stdout.rstrip().endswith("PASS: all 1 stages hold")
    answer = document(run("verify", bundle, "--json"))
    assert answer["passed"] is True


def test_verify_that_fails(run: Run, verified: Recorder, bundle: Path) -> None:
    verified.outcome = replace(REPORT, stages=(replace(DRIFT, checks=(Check("cosine", None, ">=", 0.99999),)),))
    result = run("verify", bundle)
    assert result.exit_code == 1
    assert "FAIL: first drift: image tower" in result.stdout
    answer = run("verify", bundle, "--json")
    assert answer.exit_code == 1
    assert document(answer)["first_drift"] == "image_tower"


@pytest.mark.parametrize("flags", [("--pretrained", "x"), ("--random-weights",), ("--images", "x.jpg")])
def test_flags_of_a_checkpoint_without_one(run: Run, verified: Recorder, bundle: Path, flags: tuple[str, ...]) -> None:
    result = run("verify", bundle, *flags)
    assert result.exit_code == 2
    assert "go with --checkpoint" in result.stderr
