"""A session of no engine, for tests of what is around one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from clipdeploy.errors import BackendError
from clipdeploy.runtime.session import check_batch
from clipdeploy.spec import TensorSpec
from tests.bundles import EMBED_DIM, IMAGE_SIZE

PIXELS = TensorSpec("pixel_values", "float32", ("batch", 3, IMAGE_SIZE, IMAGE_SIZE))
EMBEDS = TensorSpec("image_embeds", "float32", ("batch", EMBED_DIM))


class FakeSession:
    """Answers a row with its first pixels; a `Session` that takes a while and knows who uses it.

    Args:
        largest_batch: rows that it takes.
        takes_s: how long a run takes.
        answer: of a batch, in place of its first pixels.
    """

    name = "fake"
    input, output = PIXELS, EMBEDS

    def __init__(
        self,
        *,
        largest_batch: int | None = None,
        takes_s: float = 0.0,
        answer: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.largest_batch = largest_batch
        self.batches: list[int] = []
        self.running = 0
        self.most_running = 0
        self.closed = 0
        self._takes_s, self._answer, self._lock = takes_s, answer, threading.Lock()

    def run(self, batch: np.ndarray) -> np.ndarray:
        check_batch(batch, self.input)
        assert self.largest_batch is None or len(batch) <= self.largest_batch
        with self._lock:
            self._check_open()
            self.batches.append(len(batch))
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        time.sleep(self._takes_s)
        with self._lock:
            self._check_open()
            self.running -= 1
        return batch[:, 0, 0, :EMBED_DIM].copy() if self._answer is None else self._answer(batch)

    def close(self) -> None:
        assert self.running == 0
        self.closed += 1

    def _check_open(self) -> None:
        if self.closed:
            raise BackendError("a session that is closed was run")


class FakeArray:
    """An array in the memory of a GPU, as far as its protocols tell."""

    def __init__(self, values: np.ndarray, *, device: int = 2) -> None:
        self.values, self.device = values, device
        self.shape, self.dtype = values.shape, values.dtype

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0

    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("it is not in the memory of the host")

    def numpy(self) -> np.ndarray:
        return self.values


class FakeDeviceSession(FakeSession):
    """A `DeviceSession`."""

    def run_on_device(self, batch: FakeArray) -> FakeArray:
        return FakeArray(self.run(batch.values))
