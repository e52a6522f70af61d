"""OpenVINO, on x86 and ARM processors and on Intel GPUs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import BackendError
from clipdeploy.machine.memory import free_memory_bytes
from clipdeploy.memory import give_back
from clipdeploy.runtime.ov.parts import Part, cut
from clipdeploy.runtime.ov.product import (
    Device,
    available_devices,
    core,
    import_openvino,
    require_device,
    said,
    settings,
)
from clipdeploy.runtime.ov.rewrite import rewrite
from clipdeploy.runtime.session import LOGITS, check_batch
from clipdeploy.spec import BATCH_AXIS, LENGTH_AXIS, LONGEST_NOTE, Precision, TensorSpec

__all__ = ["OpenVinoSession", "available_devices"]

# One computes while another takes its batch and hands over its answer; what they compute with, they share.
_REQUESTS = 2
# The batch of what is compiled for any batch.
_ANY = 0
# Of the graph's size, what reading it takes: its file's bytes and the constants made of them, of ViT-B/32 in fp32.
_READING = 2


class OpenVinoSession:
    """One graph in OpenVINO; a `Session`.

    It is compiled for batches of `usual_batch`, which is up to an eighth faster than for any batch, and once more for
    any batch when the first other one comes, which takes about as long as loading did. Which of the two runs depends on
    the number of rows alone, so equal batches give equal answers. Each holds weights of its own: there are no more. A
    text encoder on the CPU is compiled once, for any batch: it gains nothing from knowing its batch.

    Args:
        graph: path of an ONNX file with one input and one output; of several outputs `logits` is read. In int8 one with
            Q/DQ pairs, for target tensorrt.
        device: where to compute.
        precision: what to compute an encoder in; what is before and behind it in a baked graph is computed in f32. In
            int8 what is not quantised is computed in bf16 where the processor has it, in
            f16 on a GPU, else in f32; in fp16 the weights have 16 bits and a processor computes in f32.
        threads: of one run; None leaves it to OpenVINO, which takes one a physical core.
        usual_batch: rows that one run usually has; a batch that lacks no more than an eighth of them is filled up.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        BackendError: it does not load, does not find the device, cannot run the graph, or not in this precision.
    """

    def __init__(
        self,
        graph: Path,
        *,
        device: Device = "cpu",
        precision: Precision = Precision.FP32,
        threads: int | None = None,
        usual_batch: int = 1,
    ) -> None:
        self._library = import_openvino()
        self._device = require_device(device)
        self._settings = {
            exact: settings(self._device, Precision.FP32 if exact else precision, threads) for exact in (False, True)
        }
        self._graph, self._usual_batch = graph, usual_batch
        self.name = f"openvino:{self._device}"
        self.largest_batch: int | None = None
        self._compiling, self._compiled = Lock(), dict[int, _Compiled]()
        self._closed = False
        with self._told("cannot load", fix="pass an ONNX graph of a bundle, in fp32, fp16, or int8 for tensorrt"):
            model = _read(graph)
            if device == "gpu":
                _fix_length(model)
        self.input = _only(model.inputs, "input", graph)
        self.output = _only(model.outputs, "output", graph)
        if device == "cpu" and np.dtype(self.input.dtype).kind == "i":  # token ids
            self._usual_batch = _ANY
        with self._told("cannot prepare"):
            self._parts: list[Part] = cut(model, self.output.name)
            for part in self._parts:
                rewrite(part.model)
        self._for(self._usual_batch)

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """See `Session.run`."""
        check_batch(batch, self.input)
        rows = len(batch)
        compiled = self._for(rows)
        try:
            return compiled.run(batch)
        except _ClosedError:
            raise self._closed_error() from None
        except Exception as error:  # the engine's exceptions have no common base
            raise BackendError(
                f"{self.name} failed on {self._graph} with {self.input.name} {batch.dtype} {batch.shape}: "
                f"{said(error)}",
                fix="pass a smaller batch if memory ran out",
            ) from error

    def close(self) -> None:
        """See `Session.close`; runs that began before it end first."""
        with self._compiling:
            self._closed, self._parts = True, []
            compiled, self._compiled = self._compiled, {}
        for each in compiled.values():
            each.close()
        give_back()

    def _for(self, rows: int) -> _Compiled:
        """What runs a batch of `rows`, compiled at its first use."""
        fixed = self.input.shape[0]
        size = fixed if isinstance(fixed, int) else compiled_size(rows, self._usual_batch)
        compiled = self._compiled.get(size)
        if compiled is not None:
            return compiled
        with self._compiling:
            if self._closed:
                raise self._closed_error()
            if size not in self._compiled:
                self._compiled[size] = self._compile(size)
            return self._compiled[size]

    def _compile(self, size: int) -> _Compiled:
        """The graph for batches of `size`, 0 being any."""
        with self._told(
            "cannot compile", fix="use a smaller model or precision if memory ran out; or upgrade openvino"
        ):
            # the models share their constants, so one more costs what is laid out for it
            made = []
            for part in self._parts:
                _, *axes = part.model.input(0).get_partial_shape()
                part.model.reshape([size or -1, *(-1 if axis.is_dynamic else axis.get_length() for axis in axes)])
                made.append(core().compile_model(part.model, self._device, self._settings[part.exact]))
            compiled = _Compiled(self._library, made, size)
        give_back()
        return compiled

    def _closed_error(self) -> BackendError:
        return BackendError(f"the session of {self._graph.name} is closed", fix="load the bundle again")

    @contextmanager
    def _told(self, what: str, fix: str = "upgrade openvino: pip install -U 'clipdeploy[openvino]'") -> Iterator[None]:
        """What the engine raises, as an error of this package."""
        try:
            yield
        except Exception as error:  # the engine's exceptions have no common base
            why, version = said(error), self._library.__version__.split("-")[0]
            if isinstance(error, MemoryError):
                fix = "use a smaller model or precision, or free memory"
            if "com.microsoft" in str(error):
                why = "it has operators of ONNX Runtime's own, as graphs for target cpu do"
                fix = (
                    'pass backend="onnxruntime"; or quantise it for this engine: clipdeploy quantize --target tensorrt'
                )
            raise BackendError(f"openvino {version} {what} {self._graph} on {self._device}: {why}", fix=fix) from error


def compiled_size(rows: int, usual_batch: int) -> int:
    """The batch that a batch of `rows` is computed as: `usual_batch`, or `_ANY`, which is 0."""
    return usual_batch if usual_batch - usual_batch // 8 <= rows <= usual_batch else _ANY


class _ClosedError(Exception):
    """Nobody may run any more."""


class _Compiled:
    """A compiled graph with its requests, each used by one thread at a time.

    Args:
        library: OpenVINO's module.
        parts: compiled; each takes what the one before gives.
        size: rows that it takes, 0 being any number.
    """

    def __init__(self, library: Any, parts: list[Any], size: int) -> None:
        self._tensor, self._size = library.Tensor, size
        self._idle: SimpleQueue[_Request | None] = SimpleQueue()
        for _ in range(_REQUESTS):
            self._idle.put(_Request([part.create_infer_request() for part in parts]))

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """`batch`, filled up to the size, to its rows' answers."""
        request = self._idle.get()
        if request is None:
            self._idle.put(None)
            raise _ClosedError
        try:
            given = batch if len(batch) == (self._size or len(batch)) else request.filled(batch, self._size)
            if not (given.flags.c_contiguous and given.flags.writeable and given.flags.aligned):
                given = np.array(given, order="C")  # OpenVINO reads plain arrays where they lie, and no others
            tensor = self._tensor(given, shared_memory=True)
            for infer in request.parts:
                infer.set_input_tensor(tensor)
                try:
                    # in OpenVINO's own threads: run in this one, each thread that ever calls would get a pool of them
                    infer.start_async()
                finally:
                    infer.wait()  # whatever happened, nothing may still read the batch
                tensor = infer.get_output_tensor()
            answer: NDArray[np.float32] = tensor.data[: len(batch)].astype(np.float32)
            return answer
        finally:
            self._idle.put(request)

    def close(self) -> None:
        """Wait for those that run, and let the memory go."""
        for _ in range(_REQUESTS):
            self._idle.get()
        self._idle.put(None)


class _Request:
    """One of OpenVINO's requests a part, with room for a batch that is filled up."""

    def __init__(self, parts: list[Any]) -> None:
        self.parts = parts
        self._room: NDArray[Any] | None = None

    def filled(self, batch: NDArray[Any], size: int) -> NDArray[Any]:
        """`batch` with zeros, or what stood there, up to `size` rows: rows do not depend on one another."""
        if self._room is None:
            self._room = np.zeros((size, *batch.shape[1:]), batch.dtype)
        self._room[: len(batch)] = batch
        return self._room


def _read(graph: Path) -> Any:
    if not graph.is_file():
        raise FileNotFoundError("there is no such file")
    _check_memory(graph)
    return core().read_model(str(graph))


def _fix_length(model: Any) -> None:
    """Of a graph that takes texts of any length, have it take the longest: GPUs compile anew for each length."""
    note = ["framework", LONGEST_NOTE]  # where OpenVINO keeps a file's metadata
    if model.has_rt_info(note):
        batch, _ = model.input(0).get_partial_shape()
        model.reshape([batch, int(model.get_rt_info(note).astype(str))])


def _only(tensors: list[Any], role: str, graph: Path) -> TensorSpec:
    """The one input or output of a graph, or its logits."""
    if role == "output" and len(tensors) > 1:
        tensors = [tensor for tensor in tensors if LOGITS in tensor.get_names()] or tensors
    if len(tensors) != 1:
        names = ", ".join(tensor.get_any_name() for tensor in tensors) or "none"
        raise BackendError(
            f"{graph} must have one {role}, it has: {names}", fix="export the checkpoint with clipdeploy export"
        )
    (tensor,) = tensors
    axes = (BATCH_AXIS, LENGTH_AXIS)  # those that our graphs leave open
    shape = tuple(
        axes[min(place, 1)] if size.is_dynamic else int(size.get_length())
        for place, size in enumerate(tensor.get_partial_shape())
    )
    return TensorSpec(tensor.get_any_name(), np.dtype(tensor.get_element_type().to_dtype()).name, shape)


def _check_memory(graph: Path) -> None:
    """Raise MemoryError where there is not even room to read the graph, which ends OpenVINO by a fault."""
    needed = _READING * graph.stat().st_size
    free = min((free for free in (free_memory_bytes(), _left_of_addresses()) if free is not None), default=needed)
    if free < needed:
        raise MemoryError(f"reading it takes {needed >> 20} MiB of memory, {free >> 20} MiB are free")


def _left_of_addresses() -> int | None:
    """What a limit on this process (`ulimit -v`) leaves; None where there is none."""
    if sys.platform != "linux":
        return None
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    taken = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
    return max(0, limit - taken)
