"""Batches that are on the GPU already: taken from whoever made them, without a copy through the machine's memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from clipdeploy.errors import BackendError, InputError
from clipdeploy.runtime.session import check_shape
from clipdeploy.runtime.trt import dlpack
from clipdeploy.runtime.trt.cuda import LEGACY_STREAM, Cuda
from clipdeploy.spec import TensorSpec


@dataclass(frozen=True)
class Incoming:
    """A batch on the GPU.

    Attributes:
        address: where it begins.
        shape: its axes; it lies there without gaps.
        size_bytes: of all of it.
        keeper: what keeps its memory.
    """

    address: int
    shape: tuple[int, ...]
    size_bytes: int
    keeper: object


def take(batch: object, spec: TensorSpec, cuda: Cuda, stream: int, event: Any) -> Incoming:
    """A batch that `stream` may read as soon as it is computed.

    Args:
        batch: with `__dlpack__` and `__dlpack_device__`, or `__cuda_array_interface__`.
        spec: what it must be.
        cuda: the GPU that it must be on, in use.
        stream: that is to read it.
        event: one to order streams with.

    Raises:
        InputError: it is something else, or elsewhere, or not what `spec` says.
        BackendError: CUDA failed.
    """
    if hasattr(batch, "__dlpack__") and hasattr(batch, "__dlpack_device__"):
        return _by_dlpack(batch, spec, cuda, stream)
    if hasattr(batch, "__cuda_array_interface__"):
        return _by_interface(batch, spec, cuda, stream, event)
    raise InputError(
        f"{spec.name} must be an array on the GPU, got {type(batch).__name__}",
        fix="pass an array with __dlpack__ or __cuda_array_interface__, such as PyTorch's or CuPy's",
    )


def _by_dlpack(batch: Any, spec: TensorSpec, cuda: Cuda, stream: int) -> Incoming:
    kind, index = batch.__dlpack_device__()
    if kind not in (dlpack.CUDA, dlpack.CUDA_MANAGED):
        raise InputError(
            f"{spec.name} must be on {_place(cuda)}, this {type(batch).__name__} is in the machine's memory or on "
            f"another kind of device (DLPack's device {int(kind)})",
            fix="move it there, or pass a NumPy array to the call that takes those",
        )
    if kind == dlpack.CUDA:
        _check_gpu(int(index), spec, cuda)
    try:
        capsule = batch.__dlpack__(stream=stream)  # its maker lets `stream` wait for it
        lent = dlpack.read(capsule)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{spec.name}: {type(batch).__name__} cannot be handed over by DLPack: {error}",
            fix="pass a plain array on the GPU; of a PyTorch tensor, tensor.detach()",
        ) from error
    return _checked(lent.address, lent.shape, lent.dtype, lent.gapless, spec, capsule)


def _by_interface(batch: Any, spec: TensorSpec, cuda: Cuda, stream: int, event: Any) -> Incoming:
    try:
        told = dict(batch.__cuda_array_interface__)
        address, shape = int(told["data"][0] or 0), tuple(int(size) for size in told["shape"])
        kind, version = np.dtype(told["typestr"]), int(told["version"])
        strides, mask = told.get("strides"), told.get("mask")
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{spec.name}: {type(batch).__name__} has no __cuda_array_interface__ that can be read: {error}",
            fix="pass a plain array on the GPU",
        ) from error
    if mask is not None:
        raise InputError(f"{spec.name} has a mask, which is not taken", fix="fill in the masked values")
    gapless = strides is None or dlpack.is_gapless(shape, tuple(strides), kind.itemsize)
    incoming = _checked(address, shape, kind.name, gapless and kind.isnative, spec, batch)
    index = cuda.owner(address)
    if index is None:
        raise InputError(f"{spec.name} must be on {_place(cuda)}, it is in the machine's memory", fix="move it there")
    _check_gpu(index, spec, cuda)
    # Up to version 2 nothing was said of streams, and arrays are computed in the one that every program has.
    maker = told.get("stream") if version >= 3 else LEGACY_STREAM
    if maker is not None:
        if int(maker) == 0:
            raise InputError(
                f"{spec.name}: stream 0 in __cuda_array_interface__ is ambiguous", fix="let its maker say 1 or 2"
            )
        try:
            cuda.record(event, int(maker))
        except BackendError as error:
            raise InputError(
                f"{spec.name}: the stream {int(maker)} that it is computed in cannot be waited for: {error.message}",
                fix="keep that stream while the array is used",
            ) from error
        cuda.order(stream, event)
    return incoming


def _checked(
    address: int, shape: tuple[int, ...], dtype: str, gapless: bool, spec: TensorSpec, keeper: object
) -> Incoming:
    check_shape(shape, spec)
    if dtype != spec.dtype:
        raise InputError(f"{spec.name} must be {spec.dtype}, got {dtype}", fix=f"convert it to {spec.dtype} on the GPU")
    if not gapless:
        raise InputError(
            f"{spec.name} must lie in memory without gaps, the last axis' elements first",
            fix="pass tensor.contiguous() of PyTorch, or ascontiguousarray(array) of CuPy",
        )
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    return Incoming(address, shape, size, keeper)


def _check_gpu(index: int, spec: TensorSpec, cuda: Cuda) -> None:
    if index != cuda.gpu.index:
        raise InputError(
            f"{spec.name} must be on {_place(cuda)}, it is on GPU {index}",
            fix=f"make it there, or load the bundle while GPU {index} is in use: CUDA_VISIBLE_DEVICES={index}",
        )


def _place(cuda: Cuda) -> str:
    return f"GPU {cuda.gpu.index} ({cuda.gpu.name})"
