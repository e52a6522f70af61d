"""Memory of the machine that stays in place, from and to which the GPU copies by itself."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.runtime.trt.cuda import Cuda
from clipdeploy.runtime.trt.ports import Ports
from clipdeploy.spec import TensorSpec


class HostMemory:
    """Room for the largest batch and its answer.

    Attributes:
        input: (largest, ...) of the engine's input, at `input_address`.
        output_address: where answers come to.

    Raises:
        BackendError: there is not as much memory.
    """

    def __init__(self, cuda: Cuda, ports: Ports) -> None:
        self._cuda, self._ports = cuda, ports
        given, answer = ports.row_bytes
        rows = ports.largest
        self._addresses: list[int] = []
        try:
            self.input_address = self._take(rows * given, f"{rows} rows of {ports.input.name}")
            self.output_address = self._take(rows * answer, f"{rows} rows of {ports.output.name}")
        except BaseException:
            self.release()
            raise
        self.input = _view(self.input_address, rows, ports.input)
        self._output = _view(self.output_address, rows, ports.output)

    def answer(self, rows: int) -> tuple[NDArray[Any], int]:
        """The first rows of the answer, and their bytes."""
        return self._output[:rows], rows * self._ports.row_bytes[1]

    def release(self) -> None:
        """Give the memory back; what was read from it before must have been copied."""
        while self._addresses:
            self._cuda.free_host(self._addresses.pop())

    def _take(self, size_bytes: int, what: str) -> int:
        address = self._cuda.allocate_host(size_bytes, what)
        self._addresses.append(address)
        return address


def _view(address: int, rows: int, tensor: TensorSpec) -> NDArray[Any]:
    shape = (rows, *(size for size in tensor.shape[1:] if isinstance(size, int)))
    dtype = np.dtype(tensor.dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
    return memory.view(dtype).reshape(shape)
