"""What these tests need: a product and a GPU, or they say why they skip; and a bundle with typed graphs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest

from clipdeploy.engine_key import EngineBackend
from clipdeploy.errors import ClipdeployError
from clipdeploy.runtime.trt.cuda import Cuda
from clipdeploy.runtime.trt.product import import_cuda, import_product

HERE = Path(__file__).parent
BANDS = ((1, 1, 1), (2, 8, 32))
_LEAST = {"bf16": (8, 0), "fp8": (8, 9)}
"""Compute capability that a number format needs."""


@dataclass(frozen=True)
class Device:
    """A product and the GPU that it runs on."""

    backend: EngineBackend
    module: Any
    api: Any
    cuda: Cuda

    def need(self, precision: str) -> None:
        """Skip the test where the GPU does not compute in `precision`."""
        capability = tuple(map(int, self.cuda.gpu.compute_capability.split(".")))
        if capability < _LEAST.get(precision, (0, 0)):
            pytest.skip(f"{self.cuda.gpu.name} has compute capability {capability}: it does not compute in {precision}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session", params=get_args(EngineBackend))
def device(request: pytest.FixtureRequest) -> Device:
    backend = request.param
    try:
        module, api = import_product(backend), import_cuda(backend)
        return Device(backend, module, api, Cuda(api))
    except ClipdeployError as error:
        pytest.skip(f"{backend}: {error.message}")


@pytest.fixture(scope="session")
def bundle_folder(device: Device, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle that `CLIPDEPLOY_BUNDLE` names, or the shipped model exported, which needs PyTorch; a copy of it."""
    named = os.environ.get("CLIPDEPLOY_BUNDLE")
    source = Path(named) if named else request.getfixturevalue("demo_bundle")
    folder = tmp_path_factory.mktemp(device.backend) / "bundle"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("engines") if not named else None)
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calibration data for graphs that the bundle lacks."""
    from clipdeploy.demo import write_images

    return write_images(tmp_path_factory.mktemp("seen"), count=96, split="seen", seed=3).folder


@dataclass
class Workshop:
    """Builds engines into the bundle, each once."""

    device: Device
    folder: Path
    pictures: Path
    done: set[Any] = field(default_factory=set)

    def build(self, precision: str, tower: Any, **options: Any) -> None:
        """Have the bundle hold that engine."""
        from clipdeploy.building.job import build_engines
        from clipdeploy.building.records import BuildRequest
        from clipdeploy.demo import TEMPLATE, class_names
        from clipdeploy.engine.records import BuildOptions
        from clipdeploy.engine_key import Profile

        self.device.need(precision)
        asked = {"profiles": tuple(Profile(*band) for band in BANDS), **options}
        if (precision, tower, *asked.items()) in self.done:
            return
        build_engines(
            BuildRequest(
                bundle=self.folder,
                precision=precision,
                towers=(tower,),
                backend=self.device.backend,
                options=BuildOptions(**asked),
                data=(str(self.pictures),),
                texts=tuple(TEMPLATE.replace("{}", name) for name in class_names()),
            )
        )
        self.done.add((precision, tower, *asked.items()))


@pytest.fixture(scope="session")
def workshop(device: Device, bundle_folder: Path, pictures: Path) -> Workshop:
    return Workshop(device, bundle_folder, pictures)


@pytest.fixture
def hog(device: Device) -> Any:
    """Takes the GPU's memory until that many bytes are left, and gives it back after the test."""
    if device.api.cudaGetDeviceProperties(device.cuda.gpu.index)[1].integrated:
        pytest.skip("GPU and system share one memory here, and filling it would end other programs")
    taken: list[int] = []

    def fill(left: int) -> None:
        block = 1 << 30
        while block >= 1 << 16:
            if device.cuda.memory()[0] - block < left:
                block //= 2
                continue
            status, address = device.api.cudaMalloc(block)
            if status != device.api.cudaError_t.cudaSuccess:
                device.api.cudaGetLastError()
                block //= 2
                continue
            taken.append(address)

    yield_fill: Callable[[int], None] = fill
    yield yield_fill
    for address in taken:
        device.cuda.free(address)
