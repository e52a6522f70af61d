"""clipdeploy check."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("onnx_ir", reason="checking graphs needs the extra: pip install 'clipdeploy[export]'")

from tests.building.folders import put_graph
from tests.bundles import make_bundle
from tests.cli.conftest import Run, document, failure


def test_what_an_orin_takes(run: Run, bundle: Path) -> None:
    result = run("check", bundle, "--target", "agx orin")
    assert result.exit_code == 0, result.stderr
    assert f"{bundle} on TensorRT 10.3, sm_87 (Jetson AGX Orin)" in result.stdout
    assert "JetPack 6 brings TensorRT 10.3" in result.stdout
    lines = [line.split() for line in result.stdout.splitlines()]
    assert next(line for line in lines if line and line[0] == "visual.onnx")[-1] == "accepted"
    assert "FP8 needs compute capability 8.9" in result.stdout
    assert f"clipdeploy quantize {bundle} --precision fp16 --tower image" in result.stdout


def test_json(run: Run, bundle: Path) -> None:
    answer = document(run("check", bundle, "--target", "tensorrt 10.3, sm_87", "--json"))
    assert answer["passed"] is True and answer["target"] == "TensorRT 10.3, sm_87"
    first = answer["graphs"][0]
    assert (first["name"], first["verdict"], first["precision"], first["tower"]) == (
        "visual.onnx",
        "accepted",
        "fp32",
        "image",
    )
    assert {graph["verdict"] for graph in answer["graphs"]} == {"accepted", "absent"}


@pytest.mark.parametrize("precision", ["fp8", "fp16"])
def test_what_is_asked_for_and_not_accepted_fails(run: Run, bundle: Path, precision: str) -> None:
    result = run("check", bundle, "--target", "tensorrt 10.3, sm_87", "--precision", precision, "--tower", "image")
    assert result.exit_code == 1
    assert "not in the bundle" in result.stdout
    assert "textual" not in result.stdout


def test_a_gpu_that_is_not_built_for(run: Run, bundle: Path) -> None:
    result = run("check", bundle, "--target", "tensorrt-rtx 1.7, sm_87")
    assert result.exit_code == 1
    assert "TensorRT for RTX builds for no such GPU" in result.stdout
    assert "fix: build with TensorRT for it" in result.stdout
    assert result.stdout.count("refused") == 2


def test_the_name_of_a_pattern_is_what_allow_takes(run: Run, tmp_path: Path) -> None:
    import numpy as np
    from onnx import helper

    angles = np.linspace(0.1, 3, 32, dtype=np.float32).reshape(1, 1, 1, 32)
    nodes = [
        helper.make_node("Neg", ["pixel_values"], ["turned"]),
        helper.make_node("Mul", ["pixel_values", "cos"], ["a"]),
        helper.make_node("Mul", ["turned", "sin"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["rotated"], name="rotate"),
        helper.make_node("Flatten", ["rotated"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["image_embeds"]),
    ]
    constants = {"cos": np.cos(angles), "sin": np.sin(angles), "weights": np.ones((3072, 16), np.float32)}
    folder = put_graph(make_bundle(tmp_path / "rotary"), nodes, constants)
    result = run("check", folder, "--target", "tensorrt 10.3, sm_87", "--tower", "image")
    assert result.exit_code == 1
    assert "refused: rotary-vit" in result.stdout and "--allow rotary-vit" in " ".join(result.stdout.split())


def test_a_target_that_makes_no_sense(run: Run, bundle: Path) -> None:
    told = failure(run("check", bundle, "--target", "toaster"))
    assert "'toaster' is not known" in told and '"tensorrt 10.3, sm_87"' in told
    assert run("check", bundle).exit_code == 2
