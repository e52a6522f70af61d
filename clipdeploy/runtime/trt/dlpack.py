"""DLPack: arrays handed from one library to another without a copy, by capsules that hold a small C record.

The records are those of DLPack's header before version 1 (`DLManagedTensor`), which every library takes:
https://dmlc.github.io/dlpack/latest/c_api.html
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

CPU, CUDA, CUDA_MANAGED = 1, 2, 13
"""Kinds of devices."""
_KINDS = {0: "int", 1: "uint", 2: "float", 6: "bool"}
_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}
_FRESH = b"dltensor"
"""The name of a capsule that nobody has taken yet."""


class _Device(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int32), ("index", ctypes.c_int32))


class _Type(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _Type),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


# A capsule's destructor is called with a capsule that is about to go, so it must be handled by its address alone.
_NEW = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)
_IS_VALID = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
_POINTER = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)

_given: dict[int, tuple[object, ...]] = {}
"""What must stay while somebody holds a record, by the record's address."""


def _forget(record: int | None) -> None:
    _given.pop(record or 0, None)


def _forget_unused(capsule: int | None) -> None:
    if _IS_VALID(capsule, _FRESH):  # one that was taken bears another name, and its taker calls the deleter
        _forget(_POINTER(capsule, _FRESH))


# Any thread may call these, also one that does not hold Python's lock. They outlive this module: others call them late.
_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_forget)
_DESTRUCTOR = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_forget_unused)
for _late in (_DELETER, _DESTRUCTOR, _FRESH):
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(_late))


def capsule(address: int, shape: tuple[int, ...], dtype: str, device: tuple[int, int], owner: object) -> Any:
    """A capsule for an array without gaps.

    Args:
        address: where its first element is.
        shape: its axes.
        dtype: such as `float32`.
        device: kind and index.
        owner: kept for as long as somebody holds the array.
    """
    kind = np.dtype(dtype)
    sizes = (ctypes.c_int64 * len(shape))(*shape)
    record = _Managed()
    record.tensor = _Tensor(
        address, _Device(*device), len(shape), _Type(_CODES[kind.kind], kind.itemsize * 8, 1), sizes, None, 0
    )
    record.deleter = ctypes.cast(_DELETER, ctypes.c_void_p)
    place = ctypes.addressof(record)
    _given[place] = (record, sizes, owner)
    try:
        return _NEW(place, _FRESH, ctypes.cast(_DESTRUCTOR, ctypes.c_void_p))
    except BaseException:
        _forget(place)
        raise


@dataclass(frozen=True)
class Lent:
    """What a capsule tells of an array.

    Attributes:
        address: where its first element is.
        shape: its axes.
        dtype: such as `float32`; `code4:16` and the like for what has no name here.
        device: kind and index.
        gapless: whether its elements lie one after another, the last axis' first.
    """

    address: int
    shape: tuple[int, ...]
    dtype: str
    device: tuple[int, int]
    gapless: bool


def read(given: object) -> Lent:
    """What a capsule tells, which stays the caller's: the array is there for as long as the capsule is.

    Raises:
        TypeError: it is no capsule of DLPack, or was taken already.
    """
    if not _IS_VALID(id(given), _FRESH):
        raise TypeError("not a DLPack capsule, or one that was taken already")
    tensor = _Managed.from_address(_POINTER(id(given), _FRESH)).tensor
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    strides = tuple(tensor.strides[axis] for axis in range(tensor.ndim)) if tensor.strides else None
    return Lent(
        address=(tensor.data or 0) + tensor.byte_offset,
        shape=shape,
        dtype=_named(tensor.dtype),
        device=(tensor.device.kind, tensor.device.index),
        gapless=strides is None or is_gapless(shape, strides),
    )


def is_gapless(shape: tuple[int, ...], strides: tuple[int, ...], unit: int = 1) -> bool:
    """Whether elements lie one after another, the last axis' first; `unit` is the stride from one to the next."""
    if prod(shape) == 0:
        return True
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != unit:
            return False
        unit *= size
    return True


def _named(dtype: Any) -> str:
    bits = "" if _KINDS.get(dtype.code) == "bool" else str(dtype.bits)
    name = _KINDS.get(dtype.code, f"code{dtype.code}:") + bits
    return name if dtype.lanes == 1 else f"{name}x{dtype.lanes}"
