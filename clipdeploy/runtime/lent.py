"""The pixels of a picture as an array, without a copy, where Pillow lends its memory.

Pillow 11.2 and later do so by the Arrow C data interface, for pictures that lie in one block of memory: for RGB up to
4 million px.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class _Array(ctypes.Structure):
    """`struct ArrowArray`, of https://arrow.apache.org/docs/format/CDataInterface.html."""


_Array._fields_ = [
    *((name, ctypes.c_int64) for name in ("length", "null_count", "offset", "n_buffers", "n_children")),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_Array))),
    ("dictionary", ctypes.c_void_p),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]


class _Lent:
    """Memory that stays as long as an array over it does."""

    def __init__(self, address: int, shape: tuple[int, int, int], owner: object) -> None:
        self.__array_interface__ = {"data": (address, True), "shape": shape, "typestr": "|u1", "version": 3}
        self._owner = owner


def lent_pixels(image: Image.Image) -> NDArray[np.uint8] | None:
    """A picture's own memory, (H, W, 4) uint8, to be read only; None where Pillow does not lend it.

    Args:
        image: of mode RGB; the fourth byte of a pixel is no part of it. While the array is used, nobody may draw into
            the picture.
    """
    pointer_of, core = _pointer_of(), Image.core  # type: ignore[attr-defined]
    if pointer_of is None or core.get_alignment() != 1 or not hasattr(image, "__arrow_c_array__"):
        return None
    try:
        _, owner = image.__arrow_c_array__()
    except (ValueError, MemoryError):  # it lies in several blocks
        return None
    array = ctypes.cast(pointer_of(owner, b"arrow_array"), ctypes.POINTER(_Array)).contents
    shape = (image.height, image.width, 4)
    if array.n_children != 1 or array.offset or array.length != image.width * image.height:
        return None
    values = array.children[0].contents
    address = values.buffers[1]
    if values.n_buffers != 2 or values.offset or values.length != 4 * array.length or not address:
        return None
    return np.asarray(_Lent(address, shape, owner))


@cache
def _pointer_of() -> Any:
    """`PyCapsule_GetPointer`; None where Python is not CPython."""
    api = getattr(ctypes, "pythonapi", None)
    if api is None:
        return None
    prototype = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
    return prototype(("PyCapsule_GetPointer", api))
