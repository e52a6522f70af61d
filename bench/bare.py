"""The engines by themselves: PyTorch, ONNX Runtime and OpenVINO as their users call them, without clipdeploy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.common import OUT, checkpoint_of

Pixels = NDArray[np.float32]
Embed = Callable[[Pixels], NDArray[np.float32]]


class NotHereError(Exception):
    """A candidate that cannot run on this machine, and why."""


class PyTorch:
    """An open_clip architecture with the seeded random weights of `clipdeploy export --random-weights`."""

    def __init__(self, model: str, threads: int) -> None:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str((OUT / "inductor").resolve()))
        import torch

        from clipdeploy.export.load import load_checkpoint

        torch.set_num_threads(threads)
        self.torch = torch
        self.network: Any = load_checkpoint(checkpoint_of(model)).model.eval()

    def eager(self, pixels: Pixels) -> NDArray[np.float32]:
        """(N, 3, H, W) -> (N, D) in float32."""
        with self.torch.inference_mode():
            return self._encode(self.torch.from_numpy(pixels)).numpy()  # type: ignore[no-any-return]

    def compiled(self, pixels: Pixels) -> Embed:
        """`torch.compile` for batches like `pixels`, compiled and called once.

        Raises:
            NotHereError: there is no C++ compiler, which inductor needs on a processor, or it failed.
        """
        if not any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))):
            raise NotHereError("torch.compile needs a C++ compiler, and neither g++ nor clang++ is here")
        self.torch._dynamo.reset()
        compiled = self.torch.compile(self._encode, dynamic=False)

        def encode(pixels: Pixels) -> NDArray[np.float32]:
            with self.torch.inference_mode():
                return compiled(self.torch.from_numpy(pixels)).numpy()  # type: ignore[no-any-return]

        try:
            encode(pixels)
        except Exception as error:  # whatever a compiler may end with
            raise NotHereError(f"torch.compile failed: {_first_line(error)}") from error
        return encode

    def _encode(self, tensor: Any) -> Any:
        return self.network.encode_image(tensor, normalize=True)


def onnxruntime_bare(graph: Path, threads: int) -> Embed:
    """A session with that many threads, and all else as ONNX Runtime has it by default."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels})[0]  # type: ignore[no-any-return]


def openvino_bare(graph: Path, threads: int, hint: str | None = None) -> tuple[Embed, str]:
    """A model compiled for latency, and the precision that OpenVINO says it computes in.

    Args:
        graph: path of an ONNX file.
        threads: of one inference.
        hint: `f32` or `bf16`; None leaves the precision to OpenVINO, which takes BF16 where the processor has it.

    Raises:
        NotHereError: OpenVINO is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise NotHereError("OpenVINO is not installed: pip install 'clipdeploy[openvino]'") from error
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": str(threads)}
    if hint is not None:
        config["INFERENCE_PRECISION_HINT"] = hint
    compiled = openvino.Core().compile_model(str(graph), "CPU", config)
    return lambda pixels: compiled(pixels)[0], compiled.get_property("INFERENCE_PRECISION_HINT").to_string()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
