"""Memory of mapped files, given back as soon as its values are taken over."""

from __future__ import annotations

import ctypes
import mmap
import sys
from functools import cache
from typing import Any

from torch import Tensor

_PAGEOUT = 21  # MADV_PAGEOUT: the pages are written or read again when needed, so no value can change by it


def give_back(tensor: Tensor) -> None:
    """Tell the system that the values of a contiguous `tensor` will not be read soon; only Linux listens.

    The pages of a mapped file count as memory of the process once they are read. Without this, loading would need the
    model and the whole file at its end.
    """
    advise = _madvise()
    start = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if advise is not None and tensor.is_contiguous() and end > start:
        advise(start, end - start, _PAGEOUT)  # advice: whether it is taken is no matter


@cache
def _madvise() -> Any | None:
    if sys.platform != "linux":
        return None
    advise: Any = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return advise
