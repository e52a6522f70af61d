"""An engine at work: batches to the GPU, through it, and back; or on the GPU from first to last."""

from __future__ import annotations

import weakref
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.runtime.session import check_batch
from clipdeploy.runtime.trt.contexts import Contexts
from clipdeploy.runtime.trt.cuda import Cuda
from clipdeploy.runtime.trt.device_array import Blocks, DeviceArray
from clipdeploy.runtime.trt.incoming import take
from clipdeploy.runtime.trt.plan import Loaded
from clipdeploy.runtime.trt.ports import choose_profile, read_ports
from clipdeploy.runtime.trt.product import product_log
from clipdeploy.runtime.trt.slot import Common, Shape
from clipdeploy.runtime.trt.slots import Slots

CONTEXTS = 2
"""Batches that one session computes at the same time; one waits for its copies while the other one computes."""


class TensorRtSession:
    """One engine on one GPU; a `DeviceSession`. Threads that call it at once share a few places on the GPU.

    A batch runs under the profile that has room for it with the fewest rows to spare. One that is smaller than that
    profile takes is filled up with rows that are computed and thrown away: rows do not depend on one another.

    Memory is taken when the session is made, when a second thread runs at the same time, and when a batch size comes
    often enough to be recorded as a CUDA graph; a call takes none.

    Args:
        loaded: the engine, in the GPU's memory.
        cuda: that GPU.
        name: of backend and device, such as `tensorrt:Orin`.
        path: the engine's file, for messages.
        kernels: where TensorRT for RTX keeps the kernels that it compiles; None keeps none.
        graphs: record CUDA graphs of batch sizes that come often.
        contexts: batches that may be computed at the same time.

    Raises:
        BackendError: its scratch memory or its batches do not fit into memory, or it has not one input and one output.
    """

    def __init__(
        self,
        loaded: Loaded,
        cuda: Cuda,
        *,
        name: str,
        path: Path,
        kernels: Path | None = None,
        graphs: bool = True,
        contexts: int = CONTEXTS,
    ) -> None:
        self.name = name
        ports = read_ports(loaded, path)
        self.input, self.output = ports.input, ports.output
        self.profiles, self.largest_batch = ports.profiles, ports.largest
        self._ports, self._cuda, self._path = ports, cuda, path
        self._notes: list[str] = []
        log = product_log(loaded.module)
        with cuda.in_use():
            makes = Contexts(loaded, cuda, path, kernels)
            slots = Slots(Common(ports, makes, cuda, log, name, path, graphs, self._notes), contexts)
        self._slots = slots
        self._blocks: Blocks | None = None
        self._lock = Lock()
        # A session that nobody closes gives its memory back when it is forgotten, or when Python ends.
        self._release = weakref.finalize(self, slots.close)

    @property
    def notes(self) -> tuple[str, ...]:
        """What runs otherwise than it could, and why; for people."""
        return tuple(self._notes)

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """See `Session.run`; raises InputError for more than `largest_batch` rows."""
        check_batch(batch, self.input)
        shape = self._shape(len(batch))
        with self._slots.lend() as slot:
            answer: NDArray[np.float32] = slot.run(batch, shape)
        return answer

    def run_on_device(self, batch: Any) -> DeviceArray:
        """See `DeviceSession.run_on_device`: `run` for a batch on the GPU, whose answer stays there.

        It returns when the batch was read, so that it may be written to again, and while the answer is being computed.

        Args:
            batch: with `__dlpack__`, or with `__cuda_array_interface__`, as the arrays of PyTorch, CuPy and Numba.

        Raises:
            InputError: it is elsewhere, or not what `input` says, or has more than `largest_batch` rows.
            BackendError: the engine failed, or memory does not suffice for the answer.
        """
        with self._slots.lend() as slot:
            incoming = take(batch, self.input, self._cuda, slot.stream, slot.event)
            rows = incoming.shape[0]
            shape = self._shape(rows)
            lease = self._answers().lend(slot.stream)
            slot.run_on_device(incoming, shape, lease)
        return DeviceArray(lease, self._cuda, (rows, *self._ports.answer), self.output.dtype)

    def close(self) -> None:
        """See `Session.close`; arrays that it left on the GPU stay until they are let go."""
        self._release()
        with self._lock:
            if self._blocks is not None:
                self._blocks.close()

    def _shape(self, rows: int) -> Shape:
        index = choose_profile(self.profiles, rows)
        return index, max(rows, self.profiles[index].smallest)

    def _answers(self) -> Blocks:
        """Memory for answers that stay on the GPU; made with the first of them."""
        with self._lock:
            if self._blocks is None:
                rows, size = self.largest_batch, self._ports.row_bytes[1]
                self._blocks = Blocks(self._cuda, rows * size, f"{rows} rows of {self.output.name} on the GPU")
                weakref.finalize(self, self._blocks.close)
            return self._blocks
