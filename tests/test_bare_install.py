"""A device: a fresh virtual environment with the base install and the `cpu` extra, nothing else."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import venv
from pathlib import Path

import pytest

from clipdeploy.demo import class_names

ROOT = Path(__file__).resolve().parents[1]
MAX_MB = 250
MAX_IMPORT_MS = 150


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bin/` of the fresh environment."""
    folder = tmp_path_factory.mktemp("device") / "venv"
    venv.create(folder, with_pip=True)
    install = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--no-cache-dir", f"{ROOT}[cpu]"]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode and "NewConnectionError" in done.stderr:
        pytest.skip("no package index can be reached, so nothing can be installed")
    assert done.returncode == 0, done.stderr
    return folder / "bin"


def run(*command: str | Path) -> str:
    """Standard output of a command that must succeed, away from the checkout."""
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, cwd="/", env=clean)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_holds_no_pytorch_and_is_light(device: Path) -> None:
    packages = {p["name"].lower() for p in json.loads(run(device / "python", "-m", "pip", "list", "--format", "json"))}
    assert not packages & {"torch", "onnx", "onnxscript", "open-clip-torch", "transformers"}
    size = sum(p.lstat().st_size for p in device.parent.rglob("*") if p.is_file() and not p.is_symlink())
    assert size / 1e6 < MAX_MB


def test_it_imports_in_a_blink(device: Path) -> None:
    """Median over interleaved fresh processes, of the time beyond `import numpy`."""

    def import_ms(module: str) -> float:
        code = f"import time; t = time.perf_counter(); import {module}; print((time.perf_counter() - t) * 1e3)"
        return float(run(device / "python", "-c", code))

    import_ms("clipdeploy")
    beyond = [import_ms("clipdeploy") - import_ms("numpy") for _ in range(7)]
    assert statistics.median(beyond) < MAX_IMPORT_MS


def test_it_verifies_a_bundle(device: Path, demo_bundle: Path) -> None:
    report = json.loads(run(device / "clipdeploy", "verify", demo_bundle, "--json"))
    assert report["passed"] is True
    assert report["reference"] == "golden"


def test_it_classifies_a_picture(device: Path, demo_bundle: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from clipdeploy.demo import render, single_scene;"
        "render(single_scene(1, ('red', 'circle'), clear=True), (320, 240)).save(sys.argv[1])"
    )
    picture = tmp_path / "picture.jpg"
    run(device / "python", "-c", code, picture)
    labels = ",".join(class_names())
    answer = json.loads(run(device / "clipdeploy", "classify", demo_bundle, picture, "--labels", labels, "--json"))
    assert answer["results"][0]["label"] == "red circle"


def test_it_brings_the_demo_models(device: Path) -> None:
    code = "from clipdeploy.demo import MODELS, model_path; print(*map(model_path, MODELS), sep='\\n')"
    for folder in run(device / "python", "-c", code).splitlines():
        assert Path(folder).is_relative_to(device.parent)


def test_exporting_names_the_extra(device: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [device / "clipdeploy", "export", "ViT-B-32", "--random-weights", "-o", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install 'clipdeploy[export]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
