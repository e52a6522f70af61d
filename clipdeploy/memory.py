"""Give memory back to the system, so that an export peaks at little more than one copy of the weights."""

from __future__ import annotations

import ctypes
import gc
import sys


def collect() -> None:
    """Free what lies in reference cycles (a traced network, an exporter's program), and give it back."""
    gc.collect()
    give_back()


def give_back() -> None:
    """Give freed memory back: the C library would keep blocks of up to 32 MB each, such as the weights of a layer."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone
        if trim is not None:
            trim(0)
