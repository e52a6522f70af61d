from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="building engines needs the extra: pip install 'clipdeploy[quantize]'")
pytest.importorskip("onnxruntime", reason="the imagined TensorRT computes with it: pip install 'clipdeploy[cpu]'")

from onnx import helper

from clipdeploy.engine.builder import build as building
from clipdeploy.engine.builder.build import build
from clipdeploy.engine.product import Product, find_product
from clipdeploy.engine.records import BuildMachine, BuildOptions, Built
from clipdeploy.engine_key import Profile
from clipdeploy.errors import EngineError, OutputError
from tests.engine.fake_tensorrt import make
from tests.engine.graphs import matrix, write_beside, write_graph
from tests.fake_gpu import FakeCuda

ALL_RTX = ("8.0", "8.6", "8.9", "12.0", "12.1")


@pytest.fixture(params=["tensorrt-10.3.0", "tensorrt-10.13.3", "tensorrt-11.4.0"])
def full(request: pytest.FixtureRequest) -> Product:
    """TensorRT, imagined from its recorded API."""
    module = make(request.param, cuda=FakeCuda())
    return Product("tensorrt", module, module.__version__)


@pytest.fixture
def rtx() -> Product:
    """TensorRT for RTX itself."""
    pytest.importorskip("tensorrt_rtx", reason="really building needs TensorRT for RTX: pip install tensorrt-rtx")
    return find_product("tensorrt-rtx")


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return write_graph(tmp_path / "in" / "tiny.onnx")


@pytest.fixture
def plan(tmp_path: Path) -> Iterator[Path]:
    """Where an engine goes; the folder holds it or nothing when the test ends, and no builder is at work."""
    folder = tmp_path / "out"
    folder.mkdir()
    yield folder / "engine.plan"
    assert [path.name for path in folder.iterdir()] in ([], ["engine.plan"])
    assert not [thread.name for thread in threading.enumerate() if thread.name == "engine builder"]


def made(graph: Path, plan: Path, product: Product, **options: Any) -> Built:
    machine = BuildMachine() if product.rtx else BuildMachine("8.7")
    return build(graph, plan, BuildOptions(**options), product, machine=machine)


# TensorRT for RTX, really


def test_rtx_builds(graph: Path, plan: Path, rtx: Product) -> None:
    built = made(graph, plan, rtx, profiles=(Profile(1, 8, 32),))
    assert built.path == plan
    assert built.size_bytes == plan.stat().st_size > 1000
    assert built.seconds > 0
    assert built.compute_capabilities == ALL_RTX
    assert built.log[0] == "Layers:"
    assert any("Name: node_product" in line and "LayerType: gemm" in line for line in built.log)
    assert built.warnings == ()


def test_rtx_builds_several_profiles(graph: Path, plan: Path, rtx: Product) -> None:
    built = made(graph, plan, rtx, profiles=(Profile(1, 1, 1), Profile(2, 8, 32)))
    assert sum("node_product [profile 1]" in line for line in built.log) == 1


def test_rtx_builds_for_what_was_named(graph: Path, plan: Path, rtx: Product) -> None:
    built = made(graph, plan, rtx, compute_capabilities=("8.9",))
    assert built.compute_capabilities == ("8.9",)


def test_rtx_builds_the_same_engine_twice(graph: Path, plan: Path, rtx: Product) -> None:
    made(graph, plan, rtx)
    first = plan.read_bytes()
    made(graph, plan, rtx)
    assert plan.read_bytes() == first


def test_rtx_reads_weights_beside_the_graph(tmp_path: Path, plan: Path, rtx: Product) -> None:
    weights = write_beside(tmp_path / "beside.onnx")
    assert made(tmp_path / "beside.onnx", plan, rtx).size_bytes > weights.stat().st_size


def test_rtx_takes_a_graph_of_a_fixed_batch(tmp_path: Path, plan: Path, rtx: Product) -> None:
    four = write_graph(tmp_path / "four.onnx", batch=4)
    assert made(four, plan, rtx, profiles=(Profile(4, 4, 4),)).size_bytes
    with pytest.raises(EngineError, match="takes batches of 4 and no other"):
        made(four, plan, rtx)


@pytest.mark.parametrize(
    ("operator", "domain", "message"),
    [
        ("Wonder", "acme.ai", r"does not know node 'node_last' \(Wonder of acme\.ai\)"),
        ("QuickGelu", "com.microsoft", r"made for ONNX Runtime: node 'node_last' \(QuickGelu of com\.microsoft\)"),
        ("StringNormalizer", "", r"does not compute node 'node_last' \(StringNormalizer\)"),
    ],
)
def test_operators_that_rtx_does_not_have(
    tmp_path: Path, plan: Path, rtx: Product, operator: str, domain: str, message: str
) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="node_product"),
        helper.make_node(operator, ["a"], ["y"], name="node_last", domain=domain),
    ]
    strange = write_graph(tmp_path / "strange.onnx", nodes, domains=(domain,) if domain else ())
    with pytest.raises(EngineError, match=message) as caught:
        made(strange, plan, rtx)
    assert caught.value.fix
    assert not plan.exists()


def test_types_that_rtx_does_not_mix(tmp_path: Path, plan: Path, rtx: Product) -> None:
    mixed = write_graph(tmp_path / "mixed.onnx", stored=[matrix(dtype=np.float16)])
    with pytest.raises(
        EngineError, match=r"node 'node_product' \(MatMul\) mixes types: .*Float and .*Half[\s\S]*quantize"
    ):
        made(mixed, plan, rtx)


def test_a_cut_off_graph(graph: Path, plan: Path, rtx: Product) -> None:
    graph.write_bytes(graph.read_bytes()[:-20])
    with pytest.raises(EngineError, match="is cut off"):
        made(graph, plan, rtx)


def test_rtx_leaves_no_weights_out_without_a_gpu(graph: Path, plan: Path, rtx: Product, capfd: Any) -> None:
    try:
        built = made(graph, plan, rtx, strip_weights=True)
    except EngineError as error:
        assert "leaves weights out only where an NVIDIA GPU" in error.message
    else:
        assert built.size_bytes  # where a driver is, or nothing needed compiling
    capfd.readouterr()


def test_scratch_memory_that_is_too_small(tmp_path: Path, plan: Path, rtx: Product) -> None:
    with pytest.raises(EngineError, match=r"within the scratch memory allowed[\s\S]*--workspace"):
        made(_wide_product(tmp_path), plan, rtx, workspace_bytes=1, profiles=(Profile(1, 8, 4096),))


# stopped, killed, and without room


def test_ctrl_c_ends_the_build(graph: Path, plan: Path, rtx: Product) -> None:
    def interrupt_once(what: str, done: int, total: int) -> None:
        if not sent:
            sent.append(what)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)  # until the main thread has it

    sent: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        build(graph, plan, BuildOptions(), rtx, machine=BuildMachine(), progress=interrupt_once)
    assert sent
    assert "engine builder" not in [thread.name for thread in threading.enumerate()]
    assert not plan.exists()
    made(graph, plan, rtx)  # nothing is left that stands in the way


def test_an_error_of_the_progress_callback_is_not_swallowed(graph: Path, plan: Path, rtx: Product) -> None:
    def broken(what: str, done: int, total: int) -> None:
        raise BrokenPipeError(errno.EPIPE, "nobody reads")

    with pytest.raises(BrokenPipeError):
        build(graph, plan, BuildOptions(), rtx, machine=BuildMachine(), progress=broken)


@pytest.mark.parametrize("moment", ["building", "writing"])
def test_a_killed_build_leaves_no_engine(graph: Path, tmp_path: Path, moment: str) -> None:
    pytest.importorskip("tensorrt_rtx", reason="really building needs TensorRT for RTX: pip install tensorrt-rtx")
    target = tmp_path / "killed.plan"
    script = f"""
        import os, signal
        from contextlib import contextmanager
        from pathlib import Path
        from clipdeploy.engine.builder import build as building
        from clipdeploy.engine.product import find_product
        from clipdeploy.engine.records import BuildMachine, BuildOptions

        def die(*_):
            os.kill(os.getpid(), signal.SIGKILL)

        replacing = building.replacing

        @contextmanager
        def killed(target):
            with replacing(target) as beside:
                yield beside
                die()

        if {moment!r} == "writing":
            building.replacing = killed
        progress = die if {moment!r} == "building" else lambda *_: None
        product = find_product("tensorrt-rtx")
        graph, target = Path({str(graph)!r}), Path({str(target)!r})
        building.build(graph, target, BuildOptions(), product, machine=BuildMachine(), progress=progress)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert not target.exists()


def test_a_full_disk(graph: Path, plan: Path, full: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def full_disk(target: Path) -> Iterator[Path]:
        yield Path("/dev/full")

    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, a device without room, of Linux")
    monkeypatch.setattr(building, "replacing", full_disk)
    with pytest.raises(OutputError, match=r"disk of .*out is full \(No space left on device\): .* MB are needed"):
        made(graph, plan, full)
    assert not plan.exists()


def test_a_folder_that_is_not_there(graph: Path, tmp_path: Path, full: Product) -> None:
    with pytest.raises(OutputError, match="there is no folder"):
        made(graph, tmp_path / "none" / "engine.plan", full)


# TensorRT, imagined


def test_tensorrt_builds(graph: Path, plan: Path, full: Product) -> None:
    built = made(graph, plan, full, profiles=(Profile(1, 8, 32),), detailed=True)
    assert built.size_bytes == plan.stat().st_size
    assert built.compute_capabilities == ("8.7",)
    assert built.log[0] == ("Engine Layer Information:" if full.major == 10 else "Layers:")
    assert any("node_product" in line for line in built.log)


def test_tensorrt_tells_its_stages(graph: Path, plan: Path, full: Product) -> None:
    news: list[tuple[str, int, int]] = []
    machine = BuildMachine("8.7")
    build(graph, plan, BuildOptions(), full, machine=machine, progress=lambda *what: news.append(what))
    assert news[0] == ("tiny.onnx: reading the graph", 0, 0)
    assert ("tiny.onnx: choosing kernels", 2, 3) in news


def test_tensorrt_keeps_its_timings(graph: Path, plan: Path, tmp_path: Path, full: Product) -> None:
    cache = tmp_path / "timing.cache"
    made(graph, plan, full, timing_cache=cache)
    first = cache.read_bytes()
    made(graph, plan, full, timing_cache=cache)
    assert cache.read_bytes().startswith(first)
    other = Product("tensorrt", full.module, "10.99.0")
    with pytest.raises(EngineError, match=r"is of another machine: version .*, here 10\.99\.0"):
        made(graph, plan, other, timing_cache=cache)


def test_timings_that_cannot_be_written_cost_no_engine(
    graph: Path, plan: Path, tmp_path: Path, full: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OutputError("cannot write the timing cache: No space left on device")

    monkeypatch.setattr(building, "save_cache", refuse)
    built = made(graph, plan, full, timing_cache=tmp_path / "timing.cache")
    assert plan.stat().st_size == built.size_bytes
    assert built.warnings == ("cannot write the timing cache: No space left on device",)


def test_a_stopped_build_keeps_no_timings(graph: Path, plan: Path, tmp_path: Path, full: Product) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if what.endswith("choosing kernels"):
            raise KeyboardInterrupt

    cache = tmp_path / "timing.cache"
    with pytest.raises(KeyboardInterrupt):
        build(graph, plan, BuildOptions(timing_cache=cache), full, machine=BuildMachine("8.7"), progress=stop)
    assert not plan.exists() and not cache.exists()


def test_tensorrt_without_a_gpu(graph: Path, plan: Path) -> None:
    module = make("tensorrt-10.3.0")
    product = Product("tensorrt", module, module.__version__)
    with pytest.raises(EngineError, match=r"finds no GPU[\s\S]*--backend tensorrt-rtx builds without"):
        made(graph, plan, product)


def test_a_machine_without_memory_is_told_before_the_build(graph: Path, plan: Path, full: Product) -> None:
    machine = BuildMachine("8.7", free_bytes=100, gpu_free_bytes=100, jetson=True)
    with pytest.raises(EngineError, match=r"takes about 1\.6 GiB of memory, 0 MiB are free"):
        build(graph, plan, BuildOptions(), full, machine=machine)
    machine = BuildMachine("8.7", free_bytes=10**9, gpu_free_bytes=10**9, jetson=True)
    built = build(graph, plan, BuildOptions(), full, machine=machine)
    assert "954 MiB are free: it may fail for want of memory" in built.warnings[0]


def _wide_product(folder: Path) -> Path:
    """A matrix product of a width that needs scratch memory."""
    from onnx import TensorProto, numpy_helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 512]) for name in ("x", "y")]
    weight = numpy_helper.from_array(np.ones((512, 512), np.float32), "w")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="node_product"),
        helper.make_node("Softmax", ["a"], ["b"], name="node_softmax"),
        helper.make_node("MatMul", ["b", "w"], ["y"], name="node_last"),
    ]
    made = helper.make_graph(nodes, "wide", values[:1], values[1:], [weight])
    path = folder / "wide.onnx"
    path.write_bytes(
        helper.make_model(made, opset_imports=[helper.make_opsetid("", 19)], ir_version=9).SerializeToString()
    )
    return path


class GpuOfEachThread(FakeCuda):
    """CUDA's current GPU is the thread's own, and the first one in a new thread."""

    def __init__(self) -> None:
        self._current = threading.local()
        super().__init__()
        self.devices = 2

    @property
    def device(self) -> int:
        return getattr(self._current, "index", 0)

    @device.setter
    def device(self, index: int) -> None:
        self._current.index = index


def test_the_gpu_of_the_caller_builds(full: Product, graph: Path, plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, seen = GpuOfEachThread(), []
    cuda.device = 1
    monkeypatch.setattr("clipdeploy.runtime.trt.gpus.find_cuda", lambda: cuda)
    build(graph, plan, BuildOptions(), full, machine=BuildMachine("8.7"), progress=lambda *_: seen.append(cuda.device))
    assert set(seen) == {1}
    assert cuda.device == 1
