"""Execution providers of ONNX Runtime: which this build has, how each is asked for, and why one did not load.

A provider that does not load leaves ONNX Runtime on the CPU, with a line in its log and nothing else
(https://github.com/microsoft/onnxruntime/issues/17801, /23647). Here that is an error.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

from clipdeploy.errors import BackendError, InputError, MissingExtraError
from clipdeploy.machine.install import install_line
from clipdeploy.machine.provider_libraries import does_not_link, preload
from clipdeploy.manifest import sha256_file
from clipdeploy.runtime.remembered import cache_folder
from clipdeploy.spec import TensorSpec

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
TENSORRT_RTX = "NvTensorRTRTXExecutionProvider"
PROVIDERS = {
    CPU: "onnxruntime",
    CUDA: "onnxruntime:cuda",
    TENSORRT: "onnxruntime:tensorrt",
    TENSORRT_RTX: "onnxruntime:tensorrt-rtx",
}
"""ONNX Runtime's name of a provider -> this package's name of the backend."""

# NVIDIA's plugin, which brings the provider to any wheel (https://nvidia.github.io/TensorRT-RTX-EP-ABI/).
_RTX_PLUGIN = "onnxruntime_ep_nv_tensorrt_rtx"
# what stands in an error of the dynamic linker or of CUDA -> what it means
_CAUSES = (
    (r"libcuda\.so", "the NVIDIA driver is not installed, or the container was not started with --gpus all"),
    (r"libnvinfer|libnvonnxparser|TensorRT libraries", "the TensorRT that it was made for is missing"),
    (r"libcudnn", "the cuDNN that it was made for is missing"),
    (r"lib(cu(dart|blas|rand|fft)\w*|nvrtc)\.so\.(?P<major>\d+)", "CUDA {major}, which it was made for, is missing"),
    (r"driver version is insufficient|forward compat", "the NVIDIA driver is older than the CUDA it was made for"),
    (r"no CUDA-capable device|Invalid device ID", "no GPU is visible to this process; see CUDA_VISIBLE_DEVICES"),
    (r"no kernel image", "it was not made for this GPU's compute capability"),
)
# Rows of the largest batch that a TensorRT provider builds for; more are cut.
_LARGEST_BATCH = 32


@dataclass(frozen=True)
class Batches:
    """The input of a graph, and how many rows it is to be built for.

    Attributes:
        input: of the graph.
        usual: rows that one run usually has.
        largest: rows that one run has at most.
    """

    input: TensorSpec
    usual: int
    largest: int

    @staticmethod
    def of(tensor: TensorSpec, usual: int) -> Batches:
        """From one row to what a run may have."""
        return Batches(tensor, usual, max(usual, _LARGEST_BATCH))

    def shapes(self, prefix: str) -> dict[str, str]:
        """Provider options such as `trt_profile_min_shapes`: `pixel_values:1x3x224x224`."""
        row = "".join(f"x{size}" for size in self.input.shape[1:])
        rows = {"min": 1, "opt": self.usual, "max": self.largest}
        return {f"{prefix}_profile_{name}_shapes": f"{self.input.name}:{count}{row}" for name, count in rows.items()}


def import_onnxruntime() -> Any:
    """The engine's module.

    Raises:
        MissingExtraError, BackendError: it is not installed, does not load, or is hollow.
    """
    try:
        import onnxruntime
    except (ImportError, OSError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "onnxruntime":
            raise MissingExtraError("onnxruntime", extra="cpu", needed_for="running a graph on the CPU") from error
        raise BackendError(
            f"onnxruntime is installed but does not import: {_first_line(error)}", fix=install_line("onnxruntime")
        ) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        # Two wheels share this folder; uninstalling one of them leaves it hollow.
        raise BackendError(
            "onnxruntime is installed but empty, as happens when onnxruntime and onnxruntime-gpu replace each other",
            fix="pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'clipdeploy[cpu]'",
        )
    return onnxruntime


def available_providers() -> tuple[str, ...]:
    """The providers of this package's backends that this build of ONNX Runtime has; empty where it does not import.

    It says nothing of the device, nor whether the provider's own libraries load.
    """
    try:
        ort = import_onnxruntime()
    except (MissingExtraError, BackendError):
        return ()
    built_in = set(ort.get_available_providers())
    return tuple(name for name in PROVIDERS if name in built_in or (name == TENSORRT_RTX and _takes_plugin(ort)))


def check_provider(provider: str) -> None:
    """Raise InputError unless `provider` is one that this package knows."""
    if provider not in PROVIDERS:
        raise InputError(
            f"unknown provider {provider!r}; expected one of {', '.join(PROVIDERS)}", fix=f'pass provider="{CPU}"'
        )


def ask_for(ort: Any, provider: str, options: Any, batches: Batches, graph: Path) -> dict[str, Any]:
    """Prepare a session on a provider other than the CPU's: arguments of `InferenceSession`.

    Args:
        ort: the engine's module.
        provider: ONNX Runtime's name of it.
        options: the session's, which are added to.
        batches: what to build for, where the provider builds.
        graph: path of the ONNX file.

    Raises:
        BackendError: this build has no such provider, or its plugin does not load.
    """
    if provider not in available_providers():
        found = ", ".join(ort.get_available_providers())
        raise BackendError(
            f"the onnxruntime {ort.__version__} that is installed has no {provider}, only {found}",
            fix=install_line(PROVIDERS[provider]),
        )
    settings = _settings(ort, provider, batches, graph)
    if provider == TENSORRT_RTX and provider not in ort.get_available_providers():
        options.add_provider_for_devices([_plugin_device(ort)], settings)
        return {}
    preload(ort, provider)
    return {"providers": [(provider, settings)]}


def broken(ort: Any, provider: str, said: str | None) -> BackendError:
    """The error for a provider that is installed and does not load.

    Args:
        ort: the engine's module.
        provider: ONNX Runtime's name of it.
        said: what the engine said; None where it said it to its log alone, and the provider's library is asked.
    """
    told = does_not_link(ort, provider) or said or ""
    cause = next((_cause(found, text) for pattern, text in _CAUSES if (found := re.search(pattern, told))), None)
    return BackendError(
        f"{provider} of onnxruntime {ort.__version__} is installed but does not load"
        f"{f': {cause}' if cause else ''} ({told or 'it gave no reason; its log may have one'})",
        fix=install_line(PROVIDERS[provider]),
    )


def _settings(ort: Any, provider: str, batches: Batches, graph: Path) -> dict[str, str]:
    """Provider options (https://onnxruntime.ai/docs/execution-providers/)."""
    if provider == CUDA:
        return {
            "device_id": "0",
            # float32 means float32: TF32 keeps ten bits of it
            "use_tf32": "0",
            # memory as the batches need it, not doubled, on a Jetson the machine's own
            "arena_extend_strategy": "kSameAsRequested",
            # the default tries every algorithm at every new batch size, which stalls a stream, and takes another one
            # in another process
            "cudnn_conv_algo_search": "HEURISTIC",
        }
    folder = str(_kept(ort, provider, batches, graph))
    if provider == TENSORRT_RTX:
        return {"nv_runtime_cache_path": folder, **batches.shapes("nv")}
    return {
        "device_id": "0",
        # without trt_fp16_enable and the like the graph's own types hold, Q/DQ included
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": folder,
        **batches.shapes("trt"),
    }


def _kept(ort: Any, provider: str, batches: Batches, graph: Path) -> Path:
    """The folder for what a provider builds; one a graph, since its own names do not tell weights or shapes apart.

    https://github.com/microsoft/onnxruntime/issues/6455, /32254
    """
    weights = [graph, *(path for path in [graph.with_name(graph.name + ".data")] if path.is_file())]
    name = "-".join(sha256_file(path)[:16] for path in weights)
    kind = PROVIDERS[provider].replace(":", "-")
    folder = cache_folder() / kind / f"{name}-b{batches.usual}-{batches.largest}-{ort.__version__}"
    with contextlib.suppress(OSError):  # the provider builds without it too, each time
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _takes_plugin(ort: Any) -> bool:
    return find_spec(_RTX_PLUGIN) is not None and hasattr(ort, "register_execution_provider_library")


_plugin_lock = Lock()


def _plugin_device(ort: Any) -> Any:
    """The first device of NVIDIA's plugin, which is registered once and stays."""
    try:
        with _plugin_lock:
            name = _register(ort)
    except Exception as error:  # the engine's exceptions have no common base
        raise broken(ort, TENSORRT_RTX, _first_line(error)) from error
    for device in ort.get_ep_devices():
        if device.ep_name == name:
            return device
    raise BackendError(
        f"{TENSORRT_RTX} of {_RTX_PLUGIN} loads, and finds no GPU that it runs on (compute capability 8.0 or later)",
        fix='take backend="onnxruntime:cuda" or "onnxruntime"',
    )


@cache
def _register(ort: Any) -> str:
    plugin = import_module(_RTX_PLUGIN)
    name: str = plugin.get_ep_name()
    ort.register_execution_provider_library(name, plugin.get_library_path())
    return name


def _cause(found: re.Match[str], text: str) -> str:
    named: Mapping[str, str] = found.groupdict()
    return text.format(**named)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
