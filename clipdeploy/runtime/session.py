"""The one small protocol that every inference backend meets."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import InputError
from clipdeploy.spec import LENGTH_AXIS, TensorSpec

Embeddings = NDArray[np.float32]
"""(N, D) float32, one L2-normalised row a picture or text."""

LOGITS = "logits"
"""The output that is read of a graph with several: a baked one gives `probabilities` too, which follow from these."""


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


class DeviceArray(Protocol):
    """An array in the memory of a GPU, which `__dlpack__` and `__cuda_array_interface__` share without a copy."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Such as (N, D)."""

    @property
    def dtype(self) -> Any:
        """As numpy names it, such as `float32`."""

    def numpy(self) -> NDArray[np.float32]:
        """A copy in the memory of the host."""


class DeviceSession(Session, Protocol):
    """A session that also takes what lies in the memory of its GPU, and leaves the answer there."""

    def run_on_device(self, batch: Any) -> DeviceArray:
        """As `run`, from the GPU's memory to the GPU's memory.

        Args:
            batch: an array on the session's GPU that offers `__cuda_array_interface__` or `__dlpack__`.

        Raises:
            InputError: it is not what `input` says, has more rows than `largest_batch`, or lies elsewhere.
            BackendError: the engine failed.
        """


def check_batch(batch: NDArray[Any], spec: TensorSpec) -> None:
    """Raise InputError unless `batch` has the dtype and shape of `spec`; a named axis takes any length but zero."""
    if not isinstance(batch, np.ndarray):
        raise InputError(f"{spec.name} must be an ndarray, got {type(batch).__name__}", fix="pass np.asarray(values)")
    check_shape(batch.shape, spec)
    if batch.dtype != np.dtype(spec.dtype):
        raise InputError(
            f"{spec.name} must be {spec.dtype}, got {batch.dtype}", fix=f"pass values.astype(np.{spec.dtype})"
        )


def check_shape(shape: tuple[int, ...], spec: TensorSpec) -> None:
    """Raise InputError unless `shape` is that of `spec`; a named axis takes any length but zero."""
    names = {LENGTH_AXIS: "L"}
    axes = ", ".join(names.get(size, "N") if isinstance(size, str) else str(size) for size in spec.shape)
    fits = len(shape) == len(spec.shape) and all(
        given > 0 if isinstance(size, str) else given == size for given, size in zip(shape, spec.shape, strict=True)
    )
    if not fits:
        fix = "add the batch axis: values[None]" if len(shape) == len(spec.shape) - 1 else None
        raise InputError(f"{spec.name} must have shape ({axes}), got {shape}", fix=fix)
