"""clipdeploy inspect and clipdeploy doctor."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clipdeploy.doctor import diagnosis
from clipdeploy.findings import Finding
from clipdeploy.inspect import CheckpointInfo
from clipdeploy.request import CheckpointRequest
from tests.bundles import model_spec
from tests.cli.conftest import Run, document, failure
from tests.test_doctor import CPU, ORT_CUDA_12, SMI, Imported, machine


def test_a_bundle(run: Run, bundle: Path) -> None:
    result = run("inspect", bundle)
    assert result.exit_code == 0
    for expected in ("tiny-linear, D = 16", "32 x 32 px, bicubic", "100 * cosine", "visual.onnx", "all there"):
        assert expected in result.stdout
    answer = document(run("inspect", bundle, "--json"))
    assert answer["kind"] == "bundle"
    assert answer["model"]["logit_scale"] == 100.0
    assert answer["embedding_space"] in result.stdout


def test_a_graph(run: Run, bundle: Path) -> None:
    result = run("inspect", bundle / "visual.onnx")
    assert "pixel_values float32 (batch, 3, 32, 32)" in result.stdout
    assert "float32 196.6 kB" in result.stdout
    answer = document(run("inspect", bundle / "visual.onnx", "--json"))
    assert answer["kind"] == "graph"
    assert answer["nodes"]["MatMul"] == 1


def test_a_graph_without_onnx(run: Run, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "pip install 'clipdeploy[export]'" in failure(run("inspect", bundle / "visual.onnx"))


def test_an_altered_bundle(run: Run, bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle, tmp_path / "copy")
    data = bytearray((copy / "visual.onnx").read_bytes())
    data[-1] ^= 1
    (copy / "visual.onnx").write_bytes(data)
    assert "visual.onnx is altered" in failure(run("inspect", copy))
    assert run("inspect", copy, "--no-hashes").exit_code == 0


def test_neither(run: Run, tmp_path: Path) -> None:
    assert "does not exist" in failure(run("inspect", tmp_path / "gone"))


@pytest.mark.parametrize("flags", [("--pretrained", "x"), ("--random-weights",), ("--preprocessing", "openai")])
@pytest.mark.parametrize("name", ["", "visual.onnx"])
def test_flags_of_a_checkpoint_without_one(run: Run, bundle: Path, name: str, flags: tuple[str, ...]) -> None:
    result = run("inspect", bundle / name, *flags)
    assert result.exit_code == 2
    assert "go with a checkpoint" in result.stderr


INFO = CheckpointInfo(
    "ViT-B-32 (mine.pt)",
    model_spec(100),
    "ab" * 32,
    "mit",
    (
        Finding("activation", "note", "gelu, from the architecture", "fine-tuned? ViT-B-32-quickgelu"),
        Finding("resize", "good", "squashed"),
        Finding("channel statistics", "bad", "in the order BGR " * 20, "turn it round"),
    ),
)


def answer_with(monkeypatch: pytest.MonkeyPatch, info: CheckpointInfo) -> list[CheckpointRequest]:
    asked: list[CheckpointRequest] = []

    def inspect_checkpoint(request: CheckpointRequest, *, progress: Any) -> CheckpointInfo:
        asked.append(request)
        return info

    monkeypatch.setattr("clipdeploy.inspect.inspect_checkpoint", inspect_checkpoint)
    return asked


def test_a_checkpoint_with_something_bad(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer_with(monkeypatch, INFO)
    result = run("inspect", "ViT-B-32", "--pretrained", "mine.pt", "--preprocessing", "openai")
    assert asked == [CheckpointRequest("ViT-B-32", pretrained="mine.pt", preprocessing="openai")]
    assert result.exit_code == 1
    assert result.stderr == ""
    for expected in (
        "checkpoint ViT-B-32 (mine.pt)",
        "tiny-linear, D = 16",
        "licence      mit",
        "3 checks: 1 good, 1 note, 1 bad",
        "  note  activation          gelu, from the architecture",
        "fix: fine-tuned? ViT-B-32-quickgelu",
        "  bad   channel statistics  in the order BGR in",
        "fix: turn it round",
    ):
        assert expected in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 126
    answer = run("inspect", "ViT-B-32", "--json")
    assert answer.exit_code == 1
    assert document(answer)["state"] == "bad"
    assert document(answer)["findings"][2]["fix"] == "turn it round"
    assert document(answer)["model"]["embed_dim"] == 16


def test_a_checkpoint_with_nothing_bad(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(monkeypatch, replace(INFO, findings=INFO.findings[:2]))
    assert run("inspect", "ViT-B-32").exit_code == 0
    assert document(run("inspect", "ViT-B-32", "--json"))["state"] == "note"
    assert run("inspect", "ViT-B-32", "--no-hashes").exit_code == 2


def test_a_checkpoint_that_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = Finding("loading", "bad", "weights are missing: visual.proj", "download it again")
    answer_with(monkeypatch, CheckpointInfo("ViT-B-32", None, None, None, (refused,)))
    result = run("inspect", "ViT-B-32")
    assert result.exit_code == 1
    assert result.stdout.startswith("checkpoint ViT-B-32: refused\n  bad   loading  weights are missing: visual.proj\n")
    answer = run("inspect", "ViT-B-32", "--json")
    assert answer.exit_code == 1
    assert document(answer)["model"] is None


def test_a_checkpoint_without_pytorch(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("clipdeploy.export")]:
        monkeypatch.delitem(sys.modules, name)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    said = failure(run("inspect", "ViT-B-32"))
    assert "PyTorch, which is not installed" in said
    assert "pip install 'clipdeploy[export" in said


def test_a_healthy_machine(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    probes = machine(distributions={"onnxruntime": "1.22.0"}, modules={"onnxruntime": Imported(providers=CPU)})
    monkeypatch.setattr(diagnosis, "this_machine", lambda: probes)
    result = run("doctor")
    assert result.exit_code == 0
    assert "No problem found." in result.stdout
    assert "pip install 'clipdeploy[export]'" in result.stdout
    assert document(run("doctor", "--json"))["healthy"] is True


def test_an_ill_machine(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    probes = machine(
        distributions={"onnxruntime": "1.22.0", "onnxruntime-gpu": "1.22.0"},
        modules={"onnxruntime": Imported(providers=CPU)},
        commands={"nvidia-smi": SMI},
    )
    monkeypatch.setattr(diagnosis, "this_machine", lambda: probes)
    result = run("doctor")
    assert result.exit_code == 1
    assert f"pip uninstall -y onnxruntime onnxruntime-gpu && pip install clipdeploy {ORT_CUDA_12}" in result.stdout
    answer = run("doctor", "--json")
    assert answer.exit_code == 1
    assert len(document(answer)["problems"]) == 1


def test_a_bundle_that_is_gone(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    probes = machine(modules={"onnxruntime": Imported(providers=CPU)})
    monkeypatch.setattr(diagnosis, "this_machine", lambda: probes)
    result = run("doctor", "--bundle", tmp_path / "gone")
    assert result.exit_code == 1
    assert "does not exist" in result.stdout
