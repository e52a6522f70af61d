"""What engines say of their own layers, over the recorded API of each version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx", reason="the tiny graphs are written with onnx")
pytest.importorskip("onnx_ir", reason="building needs the extra: pip install 'clipdeploy[engine]'")
pytest.importorskip("onnxruntime", reason="the imagined GPU computes with it: pip install 'clipdeploy[cpu]'")

from clipdeploy.bundle import Bundle
from clipdeploy.engine.builder.build import build
from clipdeploy.engine.layers.read import read_inspector
from clipdeploy.engine.records import BuildOptions
from clipdeploy.engine_key import Profile
from clipdeploy.runtime.trt.inspector import inspector_json
from clipdeploy.spec import Tower
from tests.bundles import make_bundle
from tests.engine.api import NAMES
from tests.engine.test_with_fakes import Device, put_device

OPTIONS = BuildOptions(profiles=(Profile(1, 1, 1), Profile(2, 4, 8)), detailed=True)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return tmp_path / "engine.plan"


@pytest.fixture
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Device:
    return put_device(monkeypatch, getattr(request, "param", "tensorrt-11.4.0"))


def put(device: Device, plan: Path, options: BuildOptions = OPTIONS) -> Any:
    graph = Bundle.open(make_bundle(plan.parent / "tiny")).graph(Tower.IMAGE)
    build(graph, plan, options, device.product, machine=device.machine)
    return device.module


@pytest.mark.parametrize("device", NAMES, indirect=True)
def test_every_type_is_told(device: Device, plan: Path) -> None:
    module = put(device, plan)
    device.cuda.total = device.cuda.used  # nothing of the GPU's memory is taken to look
    text = inspector_json(plan, module)
    assert text is not None
    layers = read_inspector(text)
    assert layers and all(tensor.dtype for layer in layers for tensor in layer.outputs)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "no JSON",
        "[]",
        "{}",
        '{"Layers": []}',
        '{"Layers": ["a", "b"]}',
        '{"Layers": [{"LayerType": "gemm"}]}',
        '{"Layers": [{"Name": "a", "Inputs": "b"}]}',
    ],
)
def test_what_tells_no_types_is_none(device: Device, plan: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    module = put(device, plan)
    monkeypatch.setattr(module.EngineInspector, "get_engine_information", lambda self, format: answer)
    assert inspector_json(plan, module) is None


def test_types_that_depend_on_shapes_are_not_taken(device: Device, plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = put(device, plan)
    monkeypatch.setattr(module.IExecutionContext, "set_input_shape", lambda self, name, shape: False)
    assert inspector_json(plan, module) is None


def test_without_a_gpu_or_an_engine_there_is_none(device: Device, plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = put(device, plan)
    content = plan.read_bytes()
    for broken in (b"", b"not an engine"):
        plan.write_bytes(broken)
        assert inspector_json(plan, module) is None
    plan.write_bytes(content)
    assert json.loads(inspector_json(plan, module) or "{}")["Layers"]
    blind = put_device(monkeypatch, "tensorrt-11.4.0", gpu=False)
    assert inspector_json(plan, blind.module) is None


def test_code_in_an_engine_runs_only_where_it_is_let(
    device: Device, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = put(device, plan)
    allowed: list[bool] = []

    def deserialize(self: Any, serialized_engine: Any) -> None:
        allowed.append(self.engine_host_code_allowed)

    monkeypatch.setattr(module.Runtime, "deserialize_cuda_engine", deserialize)
    assert inspector_json(plan, module) is None
    assert inspector_json(plan, module, host_code=True) is None
    assert allowed == [False, True]
