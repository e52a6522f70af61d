"""A GPU of the imagination: cuda-python and TensorRT with the names and behaviour that the runtime uses.

Memory has addresses and an end. What goes into a stream is done when the stream is waited for, and not before, as on a
GPU. An engine file names an ONNX graph, which ONNX Runtime computes in the GPU's stead.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable
from enum import Enum
from importlib.machinery import ModuleSpec
from pathlib import Path
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
from clipdeploy.spec import Precision, Tower


class CudaError(Enum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorIllegalAddress = 700


class CopyKind(Enum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


OK = CudaError.cudaSuccess


class Properties:
    name = b"Fake GPU\0"
    major, minor, integrated = 8, 9, 0


class SecondGpu(Properties):
    name = b"Second GPU\0"
    minor = 6


class FakeCuda(ModuleType):
    """`cuda.bindings.runtime`. Attributes without the prefix `cuda` are the test's."""

    cudaError_t = CudaError
    cudaMemcpyKind = CopyKind
    cudaStreamNonBlocking = 1

    def __init__(self, total: int = 1 << 30) -> None:
        super().__init__("cuda.bindings.runtime")
        self.total = total
        self.start = OK  # what CUDA answers when it starts
        self.driver, self.library, self.device, self.devices = 12060, 12060, 0, 1
        self.memory: dict[int, np.ndarray] = {}
        self.queue: dict[int, list[Callable[[], None]]] = {}
        self.failing: CudaError | None = None  # what the next wait answers
        self.seen_devices: list[int] = []
        self._next = 0x1000

    def at(self, address: int, size: int) -> np.ndarray:
        """Bytes of the GPU's memory; a KeyError where nothing is."""
        block = self.memory[address]
        assert size <= block.nbytes, "read or written past the end of the GPU's memory"
        return block[:size]

    @property
    def used(self) -> int:
        return sum(block.nbytes for block in self.memory.values())

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
        return (OK,)

    def cudaMemGetInfo(self) -> tuple[Any, ...]:
        return (OK, self.total - self.used, self.total)

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        if self.used + size > self.total:
            return (CudaError.cudaErrorMemoryAllocation, None)
        address, self._next = self._next, self._next + size + 256
        self.memory[address] = np.full(size, 0xCD, np.uint8)
        return (OK, address)

    def cudaMemset(self, address: int, value: int, size: int) -> tuple[Any, ...]:
        self.at(address, size)[:] = value
        return (OK,)

    def cudaFree(self, address: int) -> tuple[Any, ...]:
        del self.memory[address]
        return (OK,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        self._next += 1
        self.queue[self._next] = []
        return (OK, self._next)

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:
        assert not self.queue.pop(stream), "a stream was destroyed with work in it"
        return (OK,)

    def cudaMemcpyAsync(self, dst: int, src: int, size: int, kind: CopyKind, stream: int) -> tuple[Any, ...]:
        def copy() -> None:
            up = kind is CopyKind.cudaMemcpyHostToDevice
            host = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(src if up else dst))
            if up:
                self.at(dst, size)[:] = host
            else:
                host[:] = self.at(src, size)

        self.queue[stream].append(copy)
        return (OK,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        work, self.queue[stream] = self.queue[stream], []
        if self.failing is not None:
            return (self.failing,)
        for step in work:
            step()
        return (OK,)


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

    class ILogger:
        class Severity(Enum):
            INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

        def __init__(self) -> None:
            pass

    class TensorIOMode(Enum):
        NONE, INPUT, OUTPUT = range(3)

    class DataType(Enum):
        FLOAT, HALF, INT8, INT32, BOOL, UINT8, FP8, BF16, INT64 = range(9)

    class Context:
        def __init__(self, engine: Engine) -> None:
            self.engine = engine
            self.profile = 0
            self.shape: tuple[int, ...] | None = None
            self.addresses: dict[str, int] = {}

        def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
            assert stream_handle in cuda.queue
            self.profile, self.shape = profile_index, None
            module.notes.append(("profile", profile_index))
            return True

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            smallest, _, largest = self.engine.bands[self.profile]
            if not smallest <= shape[0] <= largest:
                self.engine.logger.log(ILogger.Severity.ERROR, "IExecutionContext::setInputShape: Error Code 3")
                return False
            self.shape = shape
            module.notes.append(("rows", shape[0]))
            return True

        def set_tensor_address(self, name: str, memory: int) -> bool:
            assert memory in cuda.memory
            self.addresses[name] = memory
            return True

        def execute_async_v3(self, stream_handle: int) -> bool:
            session, shape = self.engine.session, self.shape
            assert shape is not None
            if self.engine.stripped:
                self.engine.logger.log(ILogger.Severity.ERROR, "the engine has no weights")
                return False

            def compute() -> None:
                dtype = np.dtype(session.input.dtype)
                size = int(np.prod(shape)) * dtype.itemsize
                batch = cuda.at(self.addresses[session.input.name], size).view(dtype).reshape(shape)
                answer = np.ascontiguousarray(session.run(batch)).view(np.uint8).ravel()
                cuda.at(self.addresses[session.output.name], answer.nbytes)[:] = answer

            cuda.queue[stream_handle].append(compute)
            return True

    class Engine:
        def __init__(self, plan: dict[str, Any], logger: Any) -> None:
            self.bands, self.stripped, self.logger = plan["bands"], plan["stripped"], logger
            self.device_memory_size_v2 = plan["scratch"]
            self.graph = Path(plan["graph"])
            self.session = OrtSession(self.graph, threads=1)
            self.tensors = (self.session.input, self.session.output)
            self.num_io_tensors, self.num_optimization_profiles = 2, len(self.bands)

        def get_tensor_name(self, index: int) -> str:
            return self.tensors[index].name

        def _tensor(self, name: str) -> Any:
            return next(tensor for tensor in self.tensors if tensor.name == name)

        def get_tensor_mode(self, name: str) -> TensorIOMode:
            return TensorIOMode.INPUT if name == self.tensors[0].name else TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name: str) -> DataType:
            return {"float32": DataType.FLOAT, "int64": DataType.INT64}[self._tensor(name).dtype]

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return tuple(-1 if isinstance(size, str) else size for size in self._tensor(name).shape)

        def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
            return [(rows, *self._tensor(name).shape[1:]) for rows in self.bands[profile_index]]

        def create_execution_context(self) -> Context | None:
            if cuda.used + self.device_memory_size_v2 > cuda.total:
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
    for kind in (ILogger, TensorIOMode, DataType, Runtime, Refitter, OnnxParserRefitter):
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
