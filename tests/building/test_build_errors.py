"""What goes wrong while engines are built, with the real builder: a clear message, and the bundle as it was."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx", reason="the tiny bundles are written with onnx")
pytest.importorskip("onnx_ir", reason="building needs the extra: pip install 'clipdeploy[engine]'")

import numpy as np
from onnx import helper

from clipdeploy.building.job import build_engines
from clipdeploy.engine_key import EngineBackend, Profile
from clipdeploy.errors import BundleCorruptError, EngineError
from clipdeploy.spec import Tower
from tests.building.folders import content, hidden, put_file, put_graph
from tests.bundles import make_bundle
from tests.engine.products import BACKENDS, need, options, request

LAYERS = 200


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> EngineBackend:
    return need(request.param)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "tiny")


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose image encoder takes a builder some seconds: a stack of convolutions, each of another width."""
    folder = make_bundle(tmp_path_factory.mktemp("heavy") / "bundle")
    rng = np.random.default_rng(0)
    nodes, constants, name, channels = [], {}, "pixel_values", 3
    for index in range(LAYERS):
        width = 8 + 8 * (index % 13)
        weights = rng.standard_normal((width, channels, 3, 3)) / np.sqrt(9.0 * channels)
        constants[f"w{index}"] = weights.astype(np.float32)
        nodes.append(helper.make_node("Conv", [name, f"w{index}"], [f"c{index}"], pads=[1] * 4, name=f"conv{index}"))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"], name=f"relu{index}"))
        name, channels = f"r{index}", width
    constants["head"] = rng.standard_normal((channels, 16)).astype(np.float32)
    nodes += [
        helper.make_node("GlobalAveragePool", [name], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], axis=1, name="flatten"),
        helper.make_node("MatMul", ["flat", "head"], ["image_embeds"], name="project"),
    ]
    return put_graph(folder, nodes, constants)


def fails(bundle: Path, backend: EngineBackend, message: str, **more: Any) -> EngineError:
    """Building the image encoder is refused, and leaves no trace."""
    before = content(bundle)
    with pytest.raises(EngineError, match=message) as caught:
        build_engines(request(bundle, backend, towers=(Tower.IMAGE,), **more))
    assert content(bundle) == before
    assert not [name for name in hidden(bundle) if name.endswith(".work")]
    assert caught.value.fix
    return caught.value


def test_an_operator_that_nobody_knows(bundle: Path, backend: EngineBackend) -> None:
    nodes = [
        helper.make_node("Flatten", ["pixel_values"], ["flat"], axis=1, name="flatten"),
        helper.make_node("Frobnicate", ["flat"], ["odd"], name="/visual/odd"),
        helper.make_node("MatMul", ["odd", "weights"], ["image_embeds"], name="project"),
    ]
    put_graph(bundle, nodes, {"weights": np.ones((3 * 32 * 32, 16), np.float32)})
    error = fails(bundle, backend, "Frobnicate")
    assert "/visual/odd" in error.message and error.fix and "Frobnicate" in error.fix


def test_a_truncated_graph(bundle: Path, backend: EngineBackend) -> None:
    """Truncated behind the bundle's back, and truncated when the bundle took it in."""
    graph, whole = bundle / "visual.onnx", (bundle / "visual.onnx").read_bytes()
    graph.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BundleCorruptError, match=r"visual\.onnx is truncated"):
        build_engines(request(bundle, backend, towers=(Tower.IMAGE,)))
    graph.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(BundleCorruptError, match=r"visual\.onnx is altered"):
        build_engines(request(bundle, backend, towers=(Tower.IMAGE,)))
    graph.write_bytes(whole)
    short = bundle.parent / "short.onnx"
    short.write_bytes(whole[: len(whole) // 2])
    put_file(bundle, short)
    fails(bundle, backend, r"visual\.onnx is cut off")


def test_a_batch_that_the_graph_does_not_take(bundle: Path, backend: EngineBackend) -> None:
    nodes = [
        helper.make_node("Flatten", ["pixel_values"], ["flat"], axis=1, name="flatten"),
        helper.make_node("MatMul", ["flat", "weights"], ["image_embeds"], name="project"),
    ]
    put_graph(bundle, nodes, {"weights": np.ones((3 * 32 * 32, 16), np.float32)}, batch=4)
    error = fails(bundle, backend, "takes batches of 4 and no other, asked for 1,8,32")
    assert "--batch 4" in str(error.fix)
    fixed = replace(options(backend), profiles=(Profile(4, 4, 4),))
    outcome = build_engines(request(bundle, backend, towers=(Tower.IMAGE,), options=fixed))
    assert outcome.engines[0].built


def command(bundle: Path, backend: EngineBackend, *more: str) -> list[str]:
    capability = [f"--compute-capability={name}" for name in options(backend).compute_capabilities]
    given = ["--tower", "image", "--backend", backend, "--batch", "1,8,32", *capability, *more]
    return [sys.executable, "-m", "clipdeploy", "build-engine", str(bundle), *given]


def run(bundle: Path, backend: EngineBackend, *more: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(bundle, backend, *more), capture_output=True, text=True, check=False, **kwargs)


def copied(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


def test_two_builds_of_one_key(heavy: Path, backend: EngineBackend, tmp_path: Path) -> None:
    """One builds, the other waits and finds the engine."""
    bundle = copied(heavy, tmp_path)
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(command(bundle, backend, "--json"), **pipes) for _ in range(2)]
    answers = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0], answers
    engines = [json.loads(out)["engines"][0] for out, _ in answers]
    assert sorted(engine["built"] for engine in engines) == [False, True]
    assert engines[0]["key"] == engines[1]["key"]
    assert len([name for name in content(bundle) if name.endswith("engine.plan")]) == 1
    assert hidden(bundle) == []


def wait_for_work(bundle: Path, process: subprocess.Popen[bytes]) -> None:
    """Until the build has its folder: the builder is about to start."""
    until = time.monotonic() + 120
    while not any(name.endswith(".work") for name in hidden(bundle)):
        assert process.poll() is None and time.monotonic() < until, "the build never began"
        time.sleep(0.01)


@pytest.mark.parametrize("after_s", [0.0, 0.3, 1.0])
def test_a_killed_build(heavy: Path, backend: EngineBackend, tmp_path: Path, after_s: float) -> None:
    """At once, while the graph is read, while kernels are made."""
    bundle = copied(heavy, tmp_path)
    before = content(bundle)
    process = subprocess.Popen(command(bundle, backend), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_work(bundle, process)
    time.sleep(after_s)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert content(bundle) == before
    assert run(bundle, backend).returncode == 0
    assert set(content(bundle)) > set(before)
    assert hidden(bundle) == []


def test_ctrl_c(heavy: Path, backend: EngineBackend, tmp_path: Path) -> None:
    bundle = copied(heavy, tmp_path)
    before = content(bundle)
    process = subprocess.Popen(command(bundle, backend), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for_work(bundle, process)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert b"interrupted" in told and b"Traceback" not in told
    assert content(bundle) == before
    assert hidden(bundle) == []


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
from clipdeploy.cli import main
main()
"""


def test_no_room_for_the_engine(bundle: Path, backend: EngineBackend) -> None:
    """A file may not grow beyond a few kB, which fails a write halfway as a full disk does."""
    before = content(bundle)
    arguments = command(bundle, backend)[3:]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "20000", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "error: cannot write the engine" in done.stderr
    assert content(bundle) == before
    assert hidden(bundle) == []


FULL = """
mount -t tmpfs -o size={size} tmpfs "$1" && cp -r "$2"/. "$1" && shift 2 || exit 77
"$@"
code=$?
test -z "$(ls -d bundle/.*.work bundle/engines 2>/dev/null)" || exit 78
exit $code
"""


def test_a_full_disk(bundle: Path, backend: EngineBackend, tmp_path: Path) -> None:
    """A disk of a few hundred kB of our own, that takes the bundle and not the engine."""
    place = tmp_path / "disk"
    place.mkdir()
    size = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file()) + 100_000
    script = FULL.format(size=size).replace("bundle/", f"{place}/")
    given = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(place), str(bundle)]
    if shutil.which("unshare") is None:
        pytest.skip("a disk of our own takes unshare, of util-linux")
    done = subprocess.run([*given, *command(place, backend)], capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip(f"this system gives nobody a disk of their own: {done.stderr.strip()}")
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert "is full" in done.stderr and "fix: free" in done.stderr
