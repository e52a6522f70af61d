"""The one small protocol that every inference backend meets."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import InputError
from clipdeploy.spec import TensorSpec


class Session(Protocol):
    """One encoder, loaded by one engine. `run` may be called from several threads at once."""

    @property
    def name(self) -> str:
        """Engine and device, such as `onnxruntime:CPUExecutionProvider`."""

    @property
    def input(self) -> TensorSpec:
        """What `run` takes."""

    @property
    def output(self) -> TensorSpec:
        """What `run` gives."""

    @property
    def largest_batch(self) -> int | None:
        """Rows that `run` takes at most; None where there is no limit."""

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """One batch through the encoder: `input` -> `output`, the first axis of both being the batch.

        Raises:
            InputError: `batch` is not what `input` says.
            BackendError: the engine failed.
        """

    def close(self) -> None:
        """Give the engine's memory back; the session cannot run afterwards."""


def check_batch(batch: NDArray[Any], spec: TensorSpec) -> None:
    """Raise InputError unless `batch` has the dtype and shape of `spec`; a named axis takes any length but zero."""
    if not isinstance(batch, np.ndarray):
        raise InputError(f"{spec.name} must be an ndarray, got {type(batch).__name__}", fix="pass np.asarray(values)")
    axes = ", ".join("N" if isinstance(size, str) else str(size) for size in spec.shape)
    fits = batch.ndim == len(spec.shape) and all(
        given > 0 if isinstance(size, str) else given == size
        for given, size in zip(batch.shape, spec.shape, strict=True)
    )
    if not fits:
        fix = "add the batch axis: values[None]" if batch.ndim == len(spec.shape) - 1 else None
        raise InputError(f"{spec.name} must have shape ({axes}), got {batch.shape}", fix=fix)
    if batch.dtype != np.dtype(spec.dtype):
        raise InputError(
            f"{spec.name} must be {spec.dtype}, got {batch.dtype}", fix=f"pass values.astype(np.{spec.dtype})"
        )
