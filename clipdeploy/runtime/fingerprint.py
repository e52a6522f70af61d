"""What answers and times depend on besides the graph: this machine, and the libraries that compute on it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec

import clipdeploy
from clipdeploy.machine import Probes, find_hardware, platform_tag, this_machine
from clipdeploy.machine.install import ONNXRUNTIME_WHEELS
from clipdeploy.runtime.backends import AUTO, BACKENDS, ONNXRUNTIME, BackendChoice
from clipdeploy.versions import installed_quickly

# Each library by the names that it is distributed under; several at once is a mistake that changes what runs.
_DISTRIBUTIONS: dict[str, tuple[str, ...]] = {
    "onnxruntime": (
        *ONNXRUNTIME_WHEELS,
        "onnxruntime-ep-nv-tensorrt-rtx",
        "onnxruntime-ep-nv-tensorrt-rtx-cu12",
    ),
    "openvino": ("openvino", "openvino-nightly"),
    "tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
    "tensorrt-rtx": ("tensorrt-rtx", "tensorrt-rtx-cu12"),
}
# Of /proc/cpuinfo: the processor's name and what it can do, on x86 and on ARM.
_CPU = re.compile(
    r"^(?:vendor_id|cpu family|model|model name|stepping|flags|Features|CPU implementer|CPU variant|CPU part)\s*:.*$",
    re.MULTILINE,
)


def fingerprint(backends: Iterable[str], probes: Probes | None = None) -> dict[str, object]:
    """What a result of these backends on this machine depends on, of what JSON holds.

    Processor and its abilities, versions of the libraries and of this package; GPUs and their drivers, and the
    system's release, which brings drivers, where one of the backends computes on a GPU.
    """
    probes = probes or this_machine()
    choices = [BackendChoice(name, "") for name in backends]
    found: dict[str, object] = {
        "clipdeploy": clipdeploy.__version__,
        "platform": platform_tag(probes),
        "processor": processor(probes),
        "versions": {engine: library_version(engine) for engine in sorted({choice.engine for choice in choices})},
    }
    if any(choice.device == "gpu" for choice in choices):
        hardware = find_hardware(probes)
        found["gpus"] = [str(gpu) for gpu in hardware.gpus]
        found["jetpack"] = hardware.jetson.jetpack if hardware.jetson else None
        found["system"] = probes.platform
        found["visible"] = probes.environment.get("CUDA_VISIBLE_DEVICES")
    return found


def possible_backends() -> tuple[str, ...]:
    """The backends whose library is installed, whatever it can do here; imports nothing and asks for no device."""
    gpu = any(name != ONNXRUNTIME for name in installed_quickly(_DISTRIBUTIONS[ONNXRUNTIME]))
    choices = [BackendChoice(name, "") for name in BACKENDS if name != AUTO]
    return tuple(
        choice.name
        for choice in choices
        if find_spec(_module(choice.engine)) is not None
        and (choice.engine != ONNXRUNTIME or choice.device == "cpu" or gpu)
    )


def processor(probes: Probes) -> str:
    """The processor and what it can do, as 16 hex digits; its architecture alone where the system does not tell."""
    told = sorted(set(_CPU.findall(probes.read("/proc/cpuinfo") or "")))
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16] if told else probes.machine


def library_version(engine: str) -> str:
    """The full version of an engine's library, by its distributions; as the module states it where it has none."""
    versions = installed_quickly(_DISTRIBUTIONS[engine])
    if versions:
        return ", ".join(f"{name} {version}" for name, version in versions.items())
    try:
        return str(import_module(_module(engine)).__version__)
    except (ImportError, OSError, RuntimeError, AttributeError):
        return "unknown"


def _module(engine: str) -> str:
    return engine.replace("-", "_")
