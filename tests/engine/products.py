"""The products that can build here: tests of engines run with each of them."""

from __future__ import annotations

import pytest

from clipdeploy.building.records import BuildRequest
from clipdeploy.engine.records import BuildOptions
from clipdeploy.engine_key import EngineBackend, Profile
from clipdeploy.machine import find_hardware

BACKENDS: tuple[EngineBackend, ...] = ("tensorrt-rtx", "tensorrt")
BATCH = Profile(1, 8, 32)


def need(backend: EngineBackend) -> EngineBackend:
    """`backend`, or a skipped test that says why."""
    if backend == "tensorrt-rtx":
        pytest.importorskip("tensorrt_rtx", reason="building needs: pip install 'clipdeploy[tensorrt-rtx]'")
    else:
        pytest.importorskip(
            "tensorrt",
            reason="TensorRT comes with JetPack, a container, or NVIDIA's package index",
            exc_type=ImportError,  # of the package on PyPI whose libraries could not be fetched
        )
        if not find_hardware().has_gpu:
            pytest.skip("TensorRT builds on the GPU that runs the engine, and there is none")
    return backend


def options(backend: EngineBackend) -> BuildOptions:
    """Batch 1 to 32, for one GPU: that of this machine, or without one Ada's."""
    here = find_hardware().gpu
    capability = here.compute_capability if here and here.compute_capability else "8.9"
    return BuildOptions(profiles=(BATCH,), compute_capabilities=(capability,) if backend == "tensorrt-rtx" else ())


def request(bundle: object, backend: EngineBackend, **more: object) -> BuildRequest:
    """A build of both encoders."""
    return BuildRequest(bundle=bundle, backend=backend, **{"options": options(backend), **more})  # type: ignore[arg-type]
