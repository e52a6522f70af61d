"""clipdeploy inspect and clipdeploy doctor."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from clipdeploy.doctor import diagnosis
from tests.cli.conftest import Run, document, failure
from tests.test_doctor import CPU, SMI, Imported, machine


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
    assert "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'clipdeploy[gpu]'" in result.stdout
    answer = run("doctor", "--json")
    assert answer.exit_code == 1
    assert len(document(answer)["problems"]) == 1


def test_a_bundle_that_is_gone(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    probes = machine(modules={"onnxruntime": Imported(providers=CPU)})
    monkeypatch.setattr(diagnosis, "this_machine", lambda: probes)
    result = run("doctor", "--bundle", tmp_path / "gone")
    assert result.exit_code == 1
    assert "does not exist" in result.stdout
