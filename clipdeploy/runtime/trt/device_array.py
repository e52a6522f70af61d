"""Answers that stay on the GPU: for CuPy, PyTorch, Numba and all that take `__cuda_array_interface__` or DLPack."""

from __future__ import annotations

import weakref
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from math import prod
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import BackendError
from clipdeploy.runtime.trt import dlpack
from clipdeploy.runtime.trt.cuda import LEGACY_STREAM, Cuda

_KEPT = 16
"""Blocks that wait to be used again."""


class DeviceArray:
    """An array in a GPU's memory. Whoever takes it waits on the GPU, not on the processor, until it is computed.

    Its memory is given back when it and all that was made from it without a copy are gone.

    Attributes:
        shape: its axes; they lie without gaps, the last axis' elements first.
        dtype: of its elements.
    """

    def __init__(self, lease: Lease, cuda: Cuda, shape: tuple[int, ...], dtype: str) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._lease: Lease | None = lease
        self._cuda = cuda

    @property
    def device(self) -> int:
        """The GPU, as CUDA counts them."""
        return self._cuda.gpu.index

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3; who takes it is to keep this array while it uses the memory."""
        lease = self._held()
        with self._cuda.in_use():
            lease.show(LEGACY_STREAM)
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (lease.address, False),
            "strides": None,
            "version": 3,
            "stream": LEGACY_STREAM,
        }

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule for `from_dlpack` of another library, which shares the memory.

        Args:
            stream: that the other one computes in; it is made to wait for the array. None is CUDA's legacy stream, -1
                waits for nothing.
            max_version: of DLPack; records are those that every version reads.
            dl_device: must be this array's.
            copy: must not be True.

        Raises:
            BufferError: what is asked for would take a copy.
            BackendError: the array is closed.
        """
        if copy or (dl_device is not None and tuple(dl_device) != self.__dlpack_device__()):
            raise BufferError(f"this array is on GPU {self.device} and is handed on without a copy; .numpy() copies it")
        if stream == 0 or (stream is not None and stream < -1):
            raise BufferError(f"stream {stream} is none: pass 1 for the legacy stream, 2 for that of the thread")
        lease = self._held()
        with self._cuda.in_use():
            lease.show(LEGACY_STREAM if stream is None else stream)
        return dlpack.capsule(lease.address, self.shape, self.dtype.name, self.__dlpack_device__(), lease)

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack's number for CUDA, and the GPU's."""
        return dlpack.CUDA, self.device

    def numpy(self) -> NDArray[Any]:
        """A copy in the machine's memory, once it is computed; raises BackendError for what went wrong on the GPU."""
        lease = self._held()
        answer = np.empty(self.shape, self.dtype)
        with self._cuda.in_use():
            lease.read(answer)
        return answer

    def wait(self) -> None:
        """Until it is computed; raises BackendError for what went wrong on the GPU."""
        lease = self._held()
        with self._cuda.in_use():
            self._cuda.wait_for(lease.block.event)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """For `numpy.asarray`."""
        if copy is False:
            raise ValueError("an array on a GPU cannot be read without a copy")
        answer = self.numpy()
        return answer if dtype is None else answer.astype(dtype, copy=False)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        held = "" if self._lease is not None else ", closed"
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype}, GPU {self.device}{held})"

    def close(self) -> None:
        """Give the memory back now; what was made from it by `__cuda_array_interface__` must not be used any more."""
        self._lease = None

    def _held(self) -> Lease:
        if self._lease is None:
            raise BackendError("this array is closed", fix="keep a copy: array.numpy() before array.close()")
        return self._lease


@dataclass
class Block:
    """Memory of the size of the largest answer.

    Attributes:
        address: on the GPU.
        event: marks what may still use the memory; whoever writes there next is to wait for it.
        fit: whether that mark is sound; memory where it is not is given back and not used again.
    """

    address: int
    event: Any
    fit: bool = True


@dataclass(eq=False)
class Lease:
    """A block for one answer; it goes back when nobody holds this."""

    blocks: Blocks
    block: Block
    streams: set[int] = field(default_factory=set)
    """Those that were told of the memory, and may use it until it goes back."""

    def __post_init__(self) -> None:
        weakref.finalize(self, self.blocks.take_back, self.block, self.streams).atexit = False

    @property
    def address(self) -> int:
        return self.block.address

    def written(self, stream: int) -> None:
        """The answer is there when all that `stream` was given is done."""
        self.blocks.cuda.record(self.block.event, stream)

    def show(self, stream: int) -> None:
        """Let a stream that is about to use the memory wait for the answer."""
        if stream != -1:
            self.blocks.cuda.order(stream, self.block.event)
            self.streams.add(stream)

    def read(self, answer: NDArray[Any]) -> None:
        """Copy the answer into an array, when it is there."""
        cuda, blocks = self.blocks.cuda, self.blocks
        with blocks.reading:
            cuda.order(blocks.stream, self.block.event)
            cuda.download(self.address, answer.ctypes.data, answer.nbytes, blocks.stream)
            cuda.wait(blocks.stream)


class Blocks:
    """Memory for answers, made as it is needed and used again.

    Leases end whenever Python forgets them, in any thread and amid anything, so what happens then takes no lock.
    """

    def __init__(self, cuda: Cuda, size_bytes: int, what: str) -> None:
        self.cuda, self.stream, self.reading = cuda, cuda.new_stream(), Lock()
        self._size_bytes, self._what = size_bytes, what
        self._back: deque[Block] = deque()
        self._lent: set[int] = set()
        self._streams = [self.stream]
        self._closed = False

    def lend(self, stream: int) -> Lease:
        """A block that `stream` may write to; raises BackendError where none fits into the GPU's memory."""
        block = self._again()
        if block is None:
            block = Block(self.cuda.allocate(self._size_bytes, self._what, clear=False), self.cuda.new_event())
        else:
            self.cuda.order(stream, block.event)
        self._lent.add(block.address)
        return Lease(self, block)

    def take_back(self, block: Block, streams: set[int]) -> None:
        """A block that is not needed any more, except by what those streams were given up to now."""
        with suppress(BackendError), self.cuda.in_use():  # CUDA may be gone already when Python ends
            try:
                for stream in streams:
                    self.cuda.record(block.event, stream)
                    self.cuda.order(self.stream, block.event)
                if streams:
                    self.cuda.record(block.event, self.stream)
            except BackendError:  # a stream that is no more
                block.fit = False
            self._back.append(block)
            self._lent.discard(block.address)
            if self._closed:
                self._clear()

    def close(self) -> None:
        """Give back what nobody holds; the rest follows as it is let go."""
        self._closed = True
        with suppress(BackendError), self.cuda.in_use():  # CUDA may be gone already when Python ends
            self._clear()

    def _again(self) -> Block | None:
        """A block that was used before."""
        while len(self._back) > _KEPT:
            self._end(self._back.popleft())
        while self._back:
            with suppress(IndexError):  # another thread was faster
                block = self._back.popleft()
                if block.fit:
                    return block
                self._end(block)
        return None

    def _clear(self) -> None:
        with suppress(IndexError):
            while True:
                self._end(self._back.popleft())
        if not self._lent:
            with suppress(IndexError):
                self.cuda.destroy_stream(self._streams.pop())

    def _end(self, block: Block) -> None:
        self.cuda.free(block.address)
        self.cuda.destroy_event(block.event)
