"""An engine at work: batches to the GPU, through it, and back."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.engine_key import Profile
from clipdeploy.errors import BackendError, InputError
from clipdeploy.runtime.session import check_batch
from clipdeploy.runtime.trt.cuda import Cuda
from clipdeploy.runtime.trt.plan import Loaded, new_context, said
from clipdeploy.runtime.trt.product import product_log
from clipdeploy.spec import TensorSpec

_DTYPES = {"FLOAT": "float32", "HALF": "float16", "UINT8": "uint8", "INT32": "int32", "INT64": "int64"}


class TensorRtSession:
    """One engine on one GPU; a `Session`. Threads that call `run` at once take turns.

    A batch runs under the profile that has room for it with the fewest rows to spare. One that is smaller than that
    profile takes is filled up with rows that are computed and thrown away: rows do not depend on one another.

    Args:
        loaded: the engine, in the GPU's memory.
        cuda: that GPU.
        name: of backend and device, such as `tensorrt:Orin`.
        path: the engine's file, for messages.

    Raises:
        BackendError: its scratch memory or its batches do not fit into the GPU's memory, or it has not one input and
            one output.
    """

    def __init__(self, loaded: Loaded, cuda: Cuda, *, name: str, path: Path) -> None:
        engine, modes = loaded.engine, loaded.module.TensorIOMode
        self.name = name
        self.input = _only(loaded, modes.INPUT, "input", path)
        self.output = _only(loaded, modes.OUTPUT, "output", path)
        self.profiles = _profiles(engine, self.input)
        self.largest_batch = max(profile.largest for profile in self.profiles)
        self._cuda, self._path, self._log = cuda, path, product_log(loaded.module)
        self._lock = Lock()
        with ExitStack() as stack, cuda.in_use():
            held = _Held(loaded, cuda)
            stack.callback(held.release)
            held.context = new_context(loaded, cuda, path)
            held.stream = cuda.new_stream()
            for tensor in (self.input, self.output):
                size = self.largest_batch * _row_bytes(tensor)
                held.addresses[tensor.name] = cuda.allocate(size, f"{self.largest_batch} rows of {tensor.name}")
            stack.pop_all()
        self._held: _Held | None = held
        self._active = 0 if len(self.profiles) == 1 else None
        # A session that nobody closes gives its memory back when it is forgotten, or when Python ends.
        self._release = weakref.finalize(self, held.release)

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """See `Session.run`; raises InputError for more than `largest_batch` rows."""
        check_batch(batch, self.input)
        index = choose_profile(self.profiles, len(batch))
        rows = max(len(batch), self.profiles[index].smallest)
        given = np.ascontiguousarray(batch)
        answer = np.empty((len(batch), *_row(self.output)), dtype=self.output.dtype)
        with self._lock:
            held = self._held
            if held is None:
                raise BackendError(f"the session of {self._path.name} is closed", fix="load the bundle again")
            with self._cuda.in_use():
                try:
                    self._enqueue(held, given, rows, index)
                    self._cuda.download(held.addresses[self.output.name], answer, held.stream)
                finally:
                    self._cuda.wait(held.stream)  # whatever happened, nothing may still use these arrays
        result: NDArray[np.float32] = answer
        return result

    def close(self) -> None:
        """See `Session.close`."""
        with self._lock:
            self._held = None
            self._release()

    def _enqueue(self, held: _Held, batch: NDArray[Any], rows: int, index: int) -> None:
        """Copy a batch to the GPU and compute it, `rows` of them under profile `index`, in the stream's turn."""
        context, stream = held.context, int(held.stream)
        self._log.lines.clear()
        if index != self._active:
            self._expect(context.set_optimization_profile_async(index, stream), batch)
            self._active = index
        self._expect(context.set_input_shape(self.input.name, (rows, *batch.shape[1:])), batch)
        for name, address in held.addresses.items():
            self._expect(context.set_tensor_address(name, address), batch)
        self._cuda.upload(batch, held.addresses[self.input.name], held.stream)
        self._expect(context.execute_async_v3(stream), batch)

    def _expect(self, done: bool, batch: NDArray[Any]) -> None:
        if not done:
            raise BackendError(
                f"{self.name} failed on {self._path} with {self.input.name} {batch.dtype} {batch.shape}: "
                f"{said(self._log)}",
                fix="pass a smaller batch if memory ran out; else build the engine anew: clipdeploy build-engine",
            )


@dataclass
class _Held:
    """What a session holds of the GPU, given back in this order: what computes, then what it computes with."""

    loaded: Loaded | None
    cuda: Cuda
    context: Any = None
    stream: Any = None

    def __post_init__(self) -> None:
        self.addresses: dict[str, int] = {}

    def release(self) -> None:
        with suppress(BackendError), self.cuda.in_use():  # CUDA may be gone already when Python ends
            self.context = None
            self.loaded = None
            while self.addresses:
                self.cuda.free(self.addresses.popitem()[1])
            if self.stream is not None:
                self.cuda.destroy_stream(self.stream)
                self.stream = None


def choose_profile(profiles: Sequence[Profile], rows: int) -> int:
    """The index of the profile for a batch: of those with room for it, the one that computes the fewest rows.

    Raises:
        InputError: none has room for as many; those there are, are named.
    """
    fit = [index for index, profile in enumerate(profiles) if rows <= profile.largest]
    if not fit:
        bands = " and ".join(f"{profile.smallest} to {profile.largest}" for profile in profiles)
        raise InputError(
            f"the engine takes batches of {bands}, got {rows}",
            fix="pass fewer at once, or build an engine for more: clipdeploy build-engine --batch "
            f"1,{min(8, rows)},{rows}",
        )
    return min(fit, key=lambda index: (max(rows, profiles[index].smallest), profiles[index].largest))


def _only(loaded: Loaded, mode: Any, role: str, path: Path) -> TensorSpec:
    """The one input or output of an engine; a free axis is named `batch`."""
    engine = loaded.engine
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    fit = [name for name in names if engine.get_tensor_mode(name) == mode]
    if len(fit) != 1:
        raise BackendError(
            f"{path} must have one {role}, it has: {', '.join(fit) or 'none'}",
            fix="build it with clipdeploy build-engine",
        )
    (name,) = fit
    dtype = engine.get_tensor_dtype(name).name
    if dtype not in _DTYPES:
        raise BackendError(f"{path} has {role} {name} of type {dtype}", fix="build it with clipdeploy build-engine")
    shape = tuple("batch" if size < 0 else int(size) for size in tuple(engine.get_tensor_shape(name)))
    return TensorSpec(name, _DTYPES[dtype], shape)


def _profiles(engine: Any, tensor: TensorSpec) -> tuple[Profile, ...]:
    """The batch sizes that an engine takes."""
    if isinstance(tensor.shape[0], int):
        return (Profile(tensor.shape[0], tensor.shape[0], tensor.shape[0]),)
    bands = (engine.get_tensor_profile_shape(tensor.name, i) for i in range(engine.num_optimization_profiles))
    return tuple(Profile(*(int(shape[0]) for shape in band)) for band in bands)


def _row(tensor: TensorSpec) -> tuple[int, ...]:
    """The shape of one row."""
    return tuple(size for size in tensor.shape[1:] if isinstance(size, int))


def _row_bytes(tensor: TensorSpec) -> int:
    return prod(_row(tensor)) * np.dtype(tensor.dtype).itemsize
