"""What an engine takes and gives, and which of its profiles a batch runs under."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from clipdeploy.engine_key import Profile
from clipdeploy.errors import BackendError, InputError
from clipdeploy.runtime.session import LOGITS
from clipdeploy.runtime.trt.plan import Loaded
from clipdeploy.spec import TensorSpec

_DTYPES = {"FLOAT": "float32", "HALF": "float16", "UINT8": "uint8", "INT32": "int32", "INT64": "int64"}


@dataclass(frozen=True)
class Ports:
    """The one input and the outputs of an engine, and the batch sizes that it takes.

    Attributes:
        input, output: their first axis is the batch, named `batch` where it is free.
        profiles: batch sizes, in the engine's order.
        unread: outputs that nobody reads; the engine must have a place to write them to all the same.
    """

    input: TensorSpec
    output: TensorSpec
    profiles: tuple[Profile, ...]
    unread: tuple[TensorSpec, ...] = ()

    @property
    def largest(self) -> int:
        """Rows of a batch at most."""
        return max(profile.largest for profile in self.profiles)

    @property
    def row_bytes(self) -> tuple[int, int]:
        """Of input and output."""
        return _row_bytes(self.input), _row_bytes(self.output)

    @property
    def unread_row_bytes(self) -> tuple[int, ...]:
        """Of each output that nobody reads."""
        return tuple(map(_row_bytes, self.unread))

    @property
    def answer(self) -> tuple[int, ...]:
        """The shape of one row of the output."""
        return _row(self.output)


def read_ports(loaded: Loaded, path: Path) -> Ports:
    """What the engine says of itself; raises BackendError unless it has one input, and one output or `logits` among
    several, of known types."""
    modes = loaded.module.TensorIOMode
    given = _only(_tensors(loaded, modes.INPUT, "input", path), "input", path)
    gives = _tensors(loaded, modes.OUTPUT, "output", path)
    answer = _only([tensor for tensor in gives if tensor.name == LOGITS] or gives, "output", path)
    unread = tuple(tensor for tensor in gives if tensor is not answer)
    return Ports(given, answer, _profiles(loaded.engine, given), unread)


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


def _only(tensors: list[TensorSpec], role: str, path: Path) -> TensorSpec:
    """The one of them."""
    if len(tensors) != 1:
        raise BackendError(
            f"{path} must have one {role}, it has: {', '.join(tensor.name for tensor in tensors) or 'none'}",
            fix="build it with clipdeploy build-engine",
        )
    return tensors[0]


def _tensors(loaded: Loaded, mode: Any, role: str, path: Path) -> list[TensorSpec]:
    """The inputs or outputs of an engine; a free axis is named `batch`."""
    engine = loaded.engine
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    found = []
    for name in names:
        if engine.get_tensor_mode(name) != mode:
            continue
        dtype = engine.get_tensor_dtype(name).name
        if dtype not in _DTYPES:
            raise BackendError(f"{path} has {role} {name} of type {dtype}", fix="build it with clipdeploy build-engine")
        shape = tuple("batch" if size < 0 else int(size) for size in tuple(engine.get_tensor_shape(name)))
        found.append(TensorSpec(name, _DTYPES[dtype], shape))
    return found


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
