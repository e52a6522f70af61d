"""OpenVINO itself: imported when needed, its devices, and what it is told to compute in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

from clipdeploy.errors import BackendError, ClipdeployError, MissingExtraError
from clipdeploy.machine import granted_cores, install_line, usable_cores
from clipdeploy.spec import Precision

Device = Literal["cpu", "gpu"]
_OLDEST = (2025, 3)  # as in the extra `openvino`
_PLACES = ("Exception from ", "Caught exception: ", "Check '", "FrontEnd API failed")


@cache
def core() -> Any:
    """OpenVINO's one `Core`, with the devices that it found.

    Raises:
        MissingExtraError, BackendError: it is not installed, does not load, or is too old.
    """
    library = import_openvino()
    try:
        return library.Core()
    except Exception as error:  # the library's exceptions have no common base
        raise _broken(error) from error


def import_openvino() -> Any:
    """The library's module; raises as `core` does."""
    try:
        with _without_telemetry():
            library = import_module("openvino")
    except ModuleNotFoundError as error:
        if error.name == "openvino":
            raise _missing() from error
        raise _broken(error) from error
    except (ImportError, OSError, RuntimeError) as error:  # a library of its own that does not load
        raise _broken(error) from error
    if not hasattr(library, "Core"):
        if find_spec("openvino.runtime") is None:  # a folder of that name that holds something else
            raise _missing()
        raise _broken("its module is empty")
    if _release(library.__version__) < _OLDEST:
        raise BackendError(
            f"openvino {library.__version__} is too old; {_OLDEST[0]}.{_OLDEST[1]} or later is needed",
            fix="pip install --upgrade 'clipdeploy[openvino]'",
        )
    return library


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """While OpenVINO is imported, keep it from reporting that to a web service, as it does unless its user has said no
    with its `opt_in_out`: a device that watches a door calls nobody unasked."""
    name = "openvino_telemetry"
    if name in sys.modules:
        yield  # somebody else's choice
        return
    sys.modules[name] = None  # type: ignore[assignment]  # makes its import fail, for which OpenVINO has a stand-in
    try:
        yield
    finally:
        del sys.modules[name]


def available_devices() -> dict[str, str]:
    """The devices that OpenVINO drives here, such as `CPU` and `GPU.0`, with what each calls itself.

    Raises:
        MissingExtraError, BackendError: OpenVINO is not installed, does not load, or is too old.
    """
    try:
        return {name: str(core().get_property(name, "FULL_DEVICE_NAME")) for name in core().available_devices}
    except ClipdeployError:
        raise
    except Exception as error:  # the library's exceptions have no common base
        raise _broken(error) from error


def require_device(device: Device) -> str:
    """OpenVINO's name of a device; raises BackendError, which names those there are, unless it is here."""
    wanted, there = device.upper(), available_devices()
    if any(name.split(".")[0] == wanted for name in there):
        return wanted
    known = ", ".join(f"{name} ({full})" for name, full in there.items()) or "none"
    kind = "Intel GPU" if device == "gpu" else "processor"
    raise BackendError(
        f"OpenVINO finds no {kind} here; it finds: {known}",
        fix=install_line("openvino:gpu" if device == "gpu" else "openvino"),
    )


def settings(device: str, precision: Precision, threads: int | None) -> dict[str, Any]:
    """What a device is told, so that it computes in `precision` and rounds nothing to less.

    Left to itself it takes bf16 or f16 where it has them, also for fp32 graphs. On processors f16 is never asked for:
    it is slower there than f32, and Q/DQ graphs take minutes to compile with it.

    Args:
        device: as OpenVINO names it.
        precision: of the graph.
        threads: of one run; None leaves it to OpenVINO, which takes one a physical core that the process may use, but
            for a container's limit, which it is told here.

    Raises:
        BackendError: the device does not compute in it.
    """
    can = core().get_property(device, "OPTIMIZATION_CAPABILITIES")
    on_gpu, has_bf16 = device.startswith("GPU"), "BF16" in can
    if precision is Precision.FP8:
        raise BackendError("OpenVINO does not compute in fp8", fix="use int8, or bf16 where the processor has it")
    if precision is Precision.BF16 and not has_bf16:
        raise BackendError(
            f"OpenVINO's device {device} does not compute in bf16; it has {', '.join(sorted(can))}",
            fix="use fp32 or int8 here",
        )
    if precision is Precision.BF16 or (precision is Precision.INT8 and has_bf16 and not on_gpu):
        rest = "bf16"
    elif precision is not Precision.FP32 and on_gpu:
        rest = "f16"
    else:
        rest = "f32"
    told: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": rest,
        # matrices of 8-bit weights alone would have their inputs rounded to 8 bits, unasked
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
    }
    if threads is None and granted_cores() is not None:
        threads = usable_cores()
    if threads is not None and not on_gpu:
        told["INFERENCE_NUM_THREADS"] = threads
    takes = core().get_property(device, "SUPPORTED_PROPERTIES")
    return {name: value for name, value in told.items() if name in takes}


def said(error: BaseException) -> str:
    """What OpenVINO says, in a line: the last one, since before it come the places in its sources."""
    lines = [line.strip(" -") for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(_PLACES) and not line.endswith(":")]
    unknown = [line for line in told if line.startswith("No conversion rule")]
    return (unknown or told[-1:] or [type(error).__name__])[0]


def _missing() -> MissingExtraError:
    return MissingExtraError("openvino", extra="openvino", needed_for="running a bundle with OpenVINO")


def _broken(error: BaseException | str) -> BackendError:
    why = error if isinstance(error, str) else said(error)
    return BackendError(
        f"openvino is installed but does not load: {why}",
        fix="pip install --force-reinstall openvino",
    )


def _release(version: str) -> tuple[int, ...]:
    """Year and number of `2026.4.1-22982-...`; of a version that is written otherwise, the latest there can be."""
    parts = version.split("-")[0].split(".")[:2]
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else (9999,)
