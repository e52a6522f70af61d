"""Which inference engine runs a graph. A requested one runs or raises; only `auto` chooses."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from clipdeploy.engine_key import EngineBackend
from clipdeploy.errors import BackendError, ClipdeployError, InputError, MissingExtraError
from clipdeploy.machine import find_hardware
from clipdeploy.runtime.session import Session
from clipdeploy.spec import Precision

AUTO = "auto"
ONNXRUNTIME = "onnxruntime"
OPENVINO = "openvino"

Device = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class _Backend:
    """A backend: its library, where that computes, the extra it comes with, and ONNX Runtime's own name for it."""

    engine: str
    device: Device
    runs_on: str
    extra: str
    provider: str = ""


_BACKENDS: dict[str, _Backend] = {
    ONNXRUNTIME: _Backend("onnxruntime", "cpu", "the CPU", "cpu", "CPUExecutionProvider"),
    "onnxruntime:cuda": _Backend("onnxruntime", "gpu", "the NVIDIA GPU", "gpu", "CUDAExecutionProvider"),
    "onnxruntime:tensorrt": _Backend(
        "onnxruntime", "gpu", "the NVIDIA GPU through TensorRT", "gpu", "TensorrtExecutionProvider"
    ),
    "onnxruntime:tensorrt-rtx": _Backend(
        "onnxruntime", "gpu", "the RTX GPU through TensorRT for RTX", "gpu", "NvTensorRTRTXExecutionProvider"
    ),
    OPENVINO: _Backend("openvino", "cpu", "the CPU", "openvino"),
    "openvino:gpu": _Backend("openvino", "gpu", "the Intel GPU", "openvino"),
    "tensorrt": _Backend("tensorrt", "gpu", "the NVIDIA GPU", "tensorrt"),
    "tensorrt-rtx": _Backend("tensorrt-rtx", "gpu", "the RTX GPU", "tensorrt-rtx"),
}
_ALIASES = {"onnxruntime:cpu": ONNXRUNTIME, "openvino:cpu": OPENVINO}

BACKENDS = (AUTO, *_BACKENDS)
"""The names that a user may give."""


@dataclass(frozen=True)
class BackendChoice:
    """The engine that runs the graphs, and why this one.

    Attributes:
        name: such as `onnxruntime` or `onnxruntime:cuda`.
        reason: one sentence, for people.
    """

    name: str
    reason: str

    @property
    def engine(self) -> str:
        """The library: `onnxruntime`, `openvino`, `tensorrt` or `tensorrt-rtx`."""
        return _BACKENDS[self.name].engine

    @property
    def device(self) -> Device:
        """Where it computes: `cpu` or `gpu`."""
        return _BACKENDS[self.name].device


def parse_backend(name: str) -> str:
    """A backend's name as this package writes it, `auto` included; raises InputError with the nearest that there is."""
    if isinstance(name, str) and (known := _ALIASES.get(name, name)) in BACKENDS:
        return known
    near = get_close_matches(str(name).lower(), [*BACKENDS, *_ALIASES], n=1, cutoff=0.4)
    raise InputError(
        f"unknown backend {name!r}; expected one of {', '.join(BACKENDS)}",
        fix=f'pass backend="{near[0] if near else AUTO}"',
    )


def choose_backend(backend: str = AUTO) -> BackendChoice:
    """Settle which engine `backend` means on this machine; loads no graph and measures nothing.

    For `auto` it is the likely one of those installed; `clipdeploy.load` measures them.

    Raises:
        InputError: no engine of that name.
        MissingExtraError, BackendError: it is not installed, does not load, or lacks the device.
    """
    name = parse_backend(backend)
    if name != AUTO:
        _require(name)
        return BackendChoice(name, f"asked for by name; runs on {_BACKENDS[name].runs_on}")
    for guess in (ONNXRUNTIME, OPENVINO):
        if find_spec(guess) is not None:
            return BackendChoice(guess, f"taken by auto: it is installed and runs on {_BACKENDS[guess].runs_on}")
    found = installed_backends()
    if not found:
        raise _not_installed(ONNXRUNTIME)
    return BackendChoice(found[0], f"taken by auto: it is installed and runs on {_BACKENDS[found[0]].runs_on}")


def installed_backends() -> tuple[str, ...]:
    """The backends that could run something here: their library is installed, and the device that they need is there.

    Cheap: libraries are looked for, and imported only where a library alone can tell which devices it drives.
    """
    return tuple(name for name in _BACKENDS if _could_run(name))


def engine_backend(name: str) -> EngineBackend | None:
    """`name` where it is a backend that runs a bundle's built engines, not its graphs; else None."""
    return next((backend for backend in get_args(EngineBackend) if backend == name), None)


def open_session(
    graph: Path,
    *,
    backend: str = ONNXRUNTIME,
    precision: Precision = Precision.FP32,
    threads: int | None = None,
    usual_batch: int = 1,
    as_written: bool = False,
) -> Session:
    """Load a graph into an engine. Built engines are loaded from a bundle: `clipdeploy.load`.

    Args:
        graph: path of an ONNX file with one input and one output; of several outputs `logits` is read.
        backend: name of an engine; `auto` takes the likely one of those installed.
        precision: what to compute in; an engine that rounds by itself rounds to this and nothing shorter.
        threads: threads of one run; None leaves it to the engine.
        usual_batch: rows that one run usually has; engines that compile for a batch compile for this one.
        as_written: compute Q/DQ pairs as they stand, for graphs that were made for another engine.

    Raises:
        InputError: `threads` is not a positive number, or there is no engine of that name.
        MissingExtraError: the engine is not installed.
        BackendError: the engine cannot load the graph, or not compute in the precision, or its device is not there.
    """
    check_threads(threads)
    check_usual_batch(usual_batch)
    name = choose_backend(backend).name
    if engine_backend(name) is not None:
        raise BackendError(
            f"{name} runs engines that were built from a graph, not the graph {graph}",
            fix=f"build them: clipdeploy build-engine BUNDLE --backend {name}; load them with clipdeploy.load",
        )
    known = _BACKENDS[name]
    if known.engine == OPENVINO:
        from clipdeploy.runtime.openvino import OpenVinoSession

        return OpenVinoSession(
            graph, precision=precision, device=known.device, threads=threads, usual_batch=usual_batch
        )
    from clipdeploy.runtime.ort import OrtSession

    if name == ONNXRUNTIME:
        return OrtSession(graph, threads=threads, fuse_qdq=not as_written)
    return OrtSession(graph, provider=known.provider, threads=threads, usual_batch=usual_batch)


def check_threads(threads: int | None) -> None:
    """Raise InputError unless `threads` is None or a positive whole number."""
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise InputError(f"threads must be a positive whole number, got {threads!r}", fix="pass threads=2, or None")


def check_usual_batch(usual_batch: int) -> None:
    """Raise InputError unless `usual_batch` is a positive whole number."""
    if isinstance(usual_batch, bool) or not isinstance(usual_batch, int) or usual_batch < 1:
        raise InputError(f"usual_batch must be a positive whole number, got {usual_batch!r}", fix="pass usual_batch=1")


def _require(name: str) -> None:
    """Raise the error that says how this machine gets a backend, where its library is not installed."""
    known = _BACKENDS[name]
    if (product := engine_backend(name)) is not None:
        from clipdeploy.runtime.trt.product import is_installed, missing

        if not is_installed(product):
            raise missing(product)
        return
    if find_spec(known.engine) is None:
        raise _not_installed(name)
    if known.device == "gpu" and not _drives(known):
        raise BackendError(_cannot_drive(known), fix=_install_line(name))


def _cannot_drive(known: _Backend) -> str:
    if known.engine == OPENVINO:
        return "OpenVINO finds no Intel GPU here"
    from clipdeploy.runtime.providers import import_onnxruntime

    ort = import_onnxruntime()
    has = ", ".join(ort.get_available_providers())
    return f"the onnxruntime {ort.__version__} that is installed has no {known.provider}, only {has}"


def _not_installed(name: str) -> MissingExtraError:
    known = _BACKENDS[name]
    error = MissingExtraError(known.engine, extra=known.extra, needed_for=f"running a bundle on {known.runs_on}")
    error.fix = _install_line(name)
    return error


def _could_run(name: str) -> bool:
    """Whether the library is installed, and the device that it needs is there."""
    known = _BACKENDS[name]
    if (product := engine_backend(name)) is not None:
        from clipdeploy.runtime.trt.product import is_installed

        return is_installed(product) and find_hardware().has_gpu
    if find_spec(known.engine) is None:
        return False
    if known.device == "cpu":
        return True
    # A library that is imported for nothing costs every load a tenth of a second: look for the device first.
    there = _may_have_intel_gpu() if known.engine == OPENVINO else find_hardware().has_gpu
    try:
        return there and _drives(known)
    except ClipdeployError:  # installed and broken: whoever asks for it by name is told
        return False


def _may_have_intel_gpu() -> bool:
    """False where Linux shows no device of a GPU at all."""
    return sys.platform != "linux" or any(Path(device).exists() for device in ("/dev/dri", "/dev/dxg"))


def _drives(known: _Backend) -> bool:
    """Whether the library, as it is installed, knows the device; imports it."""
    if known.engine == OPENVINO:
        from clipdeploy.runtime.openvino import available_devices

        return any(device.startswith("GPU") for device in available_devices())
    from clipdeploy.runtime.providers import available_providers

    return known.provider in available_providers()


def _install_line(name: str) -> str:
    from clipdeploy.machine.install import install_line

    return install_line(name)
