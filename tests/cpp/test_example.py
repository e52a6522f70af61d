"""examples/cpp: compiled as it stands, and run over stand-ins for TensorRT and the CUDA runtime.

With NVIDIA's own headers, in the system's folders or where `TENSORRT_INCLUDE` and `CUDA_INCLUDE` say, it is compiled
against those too.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "examples/cpp/main.cpp"
HERE = Path(__file__).parent
COMPILER = shutil.which(os.environ.get("CXX", "g++"))
STRICT = ["-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler: sudo apt-get install g++")


def compile_it(*arguments: str | Path) -> None:
    assert COMPILER is not None
    done = subprocess.run([COMPILER, *STRICT, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with stand-ins, and with the compiler's own guards against misused memory."""
    path = tmp_path_factory.mktemp("cpp") / "clip_frames"
    includes = [f"-I{HERE / 'tensorrt'}", f"-I{HERE / 'cuda'}"]
    compile_it("-g", "-fsanitize=address,undefined", *includes, SOURCE, HERE / "stand_ins.cpp", "-o", path)
    return path


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """An engine for 4 x 2 frames, its labels, a picture that is mostly red, and a raw frame that is mostly blue."""
    (tmp_path / "engine.plan").write_text("2 4\n")
    (tmp_path / "labels.txt").write_text("a red door\ngreen\r\nblue\n")
    (tmp_path / "red.ppm").write_bytes(b"P6\n# of a camera\n4 2\n255\n" + bytes([90, 10, 0] * 8))
    (tmp_path / "blue.raw").write_bytes(bytes([1, 2, 97] * 8))
    return tmp_path


def run(program: Path, folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        timeout=30,
    )


def test_pictures_and_raw_frames(program: Path, files: Path) -> None:
    done = run(program, files, "engine.plan", "labels.txt", "red.ppm", "blue.raw")
    assert done.returncode == 0, done.stderr
    told = [re.sub(r" \(\d+\.\d\d ms\)$", "", line) for line in done.stdout.splitlines()]
    assert told == ["red.ppm: a red door 0.9000", "blue.raw: blue 0.9700"]
    assert done.stderr == "TensorRT: a stand-in\n"  # a warning is shown, what is less is not


def test_an_engine_of_bgr_frames(program: Path, files: Path) -> None:
    done = run(program, files, "--bgr", "engine.plan", "labels.txt", "red.ppm")
    assert done.stdout.startswith("red.ppm: blue 0.9000")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("nowhere.plan", "labels.txt", "red.ppm"), "nowhere.plan: cannot be opened"),
        (("engine.plan", "nowhere.txt", "red.ppm"), "nowhere.txt: cannot be opened"),
        (("labels.txt", "labels.txt", "red.ppm"), "labels.txt: no engine of this TensorRT version and GPU"),
        (("engine.plan", "two.txt", "red.ppm"), "two.txt: has 2 labels, the engine 3"),
        (("engine.plan", "labels.txt", "nowhere.ppm"), "nowhere.ppm: cannot be opened"),
        (("engine.plan", "labels.txt", "text.ppm"), "text.ppm: not a P6 picture"),
        (("engine.plan", "labels.txt", "empty.ppm"), "empty.ppm: not a P6 picture"),
        (("engine.plan", "labels.txt", "large.ppm"), "large.ppm: has 8x2 pixels up to 255, the engine takes 4x2"),
        (("engine.plan", "labels.txt", "deep.ppm"), "deep.ppm: has 4x2 pixels up to 65535"),
        (("engine.plan", "labels.txt", "short.ppm"), "short.ppm: ends too early"),
        (("engine.plan", "labels.txt", "two.txt"), "a frame has 4 bytes, the engine takes 24"),
    ],
)
def test_what_is_wrong_is_told(program: Path, files: Path, words: tuple[str, ...], complaint: str) -> None:
    (files / "two.txt").write_text("a\nb\n")
    (files / "text.ppm").write_text("P3 4 2 255")
    (files / "empty.ppm").write_text("")
    (files / "large.ppm").write_bytes(b"P6 8 2 255\n" + bytes(48))
    (files / "deep.ppm").write_bytes(b"P6 4 2 65535\n" + bytes(48))
    (files / "short.ppm").write_bytes(b"P6 4 2 255\n" + bytes(23))
    done = run(program, files, *words)
    assert done.returncode == 1
    assert f"clip_frames: {complaint}" in done.stderr


def test_without_a_gpu_and_without_arguments(program: Path, files: Path) -> None:
    done = run(program, files, "engine.plan", "labels.txt", "red.ppm", NO_GPU="1")
    assert (done.returncode, done.stderr) == (1, "clip_frames: the GPU cannot be used: no device\n")
    done = run(program, files, "engine.plan", "labels.txt")
    assert (done.returncode, done.stderr) == (2, "usage: clip_frames ENGINE LABELS FRAME... [--bgr]\n")


def found(variable: str, name: str, *folders: str) -> Path | None:
    places = [os.environ.get(variable, ""), *folders]
    return next((Path(place) for place in places if place and (Path(place) / name).exists()), None)


def cuda() -> Path:
    folder = found("CUDA_INCLUDE", "cuda_runtime_api.h", "/usr/local/cuda/include", "/usr/include")
    return folder or pytest.skip("no cuda_runtime_api.h: install the CUDA toolkit, or set CUDA_INCLUDE")


def test_cudas_own_header() -> None:
    compile_it("-fsyntax-only", "-isystem", cuda(), f"-I{HERE / 'tensorrt'}", SOURCE)


def test_nvidias_own_headers() -> None:
    system = ("/usr/include/x86_64-linux-gnu", "/usr/include/aarch64-linux-gnu", "/usr/include")
    tensorrt = found("TENSORRT_INCLUDE", "NvInfer.h", *system)
    if tensorrt is None:
        pytest.skip("no NvInfer.h: install TensorRT's development package, or set TENSORRT_INCLUDE")
    compile_it("-fsyntax-only", "-isystem", cuda(), "-isystem", tensorrt, SOURCE)


def test_cmake_builds_it(tmp_path: Path) -> None:
    """With the real CUDA toolkit, and the stand-in as a TensorRT in a folder of its own."""
    if shutil.which("cmake") is None or found("CUDA_INCLUDE", "cuda_runtime_api.h", "/usr/local/cuda/include") is None:
        pytest.skip("needs cmake and the CUDA toolkit")
    root, build = tmp_path / "tensorrt", tmp_path / "build"
    shutil.copytree(HERE / "tensorrt", root / "include")
    (root / "lib").mkdir()
    includes = [f"-I{HERE / 'tensorrt'}", f"-I{HERE / 'cuda'}"]
    compile_it("-shared", "-fPIC", *includes, HERE / "stand_ins.cpp", "-o", root / "lib/libnvinfer.so")
    for command in (
        [
            "cmake",
            "-S",
            SOURCE.parent,
            "-B",
            tmp_path / "build",
            f"-DTENSORRT_ROOT={root}",
            "-DCMAKE_CXX_FLAGS=-Werror",
        ],
        ["cmake", "--build", build],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run([build / "clip_frames"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.split()[0]) == (2, "usage:")


PYTHON_NAMES = {
    "getTensorShape": "get_tensor_shape",
    "getTensorDataType": "get_tensor_dtype",
    "getIOTensorName": "get_tensor_name",
    "getNbIOTensors": "num_io_tensors",
    "createExecutionContext": "create_execution_context",
    "deserializeCudaEngine": "deserialize_cuda_engine",
    "setInputShape": "set_input_shape",
    "setTensorAddress": "set_tensor_address",
    "enqueueV3": "execute_async_v3",
}


@pytest.mark.parametrize("version", ["10.3.0", "10.13.3", "11.4.0"])
def test_every_call_is_in_the_tensorrts_that_we_support(version: str) -> None:
    """By the Python name of each, as recorded from NVIDIA's bindings; the C++ names are those of one interface."""
    text = SOURCE.read_text(encoding="utf-8")
    used = set(re.findall(r"(?:runtime|engine|context)_->(\w+)\(", text))
    assert used == set(PYTHON_NAMES)
    recorded = (ROOT / f"tests/engine/api/tensorrt-{version}.json").read_text(encoding="utf-8")
    assert json.loads(recorded)
    for name in used:
        assert f'"{PYTHON_NAMES[name]}"' in recorded, name


def test_it_stays_short() -> None:
    assert len(SOURCE.read_text(encoding="utf-8").splitlines()) < 200
