"""A device: fresh virtual environments with the base install and one extra each prove the lines of the docs."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from clipdeploy.demo import class_names

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs/runtime.md")
MAX_MB = {"": 130, "cpu": 215, "openvino": 350}
"""Of all that pip installs, as Python has compiled it."""
PIP_ITSELF = ("pip", "setuptools", "pkg_resources", "_distutils_hack")
"""What an environment holds before, by how the names begin."""
MAX_IMPORT_MS = 150
NEVER = {"torch", "onnx", "onnxscript", "open-clip-torch", "transformers", "tensorrt"}
ENGINES = {"onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt-rtx", "cuda-python"}
# `gpu` is 200 MB and more, and its wheels stand beside those of `cpu`; `tensorrt` comes from NVIDIA's own index.
NOT_HERE = {"gpu", "tensorrt"}
X86_LINUX = sys.platform == "linux" and platform.machine() == "x86_64"

Device = Callable[[str], Path]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it would be published."""
    folder = tmp_path_factory.mktemp("wheel")
    pip(sys.executable, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Device:
    """`bin/` of a fresh environment with an extra, or with none, made once."""
    made: dict[str, Path] = {}

    def device(extra: str = "") -> Path:
        if extra not in made:
            folder = tmp_path_factory.mktemp(extra or "base") / "venv"
            venv.create(folder, with_pip=True)
            pip(folder / "bin/python", "install", "--quiet", f"{wheel}[{extra}]" if extra else wheel)
            made[extra] = folder / "bin"
        return made[extra]

    return device


def pip(python: str | Path, *arguments: str | Path) -> None:
    """Run it, or skip where nothing can be installed."""
    command = [str(python), "-m", "pip", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "NewConnectionError" in done.stderr:
        pytest.skip("no package index can be reached, so nothing can be installed")
    assert done.returncode == 0, done.stderr


def ask(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command away from the checkout, and from what this machine remembers."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "CLIPDEPLOY_CACHE")}
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, cwd="/", env=clean)


def run(*command: str | Path) -> str:
    """Standard output of a command that must succeed."""
    done = ask(*command)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(*command: str | Path) -> str:
    """What a command tells on standard error that must fail, in words."""
    done = ask(*command)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def packages(device: Path) -> set[str]:
    listed = json.loads(run(device / "python", "-m", "pip", "list", "--format", "json"))
    return {package["name"].lower().replace("_", "-") for package in listed}


def classified(device: Path, bundle: Path, picture: Path, *options: str) -> dict[str, object]:
    """What `clipdeploy classify` answers to a red circle."""
    code = (
        "import sys; from clipdeploy.demo import render, single_scene;"
        "render(single_scene(1, ('red', 'circle'), clear=True), (320, 240)).save(sys.argv[1])"
    )
    run(device / "python", "-c", code, picture)
    labels = ",".join(class_names())
    answer: dict[str, object] = json.loads(
        run(device / "clipdeploy", "classify", bundle, picture, "--labels", labels, "--json", *options)
    )
    return answer


@pytest.mark.parametrize(("extra", "engine"), [("", set()), ("cpu", {"onnxruntime"}), ("openvino", {"openvino"})])
def test_it_holds_one_engine_no_pytorch_and_is_light(device: Device, extra: str, engine: set[str]) -> None:
    there = packages(device(extra))
    assert not there & NEVER
    assert there & ENGINES == engine
    (installed,) = device(extra).parent.glob("lib/python*/site-packages")
    size = sum(
        path.stat().st_size
        for package in installed.iterdir()
        if not package.name.startswith(PIP_ITSELF)
        for path in (package, *package.rglob("*"))
        if path.is_file()
    )
    assert size / 1e6 < MAX_MB[extra]


@pytest.mark.parametrize("extra", ["", "openvino"])
def test_it_imports_in_a_blink(device: Device, extra: str) -> None:
    """Median over interleaved fresh processes, of the time beyond `import numpy`: no engine is loaded with it."""

    def import_ms(module: str) -> float:
        code = f"import time; t = time.perf_counter(); import {module}; print((time.perf_counter() - t) * 1e3)"
        return float(run(device(extra) / "python", "-c", code))

    import_ms("clipdeploy")
    beyond = [import_ms("clipdeploy") - import_ms("numpy") for _ in range(7)]
    assert statistics.median(beyond) < MAX_IMPORT_MS


@pytest.mark.parametrize("backend", ["auto", "onnxruntime", "openvino"])
def test_the_base_names_the_line_that_installs_an_engine(device: Device, demo_bundle: Path, backend: str) -> None:
    told = refused(device("") / "clipdeploy", "verify", demo_bundle, "--backend", backend)
    extra = "openvino" if backend == "openvino" else "cpu"
    assert f"pip install 'clipdeploy[{extra}]'" in told


@pytest.mark.parametrize("backend", ["onnxruntime:cuda", "onnxruntime:tensorrt", "tensorrt", "tensorrt-rtx"])
def test_the_base_says_what_an_nvidia_backend_lacks(device: Device, demo_bundle: Path, backend: str) -> None:
    assert "fix:" in refused(device("") / "clipdeploy", "verify", demo_bundle, "--backend", backend)


@pytest.mark.parametrize(("extra", "backend"), [("cpu", "onnxruntime"), ("openvino", "openvino")])
def test_it_verifies_a_bundle(device: Device, demo_bundle: Path, extra: str, backend: str) -> None:
    report = json.loads(run(device(extra) / "clipdeploy", "verify", demo_bundle, "--backend", backend, "--json"))
    assert report["passed"] is True
    assert report["reference"] == "golden"


@pytest.mark.parametrize(("extra", "options"), [("cpu", []), ("openvino", ["--backend", "openvino"]), ("openvino", [])])
def test_it_classifies_a_picture(
    device: Device, demo_bundle: Path, tmp_path: Path, extra: str, options: list[str]
) -> None:
    """Where one engine is installed, `auto` takes it."""
    answer = classified(device(extra), demo_bundle, tmp_path / "picture.jpg", *options)
    (result,) = answer["results"]  # type: ignore[misc]
    assert result["label"] == "red circle"
    assert extra == "cpu" or "openvino" in json.dumps(answer)


def test_it_brings_the_demo_models(device: Device) -> None:
    code = "from clipdeploy.demo import MODELS, model_path; print(*map(model_path, MODELS), sep='\\n')"
    for folder in run(device("cpu") / "python", "-c", code).splitlines():
        assert Path(folder).is_relative_to(device("cpu").parent)


def test_exporting_names_the_extra(device: Device, tmp_path: Path) -> None:
    export = ("export", "ViT-B-32", "--random-weights", "-o", tmp_path / "out")
    assert "pip install 'clipdeploy[export]'" in refused(device("cpu") / "clipdeploy", *export)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(not X86_LINUX, reason="NVIDIA makes TensorRT for RTX for x86 machines")
def test_tensorrt_rtx_installs_and_says_what_it_needs(device: Device, demo_bundle: Path) -> None:
    """A test machine has no RTX GPU, or no engine built for it: either is told, with what to do."""
    there = packages(device("tensorrt-rtx"))
    assert {"tensorrt-rtx", "cuda-python"} <= there
    assert not there & NEVER
    told = refused(device("tensorrt-rtx") / "clipdeploy", "verify", demo_bundle, "--backend", "tensorrt-rtx")
    assert "fix:" in told
    assert "GPU" in told or "build-engine" in told


def test_the_docs_name_no_extra_that_is_not_there() -> None:
    named = {
        extra.strip()
        for page in PAGES
        for extras in re.findall(r"clipdeploy\[([a-z,\- ]+)\]", page.read_text(encoding="utf-8"))
        for extra in extras.split(",")
    }
    offered = set(re.findall(r"^([a-z-]+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE))
    assert named <= offered
    assert named & {"cpu", "openvino", "tensorrt-rtx", *NOT_HERE} == {"cpu", "openvino", "tensorrt-rtx", *NOT_HERE}
