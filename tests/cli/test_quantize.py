"""clipdeploy quantize, inspect and classify with what it wrote."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="exporting needs the extra: pip install 'clipdeploy[export]'")

from clipdeploy.demo import write_images
from tests.cli.conftest import Run, document, failure

NAMES = "red circle,blue star,green ring"


@pytest.fixture(scope="module")
def demo(demo_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "demo"
    shutil.copytree(demo_bundle, folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("seen"), count=64, split="seen").folder


def test_from_fp32_to_an_answer_in_int8(run: Run, demo: Path, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text(NAMES.replace(",", "\n"))
    given = ("--precision", "int8", "--target", "cpu", "--calibration-data", pictures)
    result = run("quantize", demo, *given, "--labels-file", tmp_path / "labels.txt", "--template", "a {}")
    assert result.exit_code == 0, result.stderr
    for words in ("visual_int8_cpu.onnx: int8 for cpu", "percentile ranges", "chosen", "of 3 labels", "layer1.0"):
        assert words in result.stdout
    assert f"clipdeploy verify {demo} --precision int8" in result.stderr
    assert run("verify", demo, "--precision", "int8").exit_code == 0
    one = next(pictures.rglob("*.jpg"))
    assert run("classify", demo, one, "--labels", NAMES, "--precision", "int8").exit_code == 0
    assert "image fp32, int8 for cpu; text fp32" in run("inspect", demo).stdout
    assert f"bundle {demo} holds visual_int8_cpu.onnx already" in failure(run("quantize", demo, *given))


def test_json(run: Run, demo: Path, pictures: Path) -> None:
    given = ("--precision", "fp16", "--calibration-data", pictures, "--max-drop", "0.001", "--min-top1", "0.9")
    answer = document(run("quantize", demo, *given, "--json"))
    (tower,) = answer["towers"]
    assert (tower["precision"], tower["target"], tower["graph"]) == ("fp16", None, "visual_fp16.onnx")
    assert tower["budget"] == {"cosine_mean": 0.999, "cosine_min": 0.999, "top1": 0.9}
    assert tower["samples"]["held_out"] == 16
    assert "visual_fp16.onnx" in answer["files"]


def test_no_data_and_a_budget_out_of_reach(run: Run, demo: Path, pictures: Path) -> None:
    assert "error: bf16 takes calibration data" in failure(run("quantize", demo, "--precision", "bf16"))
    given = ("--precision", "int8", "--calibration-data", pictures, "--min-cosine", "1")
    told = failure(run("quantize", demo, *given))
    assert "cannot hold its budget" in told
    assert "percentile ranges: 28 layers" in told and "fix: use --precision fp16" in told
    assert not (demo / "visual_int8.onnx").exists()


def test_it_needs_no_pytorch(demo: Path, pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    shutil.copytree(demo, folder)
    given = ["quantize", str(folder), "--precision", "int8", "--calibration-data", str(pictures)]
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'open_clip', 'transformers', 'onnxscript', 'onnxsim'):\n"
        "    sys.modules[name] = None\n"  # an import of it fails
        "from clipdeploy.cli import main\n"
        f"sys.argv[1:] = {given!r}\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (folder / "visual_int8.onnx").is_file()
