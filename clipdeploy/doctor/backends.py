"""Which backends this machine could run now, and what gives it the others."""

from __future__ import annotations

from collections.abc import Mapping

from clipdeploy.doctor.records import Fact, Problem
from clipdeploy.machine.hardware import Hardware
from clipdeploy.machine.install import install_line
from clipdeploy.machine.probes import Imported, Probes

RUNS = "runs here"
_RTX_PLUGIN = "onnxruntime_ep_nv_tensorrt_rtx"
# the backends of ONNX Runtime that need a provider, and its name there
_PROVIDERS = {
    "onnxruntime:cuda": "CUDAExecutionProvider",
    "onnxruntime:tensorrt": "TensorrtExecutionProvider",
    "onnxruntime:tensorrt-rtx": "NvTensorRTRTXExecutionProvider",
}
_PRODUCTS = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


def backend_facts(probes: Probes, hardware: Hardware, imported: Mapping[str, Imported]) -> list[Fact]:
    """One fact a backend: that it runs here, or the line that installs it.

    Args:
        imported: module -> what came of importing it, of those that are installed.
    """
    ready = {
        "onnxruntime": _works(imported, "onnxruntime"),
        **{name: _has_provider(probes, hardware, imported, provider) for name, provider in _PROVIDERS.items()},
        "openvino": _works(imported, "openvino"),
        "openvino:gpu": _works(imported, "openvino")
        and any(device.startswith("GPU") for device in imported["openvino"].providers),
        **{
            name: hardware.has_gpu and _works(imported, module) and probes.has_module("cuda")
            for name, module in _PRODUCTS.items()
        },
    }
    return [
        Fact("backends", name, RUNS if runs else f"not here: {install_line(name, hardware, probes)}")
        for name, runs in ready.items()
    ]


def provider_problems(probes: Probes, hardware: Hardware, imported: Mapping[str, Imported]) -> list[Problem]:
    """Providers that onnxruntime lists, on a machine that could use them, and whose libraries do not load."""
    runtime = imported.get("onnxruntime")
    if runtime is None or not hardware.has_gpu:
        return []
    # TensorRT is no part of the wheel that lists it, and whoever runs CUDA alone misses nothing
    told = runtime.broken.get("CUDAExecutionProvider")
    if told is None:
        return []
    message = f"onnxruntime has a CUDA provider that does not load, and would run on the CPU instead: {told}"
    return [Problem(message, install_line("onnxruntime:cuda", hardware, probes))]


def _works(imported: Mapping[str, Imported], module: str) -> bool:
    return module in imported and imported[module].error is None


def _has_provider(probes: Probes, hardware: Hardware, imported: Mapping[str, Imported], provider: str) -> bool:
    if not hardware.has_gpu or not _works(imported, "onnxruntime"):
        return False
    runtime = imported["onnxruntime"]
    plugged_in = provider == _PROVIDERS["onnxruntime:tensorrt-rtx"] and probes.has_module(_RTX_PLUGIN)
    return plugged_in or (provider in runtime.providers and provider not in runtime.broken)
