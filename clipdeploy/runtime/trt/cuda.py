"""The GPU: which one, its memory, streams, events and graphs, through cuda-python."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from clipdeploy.errors import BackendError

SMALLER = (
    "close other programs on the GPU, or build an engine for smaller batches: clipdeploy build-engine --batch 1,1,8"
)
LEGACY_STREAM = 1
"""CUDA's number of the stream that every program has, and that waits for all those which ask it to."""
_BREAKING = (
    "cudaErrorIllegalAddress",
    "cudaErrorLaunchFailure",
    "cudaErrorLaunchTimeout",
    "cudaErrorIllegalInstruction",
    "cudaErrorMisalignedAddress",
    "cudaErrorInvalidAddressSpace",
    "cudaErrorInvalidPc",
    "cudaErrorHardwareStackError",
    "cudaErrorAssert",
    "cudaErrorECCUncorrectable",
    "cudaErrorNvlinkUncorrectable",
    "cudaErrorContained",
    "cudaErrorTensorMemoryLeak",
)
"""After these, every call of CUDA fails for as long as the process lives; older CUDAs lack the last ones."""


@dataclass(frozen=True)
class Gpu:
    """The GPU that is in use; `index` as CUDA counts them, `compute_capability` such as `8.7`."""

    index: int
    name: str
    compute_capability: str


class Cuda:
    """The CUDA runtime on the GPU that is the calling thread's when this is made.

    Args:
        api: the module `cuda.bindings.runtime`.

    Raises:
        BackendError: there is no GPU to use; every method raises it too where CUDA fails.
    """

    def __init__(self, api: Any) -> None:
        self._api = api
        self._success = api.cudaError_t.cudaSuccess
        known = api.cudaError_t.__members__
        self._breaking = tuple(known[name] for name in _BREAKING if name in known)
        self._check_started()
        index = self._done("asking which GPU is in use", api.cudaGetDevice())
        properties = self._done(f"asking what GPU {index} is", api.cudaGetDeviceProperties(index))
        name = properties.name.split(b"\0")[0].decode(errors="replace").strip()
        self.gpu = Gpu(index, name, f"{properties.major}.{properties.minor}")

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Make this GPU the calling thread's, and give the thread its own back afterwards."""
        before = self._done("asking which GPU is in use", self._api.cudaGetDevice())
        if before == self.gpu.index:
            yield
            return
        self._done("choosing the GPU", self._api.cudaSetDevice(self.gpu.index))
        try:
            yield
        finally:
            self._api.cudaSetDevice(before)

    def memory(self) -> tuple[int, int]:
        """Free and total bytes of the GPU."""
        status, free, total = self._api.cudaMemGetInfo()
        self._done("asking for free memory", (status,))
        return free, total

    def free_memory(self) -> str:
        """What is free, for people; after a failure that leaves CUDA able to answer."""
        try:
            free, total = self.memory()
        except BackendError:
            return "how much is free cannot be told"
        return f"{mebibytes(free)} of {mebibytes(total)} are free"

    def allocate(self, size_bytes: int, what: str, *, clear: bool = True) -> int:
        """The address of that much memory, all zeros if `clear`. `what` it is for, for people."""
        address = self._taken(self._api.cudaMalloc(size_bytes), size_bytes, what, f"memory on {self.gpu.name}")
        if clear:
            try:
                self._done(f"clearing {what}", self._api.cudaMemset(address, 0, size_bytes))
            except BackendError:
                self.free(address)
                raise
        return address

    def free(self, address: int) -> None:
        """Give memory back, when the GPU has done all that it was given."""
        self._api.cudaFree(address)

    def allocate_host(self, size_bytes: int, what: str) -> int:
        """The address of memory of the machine that the GPU reads and writes by itself, because it stays in place."""
        answer = self._api.cudaMallocHost(size_bytes)
        return self._taken(answer, size_bytes, what, "memory of the machine that stays in place for the GPU")

    def free_host(self, address: int) -> None:
        """Give such memory back."""
        self._api.cudaFreeHost(address)

    def _taken(self, answer: tuple[Any, ...], size_bytes: int, what: str, where: str) -> int:
        """The address that an allocation gave, or BackendError with the size that did not fit."""
        status, address = answer
        if status == self._api.cudaError_t.cudaErrorMemoryAllocation:
            self._api.cudaGetLastError()  # or the product finds it and takes it for a failure of its own
            raise BackendError(f"{what} need {mebibytes(size_bytes)} of {where}; {self.free_memory()}", fix=SMALLER)
        self._done(f"taking {mebibytes(size_bytes)} for {what}", (status,))
        return int(address)

    def owner(self, address: int) -> int | None:
        """The GPU whose memory an address is in, as CUDA counts them; None for memory that no GPU has."""
        kinds = self._api.cudaMemoryType
        attributes = self._done("asking whose memory that is", self._api.cudaPointerGetAttributes(address))
        on_gpu = attributes.type in (kinds.cudaMemoryTypeDevice, kinds.cudaMemoryTypeManaged)
        return int(attributes.device) if on_gpu else None

    # streams and events

    def new_stream(self) -> int:
        """A stream that waits for no other."""
        answer = self._api.cudaStreamCreateWithFlags(self._api.cudaStreamNonBlocking)
        return int(self._done("making a stream", answer))

    def destroy_stream(self, stream: int) -> None:
        """End a stream."""
        self._api.cudaStreamDestroy(stream)

    def new_event(self) -> Any:
        """A mark in a stream's work, that other streams and the machine can wait for."""
        answer = self._api.cudaEventCreateWithFlags(self._api.cudaEventDisableTiming)
        return self._done("making an event", answer)

    def destroy_event(self, event: Any) -> None:
        """End an event."""
        self._api.cudaEventDestroy(event)

    def record(self, event: Any, stream: int) -> None:
        """Let an event mark what the stream was given up to now."""
        self._done("marking a stream", self._api.cudaEventRecord(event, stream))

    def order(self, stream: int, event: Any) -> None:
        """Let a stream wait for an event before it goes on; the machine does not wait."""
        self._done("ordering streams", self._api.cudaStreamWaitEvent(stream, event, self._api.cudaEventWaitDefault))

    def wait(self, stream: int) -> None:
        """Until all that the stream was given is done; raises what went wrong in it."""
        self._done("computing", self._api.cudaStreamSynchronize(stream))

    def wait_for(self, event: Any) -> None:
        """Until what an event marks is done."""
        self._done("computing", self._api.cudaEventSynchronize(event))

    # copies, each in its stream's turn

    def upload(self, source: int, address: int, size_bytes: int, stream: int) -> None:
        """From the machine's memory to the GPU's."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        answer = self._api.cudaMemcpyAsync(address, source, size_bytes, kind, stream)
        self._done(f"copying {size_bytes} bytes to the GPU", answer)

    def download(self, address: int, target: int, size_bytes: int, stream: int) -> None:
        """From the GPU's memory to the machine's."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        answer = self._api.cudaMemcpyAsync(target, address, size_bytes, kind, stream)
        self._done(f"copying {size_bytes} bytes from the GPU", answer)

    def copy(self, source: int, target: int, size_bytes: int, stream: int) -> None:
        """Within the GPU's memory."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        answer = self._api.cudaMemcpyAsync(target, source, size_bytes, kind, stream)
        self._done(f"copying {size_bytes} bytes on the GPU", answer)

    # graphs: work that is recorded once and given to the GPU with one call

    def capture(self, stream: int, work: Callable[[], None]) -> Any:
        """What `work` gives to the stream, recorded instead of done; launch it with `launch`.

        Raises:
            BackendError: the work cannot be recorded; the stream is as it was before.
        """
        # Of this thread only: others may take memory meanwhile.
        mode = self._api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._done("starting to record a CUDA graph", self._api.cudaStreamBeginCapture(stream, mode))
        try:
            work()
        except BaseException:
            status, graph = self._api.cudaStreamEndCapture(stream)
            self._api.cudaGetLastError()
            if status == self._success:
                self._api.cudaGraphDestroy(graph)
            raise
        status, graph = self._api.cudaStreamEndCapture(stream)
        try:
            self._done("recording a CUDA graph", (status,))
            answer = self._api.cudaGraphInstantiate(graph, 0)
            self._api.cudaGraphDestroy(graph)
            return self._done("making a CUDA graph", answer)
        except BackendError:
            self._api.cudaGetLastError()
            raise

    def launch(self, graph: Any, stream: int) -> None:
        """Do what `capture` recorded, in the stream's turn."""
        self._done("launching a CUDA graph", self._api.cudaGraphLaunch(graph, stream))

    def destroy_graph(self, graph: Any) -> None:
        """End what `capture` gave."""
        self._api.cudaGraphExecDestroy(graph)

    # failures

    def check(self) -> None:
        """Raise BackendError if CUDA is broken in this process, whatever a product made of it."""
        (status,) = self._api.cudaGetLastError()
        if status in self._breaking:
            self._done("computing", (status,))

    def _done(self, doing: str, answer: tuple[Any, ...]) -> Any:
        """The value that a call gave, or BackendError."""
        status, *values = answer
        if status == self._success:
            return values[0] if values else None
        if status in self._breaking:
            raise BackendError(
                f"CUDA failed in {doing}: {self._said(status)}; after that, nothing runs on {self.gpu.name} in this "
                "process any more",
                fix="start the process again; if it comes back, build the engine anew: clipdeploy build-engine",
            )
        raise BackendError(f"CUDA failed in {doing}: {self._said(status)}", fix="clipdeploy doctor")

    def _said(self, status: Any) -> str:
        (_, name), (_, text) = self._api.cudaGetErrorName(status), self._api.cudaGetErrorString(status)
        return f"{_text(name)}: {_text(text)}"

    def _check_started(self) -> None:
        """Raise BackendError unless CUDA works and sees a GPU; CUDA starts here."""
        status, count = self._api.cudaGetDeviceCount()
        if status == self._success and count:
            return
        _, driver = self._api.cudaDriverGetVersion()  # 0 without a driver
        _, library = self._api.cudaRuntimeGetVersion()
        if driver and status == self._api.cudaError_t.cudaErrorInsufficientDriver:
            raise BackendError(
                f"cuda-python is made for CUDA {_version(library)}, the driver of this machine takes up to CUDA "
                f"{_version(driver)}",
                fix=f"pip install 'cuda-python>=12.6,<{driver // 1000 + 1}'",
            )
        why = "no NVIDIA driver is loaded" if not driver else self._said(status)
        raise BackendError(
            f"there is no NVIDIA GPU to run on: {why}",
            fix='run it on a machine that has one (clipdeploy doctor tells), or pass backend="onnxruntime"',
        )


def mebibytes(size_bytes: int) -> str:
    """Such as `12.5 MiB`."""
    return f"{size_bytes / 2**20:.1f} MiB"


def _version(number: int) -> str:
    """CUDA's 12060 as `12.6`."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
