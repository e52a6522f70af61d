"""The shared libraries of ONNX Runtime's execution providers: made findable, and asked whether they link.

A provider whose libraries do not link is listed all the same, and ONNX Runtime goes on without it.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

TENSORRT = "TensorrtExecutionProvider"
_LIBRARIES = {
    "CUDAExecutionProvider": "libonnxruntime_providers_cuda.so",
    TENSORRT: "libonnxruntime_providers_tensorrt.so",
    "NvTensorRTRTXExecutionProvider": "libonnxruntime_providers_nv_tensorrt_rtx.so",
}


def preload(ort: Any, provider: str) -> None:
    """Load what came as Python packages of CUDA, cuDNN and TensorRT, which the dynamic linker does not find.

    Args:
        ort: the module onnxruntime.
        provider: ONNX Runtime's name of the provider.
    """
    if hasattr(ort, "preload_dlls") and find_spec("nvidia") is not None:  # from ONNX Runtime 1.21 on
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it misses, and asking the linker tells
            ort.preload_dlls()
    if provider == TENSORRT and find_spec("tensorrt") is not None:
        with contextlib.suppress(ImportError, OSError, RuntimeError):
            import_module("tensorrt")


def does_not_link(ort: Any, provider: str) -> str | None:
    """What the dynamic linker says of a provider's library; None where it links, or is nowhere to be found."""
    library = Path(ort.__file__).parent / "capi" / _LIBRARIES.get(provider, "none")
    if not library.is_file():
        return None
    try:
        ctypes.CDLL(str(library.with_name("libonnxruntime_providers_shared.so")), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error)
    return None


def broken_providers(ort: Any) -> dict[str, str]:
    """The providers that onnxruntime lists and that do not link -> what the linker says."""
    found = {}
    for provider in ort.get_available_providers():
        if provider in _LIBRARIES:
            preload(ort, provider)
            told = does_not_link(ort, provider)
            if told is not None:
                found[provider] = told
    return found
