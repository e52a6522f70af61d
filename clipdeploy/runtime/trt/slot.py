"""A place on the GPU where one batch at a time is computed; a session has one, or several."""

from __future__ import annotations

from collections import Counter, OrderedDict
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from clipdeploy.errors import BackendError
from clipdeploy.runtime.trt.contexts import Contexts
from clipdeploy.runtime.trt.cuda import Cuda
from clipdeploy.runtime.trt.device_array import Lease
from clipdeploy.runtime.trt.host_memory import HostMemory
from clipdeploy.runtime.trt.incoming import Incoming
from clipdeploy.runtime.trt.plan import said
from clipdeploy.runtime.trt.ports import Ports

GRAPHS = 4
"""CUDA graphs that a place holds at most."""
_OFTEN = 3
"""Runs of a batch size from which on it is worth a CUDA graph."""
_IDLE = 64
"""Runs after which a CUDA graph that was not used gives way to another."""
_FAILURES = 2
"""CUDA graphs that may fail, as something else may have come between, before no more are made."""
_PART_BYTES = 1 << 20
"""Batches go to the GPU in such parts, so that one part is put in place while another one travels."""

Shape = tuple[int, int]
"""Index of the profile, and rows that are computed."""


@dataclass
class Common:
    """What the places of one session share.

    Attributes:
        ports: what the engine takes and gives.
        contexts: makes its contexts.
        cuda: the GPU.
        log: the product's.
        name: of backend and device, for messages.
        path: the engine's file, for messages.
        graphs: whether CUDA graphs are made.
        notes: what people should know of how it runs.
    """

    ports: Ports
    contexts: Contexts
    cuda: Cuda
    log: Any
    name: str
    path: Path
    graphs: bool
    notes: list[str]
    failures: int = 0
    met: set[Shape] = field(default_factory=set)

    def no_graphs(self, why: str, *, for_good: bool) -> None:
        """Count a CUDA graph that could not be made; note it when no more are tried."""
        self.failures += 1
        if (for_good or self.failures >= _FAILURES) and self.graphs:
            self.graphs = False
            self.notes.append(f"no CUDA graphs: {why}")


@dataclass
class Recorded:
    """A CUDA graph, and the context that it was recorded from and that nothing else may touch."""

    context: Any
    graph: Any
    used: int


class Slot:
    """A stream, its buffers, and contexts that share one scratch memory. Not for two threads at once.

    A batch size that comes often is recorded as a CUDA graph, which starts its hundreds of kernels with one call. A
    graph holds as long as its context stays as it was recorded, so each has a context of its own:
    https://docs.nvidia.com/deeplearning/tensorrt/latest/performance/best-practices.html

    Raises:
        BackendError: what it needs does not fit into memory.
    """

    def __init__(self, common: Common) -> None:
        self._common, self._cuda = common, common.cuda
        self._graphs: OrderedDict[Shape, Recorded] = OrderedDict()
        self._runs: Counter[Shape] = Counter()
        self._turn = 0
        self._ready: Shape | None = None
        self._memory: list[int] = []
        ports, cuda = common.ports, common.cuda
        given, answer = ports.row_bytes
        rows = ports.largest
        with ExitStack() as undo:
            undo.callback(self.release)
            self.context: Any = None
            self._host: HostMemory | None = None
            self._read: Any = None
            self.stream = cuda.new_stream()
            self._scratch = 0
            if common.contexts.scratch_bytes:
                self._scratch = self._take(common.contexts.scratch_bytes, "the engine's intermediate results", False)
            self._input = self._take(rows * given, f"{rows} rows of {ports.input.name}", True)
            self._output = self._take(rows * answer, f"{rows} rows of {ports.output.name}", True)
            self._unread = {
                tensor.name: self._take(rows * size, f"{rows} rows of {tensor.name}", False)
                for tensor, size in zip(ports.unread, ports.unread_row_bytes, strict=True)
            }
            self._host = HostMemory(cuda, ports)
            self.event = cuda.new_event()
            self._read = cuda.new_event()
            self.context = common.contexts.make(self._scratch)
            undo.pop_all()

    def _take(self, size_bytes: int, what: str, clear: bool) -> int:
        address = self._cuda.allocate(size_bytes, what, clear=clear)
        self._memory.append(address)
        return address

    def run(self, batch: NDArray[Any], shape: Shape) -> NDArray[Any]:
        """A batch from the machine's memory through the engine; the answer is the caller's own array."""
        cuda, host = self._cuda, self._host
        assert host is not None
        try:
            self._upload(batch, host)
            self._compute(shape)
            target, size = host.answer(len(batch))
            cuda.download(self._output, host.output_address, size, self.stream)
        finally:
            cuda.wait(self.stream)  # whatever happened, nothing may still use this memory
        own: NDArray[Any] = target.copy()
        return own

    def run_on_device(self, incoming: Incoming, shape: Shape, lease: Lease) -> None:
        """A batch from the GPU's memory through the engine, into that of `lease`; returns when the batch is read."""
        cuda = self._cuda
        try:
            cuda.copy(incoming.address, self._input, incoming.size_bytes, self.stream)
            cuda.record(self._read, self.stream)
            self._compute(shape)
            size = incoming.shape[0] * self._common.ports.row_bytes[1]
            cuda.copy(self._output, lease.address, size, self.stream)
            lease.written(self.stream)
            cuda.wait_for(self._read)  # from here on its owner may write there again
        except BaseException:
            with suppress(BackendError):
                cuda.wait(self.stream)
            raise

    def release(self) -> None:
        """Give everything back: what computes, then what it computes with."""
        cuda = self._cuda
        stream = getattr(self, "stream", None)
        if stream is not None:
            with suppress(BackendError):
                cuda.wait(stream)
        while self._graphs:
            cuda.destroy_graph(self._graphs.popitem()[1].graph)
        self.context = None
        while self._memory:
            cuda.free(self._memory.pop())
        if self._host is not None:
            self._host.release()
            self._host = None
        for event in (self._read, getattr(self, "event", None)):
            if event is not None:
                cuda.destroy_event(event)
        if stream is not None:
            cuda.destroy_stream(stream)

    def _upload(self, batch: NDArray[Any], host: HostMemory) -> None:
        given = self._common.ports.row_bytes[0]
        step = max(1, _PART_BYTES // given)
        for start in range(0, len(batch), step):
            part = batch[start : start + step]
            host.input[start : start + len(part)] = part
            offset = start * given
            self._cuda.upload(host.input_address + offset, self._input + offset, len(part) * given, self.stream)

    def _compute(self, shape: Shape) -> None:
        """What is in the input buffer to the output buffer, in the stream's turn."""
        self._turn += 1
        recorded = self._graphs.get(shape)
        if recorded is not None:
            recorded.used = self._turn
            self._graphs.move_to_end(shape)
            self._cuda.launch(recorded.graph, self.stream)
            return
        self._common.log.lines.clear()
        if not (self._worth_a_graph(shape) and self._record(shape)):
            self._enqueue(self.context, shape)
        if shape not in self._common.met:
            self._common.met.add(shape)
            self._common.contexts.keep_kernels()

    def _enqueue(self, context: Any, shape: Shape) -> None:
        """Compute with the context that is for all batch sizes."""
        if shape != self._ready:
            before = self._ready
            self._ready = None
            self._prepare(context, shape, None if before is None else before[0])
            self._ready = shape
        done = context.execute_async_v3(self.stream)
        if not done:
            self._ready = None
        self._expect(done, shape)

    def _prepare(self, context: Any, shape: Shape, profile: int | None) -> None:
        """Make a context ready for a batch size; `profile` is that which it has, None where that is not known."""
        ports, (index, rows) = self._common.ports, shape
        if index != profile and len(ports.profiles) > 1:
            self._expect(context.set_optimization_profile_async(index, self.stream), shape)
        self._expect(context.set_input_shape(ports.input.name, (rows, *ports.input.shape[1:])), shape)
        places = {ports.input.name: self._input, ports.output.name: self._output, **self._unread}
        for name, address in places.items():
            self._expect(context.set_tensor_address(name, address), shape)

    def _worth_a_graph(self, shape: Shape) -> bool:
        self._runs[shape] += 1
        if not self._common.graphs or self._runs[shape] < _OFTEN:
            return False
        oldest = next(iter(self._graphs.values()), None)
        return len(self._graphs) < GRAPHS or (oldest is not None and self._turn - oldest.used >= _IDLE)

    def _record(self, shape: Shape) -> bool:
        """Compute this batch with a context of its own and record how; whether the batch was computed."""
        cuda, common, stream = self._cuda, self._common, self.stream
        try:
            context = common.contexts.make(self._scratch)
            self._prepare(context, shape, None)
        except BackendError as error:
            cuda.check()
            common.no_graphs(error.message, for_good=True)
            return False
        # What a new shape changes inside the engine is done with the first batch, and must not be recorded.
        self._expect(context.execute_async_v3(stream), shape)
        cuda.wait(stream)
        try:
            if not _can_record(context, stream):
                common.no_graphs(f"{common.name} says that this engine cannot be recorded", for_good=True)
                return True
            while len(self._graphs) >= GRAPHS:
                cuda.destroy_graph(self._graphs.popitem(last=False)[1].graph)
            graph = cuda.capture(stream, lambda: self._expect(context.execute_async_v3(stream), shape))
        except BackendError as error:
            cuda.check()
            self._runs[shape] = 0
            common.no_graphs(error.message, for_good=False)
            return True
        self._graphs[shape] = Recorded(context, graph, self._turn)
        return True

    def _expect(self, done: bool, shape: Shape) -> None:
        if done:
            return
        common, rows = self._common, shape[1]
        self._cuda.check()
        tensor = common.ports.input
        raise BackendError(
            f"{common.name} failed on {common.path} with {tensor.name} {tensor.dtype} {(rows, *tensor.shape[1:])}: "
            f"{said(common.log)}",
            fix="pass a smaller batch if memory ran out; else build the engine anew: clipdeploy build-engine",
        )


def _can_record(context: Any, stream: int) -> bool:
    """Whether the product lets the context be recorded; one that cannot be asked is tried."""
    if hasattr(context, "is_stream_capturable"):
        return bool(context.is_stream_capturable(stream))
    return True
