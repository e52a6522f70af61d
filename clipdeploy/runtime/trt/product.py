"""The products that run engines: imported when needed, and how this machine gets them where they are missing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from clipdeploy.engine_key import EngineBackend
from clipdeploy.errors import BackendError, ClipdeployError, MissingExtraError
from clipdeploy.machine import find_hardware
from clipdeploy.machine.install import install_line

MODULES: dict[EngineBackend, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
NAMES: dict[EngineBackend, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT for RTX"}


def is_installed(backend: EngineBackend) -> bool:
    """Whether the product's module is there; imports nothing."""
    return find_spec(MODULES[backend]) is not None


def import_product(backend: EngineBackend) -> Any:
    """The product's module.

    Raises:
        MissingExtraError, BackendError: it is not installed, or does not load; the fix is this machine's.
    """
    name = MODULES[backend]
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == name:
            raise missing(backend) from error
        raise _broken(backend, error) from error
    except (ImportError, OSError, RuntimeError) as error:  # a library of the product's that does not load
        raise _broken(backend, error) from error


def import_cuda(backend: EngineBackend) -> Any:
    """The module of cuda-python that wraps the CUDA runtime.

    Raises:
        MissingExtraError, BackendError: cuda-python is not installed.
    """
    api = find_cuda()
    if api is not None:
        return api
    jetpack = _jetpack_major()
    if jetpack is None:
        raise _lacking("cuda-python", backend, f"running {NAMES[backend]} engines")
    # Of CUDA's own major version: one made for a later CUDA does not start on this driver.
    versions = ">=12.6,<13" if jetpack <= 6 else ">=13"
    raise BackendError(
        f"running {NAMES[backend]} engines needs cuda-python, which is not installed",
        fix=f"pip install 'cuda-python{versions}'",
    )


def find_cuda() -> Any | None:
    """The module of cuda-python that wraps the CUDA runtime, None where it is not installed."""
    for name in ("cuda.bindings.runtime", "cuda.cudart"):  # the second up to cuda-python 12.6.0
        try:
            return import_module(name)
        except ImportError:
            continue
    return None


def missing(backend: EngineBackend) -> ClipdeployError:
    """The error for a product that is not installed."""
    if backend == "tensorrt" and _jetpack_major() is not None:
        return BackendError(
            "this Python does not see TensorRT, which JetPack brings for the system's Python",
            fix="sudo apt install python3-libnvinfer, and make virtual environments with --system-site-packages",
        )
    return _lacking(NAMES[backend], backend, f'backend "{backend}"')


def _lacking(library: str, backend: EngineBackend, needed_for: str) -> MissingExtraError:
    """The error for a library of an extra; where there is a GPU, with the line for its driver."""
    error = MissingExtraError(library, extra=backend, needed_for=needed_for)
    hardware = find_hardware()
    if hardware.has_gpu:  # engines for RTX are also built where there is none
        error.fix = install_line(backend, hardware)
    return error


def _broken(backend: EngineBackend, error: Exception) -> BackendError:
    return BackendError(
        f"{NAMES[backend]} is installed but does not load: {error}",
        fix=f"install it again, its libraries and its Python module of one version: pip install 'clipdeploy[{backend}]'"
        if _jetpack_major() is None
        else "sudo apt install --reinstall tensorrt python3-libnvinfer",
    )


def _jetpack_major() -> int | None:
    jetson = find_hardware().jetson
    return None if jetson is None else jetson.jetpack_major


@cache
def product_log(module: Any) -> Any:
    """The product's log of this process, which keeps its latest errors in `lines`.

    It is one and stays: the product remembers the first log that it is given for as long as the process lives. While
    an engine is built, `listener` takes every line with the name of its severity.
    """
    severity = module.ILogger.Severity
    errors = (severity.INTERNAL_ERROR, severity.ERROR)

    class Log(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.lines: deque[str] = deque(maxlen=50)
            self.listener: Callable[[str, str], None] | None = None

        def log(self, severity: Any, msg: str) -> None:
            if self.listener is not None:
                self.listener(severity.name, msg)
            if severity in errors:
                self.lines.append(msg.strip())

    return Log()
