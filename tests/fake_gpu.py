"""A GPU of the imagination: cuda-python and TensorRT with the names and behaviour that the runtime uses.

Memory has addresses and an end. What goes into a stream is done when the stream is waited for, and not before, as on a
GPU; between streams only events order it. A stream that records does nothing, and some calls end its recording. A graph
holds what its context was when it was recorded, and fails the test when that was changed since. An engine file names an
ONNX graph, which ONNX Runtime computes in the GPU's stead.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from importlib.machinery import ModuleSpec
from pathlib import Path
from threading import RLock, get_ident
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from clipdeploy.bundle import Bundle
from clipdeploy.engine.records import EngineRecord, LayerReport
from clipdeploy.engine.store import add_engine
from clipdeploy.engine_key import EngineBackend, EngineKey, Profile
from clipdeploy.machine import Gpu, Hardware, Jetson
from clipdeploy.runtime.engines import engine_graph, graph_sha256
from clipdeploy.runtime.ort import OrtSession
from clipdeploy.runtime.trt.product import MODULES
from clipdeploy.spec import Precision, TensorSpec, Tower


class CudaError(Enum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorInvalidResourceHandle = 400
    cudaErrorIllegalAddress = 700
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901


class CopyKind(Enum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


OK = CudaError.cudaSuccess


class Properties:
    name = b"Fake GPU\0"
    major, minor, integrated = 8, 9, 0


class SecondGpu(Properties):
    name = b"Second GPU\0"
    minor = 6


class CaptureMode(Enum):
    cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeRelaxed = range(3)


class MemoryType(Enum):
    cudaMemoryTypeUnregistered, cudaMemoryTypeHost, cudaMemoryTypeDevice, cudaMemoryTypeManaged = range(4)


@dataclass
class PointerAttributes:
    type: MemoryType
    device: int


Step = Callable[[], None]


class FakeStream(list[Step]):
    """What a stream still has to do. Everything here is done under the GPU's lock, as the GPU does it."""

    def __init__(self) -> None:
        super().__init__()
        self.done = 0  # steps
        self.capture: list[Step] | None = None  # what is recorded instead of done
        self.broken_capture = False
        self.capturing_thread = 0

    @property
    def given(self) -> int:
        return self.done + len(self)

    def work(self, upto: int) -> None:
        """Do all up to a number of steps."""
        while self.done < upto and self:
            step = self.pop(0)
            self.done += 1
            step()


class FakeCuda(ModuleType):
    """`cuda.bindings.runtime`. Attributes without the prefix `cuda` are the test's."""

    cudaError_t = CudaError
    cudaMemcpyKind = CopyKind
    cudaStreamCaptureMode = CaptureMode
    cudaMemoryType = MemoryType
    cudaStreamNonBlocking = 1
    cudaEventDisableTiming = 2
    cudaEventWaitDefault = 0

    def __init__(self, total: int = 1 << 30) -> None:
        super().__init__("cuda.bindings.runtime")
        self.total = total
        self.start = OK  # what CUDA answers when it starts
        self.driver, self.library, self.device, self.devices = 12060, 12060, 0, 1
        self.memory: dict[int, np.ndarray] = {}
        self.pinned: dict[int, Any] = {}
        self.most_pinned = 1 << 40
        self.queue: dict[int, FakeStream] = {}  # of streams that somebody made
        self.legacy = FakeStream()
        self.events: dict[int, tuple[FakeStream, int] | None] = {}
        self.graphs: dict[int, list[Step]] = {}
        self.failing: CudaError | None = None  # what the next wait answers
        self.sticky: CudaError | None = None  # what everything answers from now on
        self.instantiate = OK  # what making a graph answers
        self.seen_devices: list[int] = []
        self.taken = 0  # allocations ever made
        self.launches = 0  # of graphs
        self.lock = RLock()
        self._next = 0x1000

    def at(self, address: int, size: int) -> np.ndarray:
        """Bytes of the GPU's memory; a KeyError where nothing is."""
        for start, block in self.memory.items():
            if start <= address < start + max(1, block.nbytes):
                assert address + size <= start + block.nbytes, "read or written past the end of the GPU's memory"
                return block[address - start : address - start + size]
        raise KeyError(address)

    def stream(self, stream: int) -> FakeStream:
        return self.legacy if stream == 1 else self.queue[stream]

    def give(self, stream: int, step: Step) -> tuple[Any, ...]:
        """Work for a stream: done when it is waited for, or recorded."""
        with self.lock:
            if self.sticky is not None:
                return (self.sticky,)
            into = self.stream(stream)
            (into if into.capture is None else into.capture).append(step)
            return (OK,)

    def unsafe(self) -> tuple[Any, ...] | None:
        """What a call answers that must not be made while this thread records, which ends the recording."""
        for stream in self.queue.values():
            if stream.capture is not None and stream.capturing_thread == get_ident():
                stream.broken_capture = True
                return (CudaError.cudaErrorStreamCaptureUnsupported, None)
        return None

    @property
    def used(self) -> int:
        return sum(block.nbytes for block in self.memory.values())

    @property
    def left(self) -> tuple[int, int, int, int, int]:
        """What is still held: memory, pinned memory, streams, events, graphs."""
        return self.used, len(self.pinned), len(self.queue), len(self.events), len(self.graphs)

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:
        return (self.start, self.devices if self.start is OK else None)

    def cudaDriverGetVersion(self) -> tuple[Any, ...]:
        return (OK, self.driver)

    def cudaRuntimeGetVersion(self) -> tuple[Any, ...]:
        return (OK, self.library)

    def cudaGetDevice(self) -> tuple[Any, ...]:
        return (OK, self.device)

    def cudaSetDevice(self, device: int) -> tuple[Any, ...]:
        self.device = device
        self.seen_devices.append(device)
        return (OK,)

    def cudaGetDeviceProperties(self, device: int) -> tuple[Any, ...]:
        return (OK, SecondGpu() if device == 1 and self.devices > 1 else Properties())

    def cudaGetErrorName(self, error: CudaError) -> tuple[Any, ...]:
        return (OK, error.name.encode())

    def cudaGetErrorString(self, error: CudaError) -> tuple[Any, ...]:
        return (OK, b"in words")

    def cudaGetLastError(self) -> tuple[Any, ...]:
        return (self.sticky or OK,)

    def cudaMemGetInfo(self) -> tuple[Any, ...]:
        return (OK, self.total - self.used, self.total)

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        with self.lock:
            if (refused := self.unsafe()) is not None:
                return refused
            if self.used + size > self.total:
                return (CudaError.cudaErrorMemoryAllocation, None)
            address, self._next = self._next, self._next + size + 256
            self.memory[address] = np.full(size, 0xCD, np.uint8)
            self.taken += 1
            return (OK, address)

    def cudaMemset(self, address: int, value: int, size: int) -> tuple[Any, ...]:
        self.at(address, size)[:] = value
        return (OK,)

    def cudaFree(self, address: int) -> tuple[Any, ...]:
        with self.lock:
            for stream in (self.legacy, *self.queue.values()):
                stream.work(stream.given)
            del self.memory[address]
            return (OK,)

    def cudaMallocHost(self, size: int) -> tuple[Any, ...]:
        with self.lock:
            if (refused := self.unsafe()) is not None:
                return refused
            if size > self.most_pinned:
                return (CudaError.cudaErrorMemoryAllocation, None)
            memory = (ctypes.c_uint8 * max(1, size))()
            self.pinned[ctypes.addressof(memory)] = memory
            self.taken += 1
            return (OK, ctypes.addressof(memory))

    def cudaFreeHost(self, ptr: int) -> tuple[Any, ...]:
        memory = self.pinned.pop(ptr)
        ctypes.memset(ptr, 0xCD, len(memory))  # whoever still reads there finds it
        return (OK,)

    def cudaPointerGetAttributes(self, ptr: int) -> tuple[Any, ...]:
        try:
            self.at(ptr, 0)
        except KeyError:
            kind = MemoryType.cudaMemoryTypeHost if ptr in self.pinned else MemoryType.cudaMemoryTypeUnregistered
            return (OK, PointerAttributes(kind, -2))
        return (OK, PointerAttributes(MemoryType.cudaMemoryTypeDevice, 1 if ptr in self.elsewhere else 0))

    @property
    def elsewhere(self) -> set[int]:
        """Addresses that are on the second GPU."""
        return self.__dict__.setdefault("_elsewhere", set())

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        with self.lock:
            self._next += 1
            self.queue[self._next] = FakeStream()
            return (OK, self._next)

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:
        with self.lock:
            gone = self.queue.pop(stream)
            assert self.sticky or not gone, "a stream was destroyed with work in it"
            return (OK,)

    def cudaMemcpyAsync(self, dst: int, src: int, size: int, kind: CopyKind, stream: int) -> tuple[Any, ...]:
        def copy() -> None:
            def host(address: int) -> np.ndarray:
                return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

            source = host(src) if kind is CopyKind.cudaMemcpyHostToDevice else self.at(src, size)
            (host(dst) if kind is CopyKind.cudaMemcpyDeviceToHost else self.at(dst, size))[:] = source

        return self.give(stream, copy)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        with self.lock:
            if self.sticky is not None:
                return (self.sticky,)
            waited = self.stream(stream)
            if waited.capture is not None:
                waited.broken_capture = True
                return (CudaError.cudaErrorStreamCaptureUnsupported,)
            if self.failing is not None:
                waited.clear()
                return (self.failing,)
            waited.work(waited.given)
            return (OK,)

    # events

    def cudaEventCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        with self.lock:
            self._next += 1
            self.events[self._next] = None
            return (OK, self._next)

    def cudaEventDestroy(self, event: int) -> tuple[Any, ...]:
        del self.events[event]
        return (OK,)

    def cudaEventRecord(self, event: int, stream: int) -> tuple[Any, ...]:
        with self.lock:
            if stream != 1 and stream not in self.queue:
                return (CudaError.cudaErrorInvalidResourceHandle,)
            marked = self.stream(stream)
            self.events[event] = (marked, marked.given)
            return (self.sticky or OK,)

    def cudaStreamWaitEvent(self, stream: int, event: int, flags: int) -> tuple[Any, ...]:
        with self.lock:
            if stream != 1 and stream not in self.queue:
                return (CudaError.cudaErrorInvalidResourceHandle,)
            mark = self.events[event]  # as it is now: it may be recorded anew later
        return self.give(stream, lambda: mark[0].work(mark[1]) if mark else None)

    def cudaEventSynchronize(self, event: int) -> tuple[Any, ...]:
        with self.lock:
            if self.sticky is not None or self.failing is not None:
                return (self.sticky or self.failing,)
            if mark := self.events[event]:
                mark[0].work(mark[1])
            return (OK,)

    # graphs

    def cudaStreamBeginCapture(self, stream: int, mode: CaptureMode) -> tuple[Any, ...]:
        with self.lock:
            if self.sticky is not None:
                return (self.sticky,)
            recording = self.queue[stream]
            assert recording.capture is None, "recorded twice at once"
            recording.capture, recording.broken_capture, recording.capturing_thread = [], False, get_ident()
            return (OK,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, ...]:
        with self.lock:
            recording = self.queue[stream]
            steps, recording.capture = recording.capture, None
            assert steps is not None, "nothing was recorded"
            assert recording.capturing_thread == get_ident()
            if recording.broken_capture or self.sticky is not None:
                return (self.sticky or CudaError.cudaErrorStreamCaptureInvalidated, None)
            self._next += 1
            self.graphs[self._next] = steps
            return (OK, self._next)

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[Any, ...]:
        with self.lock:
            if self.instantiate is not OK:
                return (self.instantiate, None)
            self._next += 1
            self.graphs[self._next] = self.graphs[graph]
            return (OK, self._next)

    def cudaGraphDestroy(self, graph: int) -> tuple[Any, ...]:
        del self.graphs[graph]
        return (OK,)

    def cudaGraphExecDestroy(self, graphExec: int) -> tuple[Any, ...]:
        del self.graphs[graphExec]
        return (OK,)

    def cudaGraphLaunch(self, graphExec: int, stream: int) -> tuple[Any, ...]:
        self.launches += 1
        answers = [self.give(stream, step) for step in self.graphs[graphExec]]
        return answers[-1] if answers else (OK,)


def write_plan(path: Path, graph: Path, *, bands: list[list[int]], stripped: bool = False, scratch: int = 0) -> Path:
    """An engine file of the fake product."""
    plan = {"graph": str(graph), "bands": bands, "stripped": stripped, "scratch": scratch, "weights": 1 << 20}
    path.write_text(json.dumps(plan), encoding="utf-8")
    return path


def fake_product(cuda: FakeCuda, *, name: str = "tensorrt", version: str = "10.3.0") -> ModuleType:
    """The product's module; `module.notes` keeps what was asked of it."""
    module: Any = ModuleType(name)
    module.__version__, module.__spec__ = version, ModuleSpec(name, None)
    module.notes = []
    module.contexts, module.most_contexts = 0, 1 << 30
    module.unrecordable = False
    module.computed = []  # each context that was started, and whether into a recording

    class ILogger:
        class Severity(Enum):
            INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

        def __init__(self) -> None:
            pass

    class TensorIOMode(Enum):
        NONE, INPUT, OUTPUT = range(3)

    class DataType(Enum):
        FLOAT, HALF, INT8, INT32, BOOL, UINT8, FP8, BF16, INT64 = range(9)

    class ExecutionContextAllocationStrategy(Enum):
        STATIC, ON_PROFILE_CHANGE, USER_MANAGED = range(3)

    class Context:
        def __init__(self, engine: Engine) -> None:
            self.engine = engine
            self.profile = 0
            self.shape: tuple[int, ...] | None = None
            self.addresses: dict[str, int] = {}
            self.scratch: int | None = None
            self.changes = 0  # what a graph that was recorded from it must not see
            self.flushed = -1  # the change that was last computed with

        def set_device_memory(self, memory: int, size: int) -> None:
            cuda.at(memory, size)
            self.scratch = memory

        def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
            assert stream_handle in cuda.queue
            self.profile, self.shape, self.changes = profile_index, None, self.changes + 1
            module.notes.append(("profile", profile_index))
            return True

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            smallest, _, largest = self.engine.bands[self.profile]
            if not smallest <= shape[0] <= largest:
                self.engine.logger.log(ILogger.Severity.ERROR, "IExecutionContext::setInputShape: Error Code 3")
                return False
            self.shape, self.changes = shape, self.changes + 1
            return True

        def set_tensor_address(self, name: str, memory: int) -> bool:
            cuda.at(memory, 0)
            self.addresses[name] = memory
            self.changes += 1
            return True

        def execute_async_v3(self, stream_handle: int) -> bool:
            session, shape, addresses, changes = self.engine.session, self.shape, dict(self.addresses), self.changes
            assert shape is not None
            if unbound := [tensor.name for tensor in self.engine.tensors if tensor.name not in addresses]:
                said = f"IExecutionContext::enqueueV3: Error Code 3: Neither address or allocator is set for {unbound}"
                self.engine.logger.log(ILogger.Severity.ERROR, said)
                return False
            assert self.scratch is not None or not self.engine.device_memory_size_v2, "without scratch memory"
            if self.engine.stripped:
                self.engine.logger.log(ILogger.Severity.ERROR, "the engine has no weights")
                return False
            recording = cuda.queue[stream_handle].capture is not None
            if recording and (self.flushed != changes or module.unrecordable):
                cuda.queue[stream_handle].broken_capture = True  # it would have had to wait for the GPU
                self.engine.logger.log(
                    ILogger.Severity.ERROR, "IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime"
                )
                return False
            self.flushed = changes
            module.computed.append((id(self), recording))

            def compute() -> None:
                assert not recording or self.changes == changes, "the context of a graph was changed"
                module.notes.append(("rows", shape[0]))
                dtype = np.dtype(session.input.dtype)
                size = int(np.prod(shape)) * dtype.itemsize
                batch = cuda.at(addresses[session.input.name], size).view(dtype).reshape(shape)
                answer = np.ascontiguousarray(session.run(batch)).view(np.uint8).ravel()
                cuda.at(addresses[session.output.name], answer.nbytes)[:] = answer
                for tensor in self.engine.tensors[2:]:  # what nobody reads is written all the same
                    cuda.at(addresses[tensor.name], shape[0] * 4 * int(np.prod(tensor.shape[1:])))[:] = 0

            return cuda.give(stream_handle, compute) == (OK,)

    class Engine:
        def __init__(self, plan: dict[str, Any], logger: Any) -> None:
            self.bands, self.stripped, self.logger = plan["bands"], plan["stripped"], logger
            self.device_memory_size_v2 = plan["scratch"]
            self.graph = Path(plan["graph"])
            self.session = OrtSession(self.graph, threads=1)
            others = [TensorSpec(t.name, "float32", tuple(t.shape)) for t in self.session._session.get_outputs()]
            others = [tensor for tensor in others if tensor.name != self.session.output.name]
            self.tensors = (self.session.input, self.session.output, *others)
            self.num_io_tensors, self.num_optimization_profiles = len(self.tensors), len(self.bands)

        def get_tensor_name(self, index: int) -> str:
            return self.tensors[index].name

        def _tensor(self, name: str) -> Any:
            return next(tensor for tensor in self.tensors if tensor.name == name)

        def get_tensor_mode(self, name: str) -> TensorIOMode:
            return TensorIOMode.INPUT if name == self.tensors[0].name else TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name: str) -> DataType:
            known = {"float32": DataType.FLOAT, "int64": DataType.INT64, "uint8": DataType.UINT8}
            return known[self._tensor(name).dtype]

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return tuple(-1 if isinstance(size, str) else size for size in self._tensor(name).shape)

        def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
            return [(rows, *self._tensor(name).shape[1:]) for rows in self.bands[profile_index]]

        def create_execution_context(self, strategy: Any = ExecutionContextAllocationStrategy.STATIC) -> Context | None:
            if cuda.unsafe() is not None:
                return None
            if strategy is not ExecutionContextAllocationStrategy.USER_MANAGED:
                raise AssertionError("a context is to share its place's scratch memory")
            module.contexts += 1
            if module.contexts > module.most_contexts:
                self.logger.log(ILogger.Severity.ERROR, "Requested amount of GPU memory could not be allocated")
                return None
            return Context(self)

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger, self.engine_host_code_allowed = logger, False

        def deserialize_cuda_engine(self, serialized_engine: Any) -> Engine | None:
            module.notes.append(("host code", self.engine_host_code_allowed))
            try:
                plan = json.loads(bytes(memoryview(serialized_engine)))
            except ValueError:
                self.logger.log(ILogger.Severity.ERROR, "magicTagRead failed: Magic tag does not match")
                return None
            if cuda.used + plan["weights"] > cuda.total:
                self.logger.log(ILogger.Severity.ERROR, "Error Code 2: OutOfMemory (Requested size was 1048576 bytes.)")
                return None
            return Engine(plan, self.logger)

    class Refitter:
        def __init__(self, engine: Engine, logger: Any) -> None:
            self.engine, self.missing = engine, ["weights"]

        def refit_cuda_engine(self) -> bool:
            self.engine.stripped = bool(self.missing)
            return not self.missing

        def get_missing_weights(self) -> list[str]:
            return self.missing

    class OnnxParserRefitter:
        def __init__(self, refitter: Refitter, logger: Any) -> None:
            self.refitter, self.num_errors = refitter, 0

        def refit_from_file(self, model: str) -> bool:
            module.notes.append(("refit", Path(model).name))
            self.refitter.missing = [] if Path(model).read_bytes() else ["weights"]
            return not self.refitter.missing

        def get_error(self, index: int) -> Any:
            raise IndexError(index)

    module.ICudaEngine, module.IExecutionContext = Engine, Context
    kinds = (ILogger, TensorIOMode, DataType, ExecutionContextAllocationStrategy, Runtime, Refitter, OnnxParserRefitter)
    for kind in kinds:
        setattr(module, kind.__name__, kind)
    found: ModuleType = module
    return found


def install(
    monkeypatch: pytest.MonkeyPatch,
    *,
    backend: EngineBackend = "tensorrt",
    version: str = "10.3.0",
    total: int = 1 << 30,
    jetpack: str | None = None,
) -> tuple[FakeCuda, Any]:
    """Put the fakes where the runtime imports them from; returns both."""
    cuda = FakeCuda(total)
    product: Any = fake_product(cuda, name=MODULES[backend], version=version)
    monkeypatch.setitem(sys.modules, MODULES[backend], product)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    # nvidia-smi's first GPU is another one than CUDA's
    jetson = Jetson(board="NVIDIA Module", l4t="36.4.0", jetpack=jetpack) if jetpack else None
    hardware = Hardware(jetson, (Gpu("Module" if jetpack else "Other GPU", "8.6", None, None),), None)
    monkeypatch.setattr("clipdeploy.runtime.engines.find_hardware", lambda probes: hardware)
    monkeypatch.setattr("clipdeploy.runtime.engines.platform_tag", lambda probes: "linux-x86_64")
    return cuda, product


def put_engine(
    bundle: Bundle,
    tower: Tower,
    work: Path,
    *,
    precision: Precision = Precision.FP32,
    bands: list[list[int]] | None = None,
    graph: Path | None = None,
    scratch: int = 0,
    **changes: Any,
) -> EngineKey:
    """An engine of the fake product into a bundle.

    Args:
        bundle: opened.
        tower: which encoder.
        work: a folder for its file.
        precision: of the graph that it stands for.
        bands: batch sizes of each profile.
        graph: what it computes; the bundle's own where None.
        scratch: bytes that it needs to run.
        changes: fields of its key to replace, such as `gpu="Orin"`.
    """
    bands = bands or [[1, 2, 4]]
    name = engine_graph(bundle, tower, precision)
    told: dict[str, Any] = {
        "backend": "tensorrt",
        "version": "10.3.0",
        "platform": "linux-x86_64",
        "gpu": "Fake GPU",
        "compute_capabilities": ("8.9",),
        "jetpack": None,
        "tower": tower,
        "precision": precision,
        "graph_sha256": graph_sha256(bundle, name),
        "profiles": tuple(Profile(*band) for band in bands),
    }
    key = EngineKey(**{**told, **changes})
    stripped = "strip-weights" in key.flags
    plan = write_plan(
        work / f"{key.name}.plan", graph or bundle.path(name), bands=bands, stripped=stripped, scratch=scratch
    )
    size = plan.stat().st_size
    record = EngineRecord(
        key, name, size, 1.0, "2026-01-01T00:00:00+00:00", {"clipdeploy": "tests"}, LayerReport("none")
    )
    add_engine(bundle, record, plan)
    return key
