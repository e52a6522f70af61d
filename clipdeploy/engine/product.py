"""Which of NVIDIA's two products builds: TensorRT, which needs the GPU, or TensorRT for RTX, which needs none.

Both have one Python API, so all behind this file takes the module as an argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clipdeploy.engine_key import EngineBackend
from clipdeploy.errors import EngineError, InputError
from clipdeploy.runtime.trt.product import MODULES, NAMES, import_product, is_installed

OLDEST: dict[EngineBackend, tuple[int, int]] = {"tensorrt": (10, 3), "tensorrt-rtx": (1, 0)}
"""10.3 is what JetPack 6 brings, and the oldest whose API is checked."""


@dataclass(frozen=True)
class Product:
    """A product that can build.

    Attributes:
        backend: which one.
        module: its Python module.
        version: in full, such as `10.3.0` or `1.7.1.116`.
    """

    backend: EngineBackend
    module: Any
    version: str

    @property
    def rtx(self) -> bool:
        """Whether it is TensorRT for RTX."""
        return self.backend == "tensorrt-rtx"

    @property
    def major(self) -> int:
        """The version's first number."""
        return _numbers(self.version)[0]

    def __str__(self) -> str:
        return f"{NAMES[self.backend]} {self.version}"


def find_product(backend: str = "auto", *, has_gpu: bool = True, jetson: bool = False) -> Product:
    """The product that was asked for.

    Args:
        backend: `tensorrt`, `tensorrt-rtx`, or `auto`: TensorRT where it and a GPU are, otherwise TensorRT for RTX.
        has_gpu: whether this machine has an NVIDIA GPU.
        jetson: whether it is a Jetson, for which there is no TensorRT for RTX.

    Raises:
        MissingExtraError, BackendError: it is not installed, or does not load; says how to install it on this machine.
        EngineError: it is too old, or cannot build.
        InputError: there is no such backend.
    """
    for known in MODULES:
        if backend == known:
            return _load(known)
    if backend != "auto":
        raise InputError(f"unknown backend {backend!r}; expected one of {', '.join((*MODULES, 'auto'))}")
    if jetson or (has_gpu and is_installed("tensorrt")):
        return _load("tensorrt")
    if has_gpu and not is_installed("tensorrt-rtx"):
        raise EngineError(
            "building an engine needs TensorRT or TensorRT for RTX, and neither is installed",
            fix="pip install 'clipdeploy[tensorrt]' where https://pypi.nvidia.com can be reached, or, for an RTX GPU, "
            "pip install 'clipdeploy[tensorrt-rtx]'",
        )
    return _load("tensorrt-rtx")


def _load(backend: EngineBackend) -> Product:
    module = import_product(backend)
    version = getattr(module, "__version__", None)
    if not isinstance(version, str) or not hasattr(module, "Builder"):
        raise EngineError(
            f"{NAMES[backend]} is installed but empty: it has no builder",
            fix=f"pip install --force-reinstall 'clipdeploy[{backend}]'",
        )
    oldest = OLDEST[backend]
    if _numbers(version)[:2] < oldest:
        raise EngineError(
            f"{NAMES[backend]} {version} is too old: engines are built with {oldest[0]}.{oldest[1]} or newer",
            fix=f"on a Jetson flash JetPack 6 or newer; elsewhere pip install --upgrade 'clipdeploy[{backend}]'",
        )
    return Product(backend, module, version)


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: `10.3.0.post1` is (10, 3, 0)."""
    numbers = []
    for part in version.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)
