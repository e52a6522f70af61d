"""Machines of the imagination, each with one product, and a tiny bundle."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from clipdeploy.engine_key import EngineBackend
from clipdeploy.machine import Gpu, Hardware, Jetson
from clipdeploy.runtime.engines import Here
from tests.bundles import make_bundle

JETSON = Jetson("NVIDIA Jetson Orin Nano Developer Kit", "36.4.3", "6.2", "8.7")
L4 = Gpu("NVIDIA L4", "8.9", "23034 MiB", "580.1")
MACHINES = {
    "tensorrt-10.3.0": Hardware(JETSON, (Gpu("Jetson Orin Nano", "8.7", None, None),), None),
    "tensorrt-11.4.0": Hardware(None, (L4,), None),
    "tensorrt_rtx-1.7.1": Hardware(None, (), None),
}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A machine of the imagination with one product; its name for `--backend`."""
    pytest.importorskip("onnx_ir", reason="building needs the extra: pip install 'clipdeploy[engine]'")
    from clipdeploy.building import job
    from tests.engine.fake_tensorrt import make
    from tests.fake_gpu import FakeCuda

    name = getattr(request, "param", "tensorrt_rtx-1.7.1")
    hardware = MACHINES[name]
    module: Any = make(name, cuda=FakeCuda() if hardware.has_gpu else None)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(job, "find_hardware", lambda: hardware)

    def here(backend: EngineBackend, version: str) -> Here:
        gpu, jetson = hardware.gpu, hardware.jetson
        capability = gpu.compute_capability if gpu else None
        return Here(
            backend, version, "linux-test", gpu.name if gpu else None, capability, jetson.jetpack if jetson else None
        )

    monkeypatch.setattr(job, "find_here", here)
    return "tensorrt-rtx" if module.__name__ == "tensorrt_rtx" else "tensorrt"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "tiny")
