"""ONNX Runtime, on the CPU or through another of its execution providers."""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Semaphore
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import BackendError
from clipdeploy.machine import free_memory_bytes, usable_cores
from clipdeploy.runtime import placement, providers
from clipdeploy.runtime.huge_pages import huge_pages
from clipdeploy.runtime.providers import import_onnxruntime
from clipdeploy.runtime.session import LOGITS, check_batch
from clipdeploy.spec import BATCH_AXIS, LENGTH_AXIS, LONGEST_NOTE, TensorSpec

__all__ = ["OrtSession", "import_onnxruntime"]

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
# With more threads a single picture is hardly done sooner.
_PAYING_THREADS = 4
# A file that cannot be a graph, whatever runs it.
_BAD_GRAPH = re.compile(r"Load model from|INVALID_PROTOBUF|NO_SUCHFILE|INVALID_GRAPH|NO_MODEL")
_NO_MEMORY = re.compile(
    r"bad_alloc|[Ff]ailed to allocate|out of memory|smaller than requested bytes|ALLOC_FAILED|Cannot allocate memory"
)
_ASKED_BYTES = re.compile(r"(?:buffer of size|requested bytes of) (\d+)")


class OrtSession:
    """One graph in ONNX Runtime; a `Session`.

    No more runs at once than the cores have work for: each that overlaps another takes memory for a batch of its own,
    which ONNX Runtime keeps, in pieces that fit the next batch or do not.

    Args:
        graph: path of an ONNX file with one input and one output; of several outputs `logits` is read.
        threads: threads of one run on the CPU; None takes one for each core that this process may use.
        fuse_qdq: compute in integers where Q/DQ pairs allow it; False computes them as they are written, which is
            slow and what the accuracy of a graph for another engine is measured with.
        provider: ONNX Runtime's name of what computes, one of `providers.PROVIDERS`. It loads and takes the graph, or
            this raises.
        usual_batch: rows that one run usually has; providers that build for a batch build for this one.

    Raises:
        InputError: no such provider.
        MissingExtraError: onnxruntime is not installed.
        BackendError: the file is no graph that this engine can run, memory does not suffice, or the provider is not in
            this build, does not load, or leaves the work to the CPU.
    """

    def __init__(
        self,
        graph: Path,
        *,
        threads: int | None = None,
        fuse_qdq: bool = True,
        provider: str = providers.CPU,
        usual_batch: int = 1,
    ) -> None:
        providers.check_provider(provider)
        ort = import_onnxruntime()
        self._graph = graph
        self.name = f"onnxruntime:{provider}"
        self.largest_batch: int | None = None
        options = _options(ort, threads)
        self._turns = Semaphore(_runs_at_once(threads))
        if provider == providers.CPU:
            self._session = self._open_on_cpu(ort, options, fuse_qdq)
        else:
            self._session = self._open_on(ort, provider, options, usual_batch)
        self.input = _only(self._session.get_inputs(), "input", graph)
        self.output = _only(self._session.get_outputs(), "output", graph)

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """See `Session.run`."""
        check_batch(batch, self.input)
        session = self._session
        if session is None:
            raise BackendError(f"the session of {self._graph.name} is closed", fix="load the bundle again")
        try:
            with self._turns:
                (output,) = session.run((self.output.name,), {self.input.name: batch})
        except Exception as error:  # the engine's exceptions have no common base
            raise self._run_error(batch, error) from error
        result: NDArray[np.float32] = output
        return result

    def close(self) -> None:
        """See `Session.close`."""
        self._session = None

    def _open_on_cpu(self, ort: Any, options: Any, fuse_qdq: bool) -> Any:
        more: dict[str, Any] = {}
        if not fuse_qdq:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
            more["disabled_optimizers"] = _TAKES_Q_APART
        try:
            with huge_pages():
                return ort.InferenceSession(str(self._graph), options, providers=[providers.CPU], **more)
        except Exception as error:  # the engine's exceptions have no common base
            raise self._load_error(ort, error) from error

    def _open_on(self, ort: Any, provider: str, options: Any, usual_batch: int) -> Any:
        """A session on another provider than the CPU's, proven to have loaded and to do the work."""
        given, longest = self._input_of_graph(ort)
        if longest is not None:  # these build, or place their nodes, for the sizes that they are told
            options.add_free_dimension_override_by_name(LENGTH_AXIS, longest)
            given = replace(given, shape=tuple(longest if size == LENGTH_AXIS else size for size in given.shape))
        batches = providers.Batches.of(given, usual_batch)
        arguments = providers.ask_for(ort, provider, options, batches, self._graph)
        if provider != providers.CUDA:
            self.largest_batch = batches.largest
        options.add_session_config_entry(*placement.RECORD)
        with ExitStack() as stack:
            if not placement.can_tell(ort.InferenceSession):
                stack.enter_context(placement.profiled(options))
            try:
                # its own fallback opens the graph on the CPU, and again when a run fails
                session = ort.InferenceSession(str(self._graph), options, enable_fallback=False, **arguments)
            except Exception as error:  # the engine's exceptions have no common base
                if _BAD_GRAPH.search(str(error)) or _NO_MEMORY.search(str(error)):
                    raise self._load_error(ort, error) from error
                raise providers.broken(ort, provider, _first_line(error)) from error
            if session.get_providers()[0] != provider:
                raise providers.broken(ort, provider, None)
            row = np.zeros([1, *(int(size) for size in batches.input.shape[1:])], batches.input.dtype)
            placement.check_placement(
                session, provider, self._graph, lambda: session.run(None, {batches.input.name: row})
            )
        return session

    def _input_of_graph(self, ort: Any) -> tuple[TensorSpec, int | None]:
        """What the graph takes, read without a rewriting of it; and where the length of texts is free, the longest."""
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = _LOG_ERRORS_ONLY
        options.add_session_config_entry("session.disable_prepacking", "1")
        try:
            session = ort.InferenceSession(str(self._graph), options, providers=[providers.CPU])
        except Exception as error:  # the engine's exceptions have no common base
            raise self._load_error(ort, error) from error
        given = _only(session.get_inputs(), "input", self._graph)
        stated = session.get_modelmeta().custom_metadata_map.get(LONGEST_NOTE)
        return given, int(stated) if stated is not None and LENGTH_AXIS in given.shape else None

    def _load_error(self, ort: Any, error: Exception) -> BackendError:
        said = _first_line(error)
        if _is_memory(error):
            weights = self._graph.stat().st_size
            return BackendError(
                f"memory does not suffice to load {self._graph} into {self.name}: its file alone has {_size(weights)}, "
                f"and loading takes about twice that{_free(2 * weights)} ({said})",
                fix="free memory, or load a smaller precision (fp16, int8) or a smaller model",
            )
        return BackendError(
            f"onnxruntime {ort.__version__} cannot load {self._graph}: {said}",
            fix="upgrade onnxruntime, or export the checkpoint again with a lower --opset",
        )

    def _run_error(self, batch: NDArray[Any], error: Exception) -> BackendError:
        said = _first_line(error)
        what = f"{self._graph} with {self.input.name} {batch.dtype} {batch.shape}"
        if not _is_memory(error):
            return BackendError(f"{self.name} failed on {what}: {said}", fix="run: clipdeploy verify")
        asked = _ASKED_BYTES.search(str(error))
        need = f"; it asked for another {_size(int(asked[1]))}{_free(int(asked[1]))}" if asked else ""
        rows = len(batch)
        return BackendError(
            f"memory does not suffice to run {what} in {self.name}: {rows} rows at a time{need} ({said})",
            fix=f"pass a smaller batch_size, such as {max(1, rows // 4)}"
            if rows > 1
            else "free memory, or load a smaller precision (fp16, int8) or a smaller model",
        )


def _options(ort: Any, threads: int | None) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _LOG_ERRORS_ONLY
    # The engine's own choice is the machine's cores, whatever share of them a container or an affinity leaves.
    options.intra_op_num_threads = threads or usable_cores()
    options.inter_op_num_threads = 1
    # Without a plan of memory for each batch size, which is kept for good, the arena serves all from the same blocks.
    options.enable_mem_pattern = False
    # Between two operators a thread had better not sleep; between two frames it had, and left alone it keeps a core
    # busy for some 30 ms after each run. Engines before this setting ignore it.
    options.add_session_config_entry("session.intra_op.spin_duration_us", "1000")
    return options


def _is_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)) is not None


def _free(needed: int) -> str:
    """How much the machine has free, where that is what falls short: a limit on the process may, and a GPU's memory."""
    free = free_memory_bytes()
    return "" if free is None or free >= needed else f", {_size(free)} are free"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _runs_at_once(threads: int | None) -> int:
    """How many runs keep the cores busy, each taking `threads`, or as many as pay for one picture."""
    return max(1, usable_cores() // min(threads or _PAYING_THREADS, _PAYING_THREADS))


def _only(tensors: list[Any], role: str, graph: Path) -> TensorSpec:
    """The one input or output of a graph, or its logits."""
    if role == "output" and len(tensors) > 1:
        tensors = [t for t in tensors if t.name == LOGITS] or tensors
    if len(tensors) != 1:
        names = ", ".join(t.name for t in tensors) or "none"
        raise BackendError(
            f"{graph} must have one {role}, it has: {names}", fix="export the checkpoint with clipdeploy export"
        )
    (tensor,) = tensors
    shape = tuple(size if isinstance(size, int) else str(size or BATCH_AXIS) for size in tensor.shape)
    return TensorSpec(tensor.name, _DTYPES.get(tensor.type, tensor.type), shape)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
