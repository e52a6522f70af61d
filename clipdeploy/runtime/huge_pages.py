"""Weights in pages of 2 MiB: a batch of one reads all of them once, and with pages of 4 KiB it waits for addresses.

On Linux 6.1 and later, where transparent huge pages are not switched off (`/sys/kernel/mm/transparent_hugepage`). What
is asked for is only how the kernel lays out memory, never what is in it; where it declines, all is as before.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

PAGE_BYTES = 2 << 20
# Of the kernel's uapi/asm-generic/mman-common.h.
_MADV_HUGEPAGE, _MADV_COLLAPSE = 14, 25
_MAPS = Path("/proc/self/maps")


@contextmanager
def huge_pages() -> Iterator[None]:
    """Gather the memory that the block comes to hold into huge pages, as far as it lasts; never raises of its own."""
    before = _regions()
    yield
    for start, end in _new(before, _regions()):
        collapse(start, end)


def collapse(start: int, end: int) -> int:
    """Ask for huge pages for the addresses `start .. end`; how many there are now."""
    madvise = _madvise()
    if madvise is None:
        return 0
    first, last = -(-start // PAGE_BYTES), end // PAGE_BYTES
    done = 0
    for page in range(first, last):
        madvise(page * PAGE_BYTES, PAGE_BYTES, _MADV_HUGEPAGE)
        # Memory that nobody has written to yet is left alone: the kernel answers EINVAL.
        done += madvise(page * PAGE_BYTES, PAGE_BYTES, _MADV_COLLAPSE) == 0
    return done


def _regions() -> list[tuple[int, int]]:
    """This process's private memory without a file behind it, as addresses in ascending order."""
    try:
        lines = _MAPS.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        addresses, access, _, _, _, *name = line.split(maxsplit=5)
        if access == "rw-p" and (not name or name[0] == "[heap]"):
            start, _, end = addresses.partition("-")
            found.append((int(start, 16), int(end, 16)))
    return found


def _new(before: list[tuple[int, int]], after: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """What of `after` lies in no region of `before`."""
    for start, end in after:
        for old_start, old_end in before:
            if old_end <= start or old_start >= end:
                continue
            if start < old_start:
                yield start, old_start
            start = max(start, old_end)
        if start < end:
            yield start, end


@cache
def _madvise() -> Any:
    """The C library's `madvise`, None where there is none to ask."""
    if not sys.platform.startswith("linux"):
        return None
    function = getattr(ctypes.CDLL(None), "madvise", None)
    if function is not None:
        function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        function.restype = ctypes.c_int
    return function
