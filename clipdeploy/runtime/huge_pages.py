"""Weights in pages of 2 MiB: a batch of one reads all of them once, and with pages of 4 KiB it waits for addresses.

On Linux 6.1 and later, where transparent huge pages are not switched off (`/sys/kernel/mm/transparent_hugepage`). What
is asked for is only how the kernel lays out memory, never what is in it; where it declines, all is as before. Only
memory that is in use is gathered, once: what is taken later lies as it would have.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PAGE_BYTES = 2 << 20
_MADV_COLLAPSE = 25  # of the kernel's uapi/asm-generic/mman-common.h
_MAPS, _PAGEMAP = Path("/proc/self/maps"), Path("/proc/self/pagemap")
_SETTINGS = Path("/sys/kernel/mm/transparent_hugepage")


@contextmanager
def huge_pages() -> Iterator[None]:
    """Gather the memory that the block comes to hold into huge pages, as far as it lasts; never raises of its own."""
    if not _wanted():
        yield
        return
    before = _regions()
    yield
    for start, end in _new(before, _regions()):
        collapse(start, end)


def collapse(start: int, end: int) -> int:
    """Ask for huge pages for the addresses `start .. end`; how many there are now.

    A huge page takes all of its memory at once, so one that is less than half in use is left alone.
    """
    madvise = _madvise()
    if madvise is None:
        return 0
    done = 0
    for first, last in _runs(_in_use(-(-start // PAGE_BYTES), end // PAGE_BYTES), -(-start // PAGE_BYTES)):
        # In one call, which empties every processor's lists of pages once; the kernel ends it at the first page that
        # it declines.
        if madvise(first * PAGE_BYTES, (last - first) * PAGE_BYTES, _MADV_COLLAPSE) == 0:
            done += last - first
        else:
            done += sum(madvise(page * PAGE_BYTES, PAGE_BYTES, _MADV_COLLAPSE) == 0 for page in range(first, last))
    return done


def _wanted() -> bool:
    """Whether this machine lets memory lie in huge pages, and they are of the size that is asked for.

    The kernel takes a request as these for more than the setting, so the setting is asked here.
    """
    try:
        size = int((_SETTINGS / "hpage_pmd_size").read_text())
        return size == PAGE_BYTES and "[never]" not in (_SETTINGS / "enabled").read_text()
    except (OSError, ValueError):
        return False


def _in_use(first: int, last: int) -> NDArray[np.bool_]:
    """Of the huge pages `first .. last`, counted from address 0, which are at least half in memory."""
    small = PAGE_BYTES // mmap.PAGESIZE
    count = max(0, last - first)
    try:
        with _PAGEMAP.open("rb", buffering=0) as stream:
            raw = os.pread(stream.fileno(), count * small * 8, first * small * 8)
    except (OSError, OverflowError):
        return np.ones(count, np.bool_)  # not told: the kernel declines what nobody has written to
    entries = np.frombuffer(raw[: len(raw) // (8 * small) * 8 * small], "<u8").reshape(-1, small)
    present = np.count_nonzero(entries >> np.uint64(63), axis=1)
    in_use: NDArray[np.bool_] = 2 * present >= small
    return in_use


def _runs(flags: NDArray[np.bool_], offset: int) -> Iterator[tuple[int, int]]:
    """Where `flags` is true without a gap, as (first, last + 1), counted from `offset`."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    for first, last in edges.reshape(-1, 2).tolist():
        yield offset + first, offset + last


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
