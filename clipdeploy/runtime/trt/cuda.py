"""The GPU: which one, its memory and its streams, through cuda-python."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from clipdeploy.errors import BackendError

SMALLER = (
    "close other programs on the GPU, or build an engine for smaller batches: clipdeploy build-engine --batch 1,1,8"
)


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

    def allocate(self, size_bytes: int, what: str) -> int:
        """The address of that much memory, all zeros. `what` it is for, for people."""
        status, address = self._api.cudaMalloc(size_bytes)
        if status == self._api.cudaError_t.cudaErrorMemoryAllocation:
            self._api.cudaGetLastError()  # or the product finds it and takes it for a failure of its own
            raise BackendError(
                f"{what} need {mebibytes(size_bytes)} of memory on {self.gpu.name}; {self.free_memory()}", fix=SMALLER
            )
        self._done(f"taking {mebibytes(size_bytes)} for {what}", (status,))
        self._done(f"clearing {what}", self._api.cudaMemset(address, 0, size_bytes))
        return int(address)

    def free(self, address: int) -> None:
        """Give memory back."""
        self._api.cudaFree(address)

    def new_stream(self) -> Any:
        """A stream that waits for no other."""
        answer = self._api.cudaStreamCreateWithFlags(self._api.cudaStreamNonBlocking)
        return self._done("making a stream", answer)

    def destroy_stream(self, stream: Any) -> None:
        """End a stream."""
        self._api.cudaStreamDestroy(stream)

    def upload(self, array: NDArray[Any], address: int, stream: Any) -> None:
        """A C-contiguous array to the GPU, in the stream's turn."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        answer = self._api.cudaMemcpyAsync(address, array.ctypes.data, array.nbytes, kind, stream)
        self._done(f"copying {array.nbytes} bytes to the GPU", answer)

    def download(self, address: int, array: NDArray[Any], stream: Any) -> None:
        """From the GPU into a C-contiguous array, in the stream's turn."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        answer = self._api.cudaMemcpyAsync(array.ctypes.data, address, array.nbytes, kind, stream)
        self._done(f"copying {array.nbytes} bytes from the GPU", answer)

    def wait(self, stream: Any) -> None:
        """Until all that the stream was given is done; raises what went wrong in it."""
        self._done("computing", self._api.cudaStreamSynchronize(stream))

    def _done(self, doing: str, answer: tuple[Any, ...]) -> Any:
        """The value that a call gave, or BackendError."""
        status, *values = answer
        if status == self._success:
            return values[0] if values else None
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
