"""Builder, runtime and refit, whole, over each version's recorded API: what is missing on JetPack 6 fails here."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the tiny bundles are written with onnx")
pytest.importorskip("onnxruntime", reason="the imagined GPU computes with it: pip install 'clipdeploy[cpu]'")

import onnx

import clipdeploy
from clipdeploy.building.job import build_engines
from clipdeploy.building.records import BuildRequest
from clipdeploy.bundle import Bundle
from clipdeploy.engine.builder.build import build
from clipdeploy.engine.builder.config import flags
from clipdeploy.engine.layers.read import read_inspector, read_layers
from clipdeploy.engine.product import Product, find_product
from clipdeploy.engine.records import BuildMachine, BuildOptions, EngineRecord, LayerReport
from clipdeploy.engine.store import add_engine
from clipdeploy.engine_key import EngineKey, Profile
from clipdeploy.errors import ClipdeployError, EngineError
from clipdeploy.machine import Gpu, Hardware
from clipdeploy.runtime.engines import Here, engine_graph, graph_sha256
from clipdeploy.runtime.tensorrt import find_engines
from clipdeploy.spec import Precision, Tower
from tests.bundles import IMAGE_SIZE, image_weights, make_bundle
from tests.engine.api import NAMES, load
from tests.engine.api.usage import examine
from tests.engine.fake_tensorrt import make, used
from tests.fake_gpu import FakeCuda

FULL = [name for name in NAMES if not name.startswith("tensorrt_rtx")]
BANDS = (Profile(1, 1, 1), Profile(2, 4, 8))


@dataclass
class Device:
    """A machine of the imagination with one product."""

    cuda: FakeCuda
    module: Any
    product: Product
    here: Here
    machine: BuildMachine


@pytest.fixture
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Device:
    return put_device(monkeypatch, request.param)


def put_device(monkeypatch: pytest.MonkeyPatch, name: str, *, gpu: bool = True) -> Device:
    cuda = FakeCuda()
    module: ModuleType = make(name, cuda=cuda if gpu else None)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    product = find_product("tensorrt-rtx" if module.__name__ == "tensorrt_rtx" else "tensorrt")
    here = Here(product.backend, product.version, "linux-x86_64", "Fake GPU", "8.9", None)
    hardware = Hardware(None, (Gpu("Fake GPU", "8.9", "24564 MiB", "550.54"),) if gpu else (), None)
    for place in ("clipdeploy.runtime.tensorrt", "clipdeploy.building.job"):
        monkeypatch.setattr(f"{place}.find_here", lambda backend, version: here)
    monkeypatch.setattr("clipdeploy.building.job.find_hardware", lambda: hardware)
    machine = BuildMachine("8.9" if gpu else None, 1 << 34, 1 << 33 if gpu else None)
    return Device(cuda, module, product, here, machine)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.open(make_bundle(tmp_path / "tiny"))


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 3, IMAGE_SIZE, IMAGE_SIZE)).astype(np.float32)


def expected(batch: np.ndarray) -> np.ndarray:
    rows = batch.reshape(len(batch), -1).astype(np.float64) @ image_weights()
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def put(device: Device, bundle: Bundle, tower: Tower, options: BuildOptions, plan: Path) -> dict[str, Any]:
    """Build an engine and store it; what the builder was asked for."""
    name = engine_graph(bundle, tower, Precision.FP32)
    built = build(bundle.path(name), plan, options, device.product, machine=device.machine)
    key = EngineKey(
        backend=device.product.backend,
        version=device.product.version,
        platform=device.here.platform,
        gpu=None if device.product.rtx else device.here.gpu,
        compute_capabilities=built.compute_capabilities,
        jetpack=None,
        tower=tower,
        precision=Precision.FP32,
        graph_sha256=graph_sha256(bundle, name),
        profiles=options.profiles,
        flags=flags(options),
    )
    report = LayerReport("build log", read_layers(built.log))
    record = EngineRecord(key, name, built.size_bytes, built.seconds, "2026-11-22T00:00:00+00:00", {}, report)
    header = header_of(plan)
    add_engine(bundle, record, plan)
    return header


def header_of(plan: Path) -> dict[str, Any]:
    content = plan.read_bytes()
    start = content.index(b'{"')  # its length stands before it, and may have a byte that reads as a brace
    found: dict[str, Any] = json.JSONDecoder().raw_decode(content[start:].split(b"}")[0].decode() + "}")[0]
    return found


@pytest.mark.parametrize("device", NAMES, indirect=True)
def test_a_bundle_is_built_and_run(device: Device, bundle: Bundle, tmp_path: Path) -> None:
    options = BuildOptions(profiles=BANDS, detailed=True)
    for tower in Tower:
        header = put(device, bundle, tower, options, tmp_path / f"{tower.value}.plan")
        assert len(header["profiles"]) == 2
    texts = ["a dog", "", "zebra " * 50]
    with clipdeploy.load(bundle) as plain, clipdeploy.load(bundle, backend=device.product.backend) as clip:
        for count in (1, 3, 8, 1):
            np.testing.assert_allclose(clip.encode_pixels(pixels(count)), expected(pixels(count)), rtol=0, atol=1e-5)
        np.testing.assert_allclose(clip.encode_text(texts), plain.encode_text(texts), rtol=0, atol=1e-6)
    assert device.cuda.used == 0
    called = used(device.module)
    assert {"Builder.create_network", "OnnxParser.parse_from_file", "IExecutionContext.execute_async_v3"} <= called


@pytest.mark.parametrize("device", NAMES, indirect=True)
def test_the_verb_builds_what_loads(device: Device, bundle: Bundle) -> None:
    """`clipdeploy build-engine`, with all that it checks before and after."""
    backend = device.product.backend
    request = BuildRequest(bundle.folder, backend=backend, options=BuildOptions(profiles=BANDS))
    outcome = build_engines(request)
    assert [engine.built for engine in outcome.engines] == [True, True]
    assert [engine.built for engine in build_engines(request).engines] == [False, False]
    for engine in outcome.engines:
        assert not [finding for finding in engine.record.findings if finding.state == "bad"]
        assert engine.record.report.layers
    assert all(
        ("--stronglyTyped" in plan.trtexec) == device.product.version.startswith("10.") for plan in outcome.plans
    )
    with clipdeploy.load(bundle.folder, backend=backend) as clip:
        np.testing.assert_allclose(clip.encode_pixels(pixels(5)), expected(pixels(5)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("device", NAMES, indirect=True)
def test_graphs_and_kernels(device: Device, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch size that comes often is recorded; what TensorRT for RTX compiled is there for the next process."""
    monkeypatch.setenv("CLIPDEPLOY_CACHE", str(tmp_path / "cache"))
    put(device, bundle, Tower.IMAGE, BuildOptions(profiles=BANDS), tmp_path / "e.plan")
    for _ in range(2):
        engines = find_engines(bundle, device.product.backend, {Tower.IMAGE: Precision.FP32})
        session = engines.open(Tower.IMAGE)
        for count in (1, 3, 1, 3, 1, 3, 1, 3):
            np.testing.assert_allclose(session.run(pixels(count)), expected(pixels(count)), rtol=0, atol=1e-5)
        assert (len(device.cuda.graphs), session.notes) == (2, ())
        session.close()
        assert device.cuda.left == (0, 0, 0, 0, 0)
    kernels = list((tmp_path / "cache").rglob("*.bin"))
    assert len(kernels) == device.product.rtx
    rtx_only = {"IRuntimeCache.deserialize", "IRuntimeCache.serialize", "IExecutionContext.is_stream_capturable"}
    assert used(device.module) & rtx_only == (rtx_only if device.product.rtx else set())


def test_what_runs_is_what_was_read(monkeypatch: pytest.MonkeyPatch, bundle: Bundle, tmp_path: Path) -> None:
    """What `test_api.py` follows in the source covers what really is called."""
    from tests.engine.test_api import FILES

    device = put_device(monkeypatch, "tensorrt-10.3.0")
    options = BuildOptions(profiles=BANDS, timing_cache=tmp_path / "c", strip_weights=True)
    put(device, bundle, Tower.IMAGE, options, tmp_path / "e.plan")
    with clipdeploy.load(bundle, backend="tensorrt") as clip:
        clip.encode_pixels(pixels(1))
    followed = {f"{kind}.{name}" for kind, name in examine(FILES, load("tensorrt-10.3.0")).uses}
    assert used(device.module) <= followed | {"IProgressMonitor.phase_start"}


@pytest.mark.parametrize("device", NAMES, indirect=True)
def test_every_option_reaches_the_builder(device: Device, bundle: Bundle, tmp_path: Path) -> None:
    rtx = device.product.rtx
    options = BuildOptions(
        profiles=(Profile(1, 1, 4),),
        compute_capabilities=("8.6", "8.9") if rtx else (),
        workspace_bytes=64 * 1024**2,
        timing_cache=None if rtx else tmp_path / "cache.timing",
        version_compatible=not rtx,
        hardware_compatible=not rtx,
        optimization_level=2,
        detailed=True,
    )
    header = put(device, bundle, Tower.IMAGE, options, tmp_path / "e.plan")
    assert header["level"] == 2
    assert header["workspace"] == 64 * 1024**2
    assert header["capabilities"] == (["SM86", "SM89"] if rtx else [])
    assert ("VERSION_COMPATIBLE" in header["flags"]) is not rtx
    assert header["hardware"] == ("NONE" if rtx else "AMPERE_PLUS")
    if not rtx:  # a second build reads what the first one wrote
        assert (tmp_path / "cache.timing").read_bytes().count(b"a kernel") == 1
        build(bundle.path("visual.onnx"), tmp_path / "f.plan", options, device.product, machine=device.machine)
        assert (tmp_path / "cache.timing").read_bytes().count(b"a kernel") == 2


@pytest.mark.parametrize("device", NAMES, indirect=True)
def test_a_stripped_engine_gets_its_weights_back(device: Device, bundle: Bundle, tmp_path: Path) -> None:
    options = BuildOptions(profiles=(Profile(1, 2, 4),), strip_weights=True)
    header = put(device, bundle, Tower.IMAGE, options, tmp_path / "e.plan")
    assert header["stripped"] is True
    with clipdeploy.load(bundle, backend=device.product.backend) as clip:
        np.testing.assert_allclose(clip.encode_pixels(pixels(2)), expected(pixels(2)), rtol=0, atol=1e-5)
    assert "OnnxParserRefitter.refit_from_file" in used(device.module)


@pytest.mark.parametrize("device", NAMES, indirect=True)
def test_the_builder_tells_the_layers(device: Device, bundle: Bundle, tmp_path: Path) -> None:
    built = build(
        bundle.path("visual.onnx"), tmp_path / "e.plan", BuildOptions(detailed=True), device.product,
        machine=device.machine,
    )  # fmt: skip
    layers = read_layers(built.log)
    nodes = onnx.load(bundle.path("visual.onnx")).graph.node
    assert len(layers) == len(nodes)
    engine = device.module.Runtime(device.module.Logger()).deserialize_cuda_engine((tmp_path / "e.plan").read_bytes())
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(device.module.LayerInformationFormat.JSON)
    assert [layer.name for layer in read_inspector(text)] == [layer.name for layer in layers]


@pytest.mark.parametrize("device", NAMES, indirect=True)
def test_progress_is_told_and_can_end_the_build(device: Device, bundle: Bundle, tmp_path: Path) -> None:
    seen: list[str] = []
    graph, plan = bundle.path("visual.onnx"), tmp_path / "e.plan"
    build(graph, plan, BuildOptions(), device.product, machine=device.machine, progress=lambda *a: seen.append(a[0]))
    assert any("kernels" in stage for stage in seen)
    plan.unlink()

    def stop(stage: str, done: int, total: int) -> None:
        if "kernels" in stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(graph, plan, BuildOptions(), device.product, machine=device.machine, progress=stop)
    assert not list(tmp_path.glob("*.plan*"))


@pytest.mark.parametrize("device", NAMES, indirect=True)
def test_an_unknown_operator_is_named(device: Device, bundle: Bundle, tmp_path: Path) -> None:
    model = onnx.load(bundle.path("visual.onnx"))
    model.graph.node[0].op_type, model.graph.node[0].name = "Frobnicate", "the_first"
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(EngineError, match=r"the_first.*Frobnicate|Frobnicate.*the_first"):
        build(tmp_path / "odd.onnx", tmp_path / "e.plan", BuildOptions(), device.product, machine=device.machine)
    assert not (tmp_path / "e.plan").exists()


@pytest.mark.parametrize("name", FULL)
def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch, bundle: Bundle, tmp_path: Path, name: str) -> None:
    device = put_device(monkeypatch, name, gpu=False)
    machine = BuildMachine("8.9", 1 << 34)
    with pytest.raises(EngineError):
        build(bundle.path("visual.onnx"), tmp_path / "e.plan", BuildOptions(), device.product, machine=machine)


def test_rtx_builds_without_a_gpu(monkeypatch: pytest.MonkeyPatch, bundle: Bundle, tmp_path: Path) -> None:
    device = put_device(monkeypatch, NAMES[-1], gpu=False)
    graph, options = bundle.path("visual.onnx"), BuildOptions()
    assert build(graph, tmp_path / "e.plan", options, device.product, machine=device.machine).size_bytes > 0


def test_an_engine_of_another_version_is_refused(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle, tmp_path: Path
) -> None:
    put(put_device(monkeypatch, FULL[0]), bundle, Tower.IMAGE, BuildOptions(), tmp_path / "e.plan")
    put_device(monkeypatch, FULL[-1])
    with pytest.raises(ClipdeployError, match=r"built for 10\.3\.0, here 11\.4\.0\.106"):
        clipdeploy.load(bundle, backend="tensorrt")
