"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import BackendError, MissingExtraError
from clipdeploy.runtime.huge_pages import huge_pages
from clipdeploy.runtime.session import check_batch
from clipdeploy.spec import TensorSpec

_PROVIDER = "CPUExecutionProvider"
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}
# Warnings of the engine's own graph rewriting say nothing to a user; errors arrive as exceptions.
_LOG_ERRORS_ONLY = 3
# Removes a Relu in front of Q where its zero is the smallest number; it believes so of every 8-bit float (1.31).
_TAKES_Q_APART = ["ReluQuantRewrite", "ClipQuantRewrite"]


class OrtSession:
    """One graph in ONNX Runtime; a `Session`.

    Args:
        graph: path of an ONNX file with one input and one output.
        threads: threads of one run; None leaves it to ONNX Runtime, which takes one a physical core.
        fuse_qdq: compute in integers where Q/DQ pairs allow it; False computes them as they are written, which is
            slow and what the accuracy of a graph for another engine is measured with.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        BackendError: the file is no graph that this engine can run.
    """

    def __init__(self, graph: Path, *, threads: int | None = None, fuse_qdq: bool = True) -> None:
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = _LOG_ERRORS_ONLY
        if threads is not None:
            options.intra_op_num_threads = threads
        more: dict[str, Any] = {}
        if not fuse_qdq:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
            more["disabled_optimizers"] = _TAKES_Q_APART
        try:
            with huge_pages():
                session = ort.InferenceSession(str(graph), options, providers=[_PROVIDER], **more)
        except Exception as error:  # the engine's exceptions have no common base
            raise BackendError(
                f"onnxruntime {ort.__version__} cannot load {graph}: {_first_line(error)}",
                fix="upgrade onnxruntime, or export the checkpoint again with a lower --opset",
            ) from error
        self._session: Any = session
        self.largest_batch: int | None = None
        self._graph = graph
        self.name = f"onnxruntime:{_PROVIDER}"
        self.input = _only(session.get_inputs(), "input", graph)
        self.output = _only(session.get_outputs(), "output", graph)

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """See `Session.run`."""
        check_batch(batch, self.input)
        session = self._session
        if session is None:
            raise BackendError(f"the session of {self._graph.name} is closed", fix="load the bundle again")
        try:
            (output,) = session.run((self.output.name,), {self.input.name: batch})
        except Exception as error:  # the engine's exceptions have no common base
            raise BackendError(
                f"{self.name} failed on {self._graph} with {self.input.name} {batch.dtype} {batch.shape}: "
                f"{_first_line(error)}",
                fix="pass a smaller batch if memory ran out",
            ) from error
        result: NDArray[np.float32] = output
        return result

    def close(self) -> None:
        """See `Session.close`."""
        self._session = None


def import_onnxruntime() -> Any:
    """The engine's module."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", extra="cpu", needed_for="running a graph on the CPU") from error
    if not hasattr(onnxruntime, "InferenceSession"):
        # Two wheels share this folder; uninstalling one of them leaves it hollow.
        raise BackendError(
            "onnxruntime is installed but empty, as happens when onnxruntime and onnxruntime-gpu replace each other",
            fix="pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'clipdeploy[cpu]'",
        )
    return onnxruntime


def _only(tensors: list[Any], role: str, graph: Path) -> TensorSpec:
    """The one input or output of a graph."""
    if len(tensors) != 1:
        names = ", ".join(t.name for t in tensors) or "none"
        raise BackendError(
            f"{graph} must have one {role}, it has: {names}", fix="export the checkpoint with clipdeploy export"
        )
    (tensor,) = tensors
    shape = tuple(size if isinstance(size, int) else str(size or "batch") for size in tensor.shape)
    return TensorSpec(tensor.name, _DTYPES.get(tensor.type, tensor.type), shape)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
