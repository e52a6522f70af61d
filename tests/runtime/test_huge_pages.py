"""Huge pages change where memory lies, never what is in it, and declining costs nothing."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

from clipdeploy.runtime import huge_pages as module
from clipdeploy.runtime.huge_pages import PAGE_BYTES, collapse, huge_pages

_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def held_kib() -> int:
    lines = Path("/proc/self/smaps").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages:"))


def private(size: int) -> mmap.mmap:
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def supported() -> bool:
    """Whether this kernel gathers pages when asked."""
    if not sys.platform.startswith("linux") or not _SETTING.is_file() or "[never]" in _SETTING.read_text():
        return False
    array = np.ones(4 * PAGE_BYTES, np.uint8)
    return collapse(array.ctypes.data, array.ctypes.data + array.nbytes) > 0


needs_kernel = pytest.mark.skipif(not supported(), reason="this kernel gathers no huge pages when asked (Linux 6.1+)")


@needs_kernel
def test_what_the_block_makes_lies_in_huge_pages_and_is_the_same() -> None:
    content = np.arange(4 * PAGE_BYTES, dtype=np.uint32).tobytes()  # 32 MiB
    before = held_kib()
    with huge_pages():
        memory = private(len(content))  # not an ndarray: numpy asks for huge pages itself
        memory.write(content)
    with memory:
        assert held_kib() - before >= len(content) // 1024 // 2
        assert memory[:] == content


@needs_kernel
def test_memory_that_was_there_is_left_alone() -> None:
    with private(8 * PAGE_BYTES) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        memory.write(bytes(8 * PAGE_BYTES))
        before = held_kib()
        with huge_pages():
            pass
        assert held_kib() == before


def test_only_what_is_new_is_named() -> None:
    found = list(module._new([(10, 20), (30, 40)], [(5, 25), (30, 40), (38, 50), (60, 70)]))
    assert found == [(5, 10), (20, 25), (40, 50), (60, 70)]


def test_a_system_without_them_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_MAPS", tmp_path / "none")
    monkeypatch.setattr(module, "_madvise", lambda: None)
    with huge_pages():
        pass
    assert collapse(0, 4 * PAGE_BYTES) == 0


def test_an_error_of_the_block_passes_through() -> None:
    with pytest.raises(KeyError), huge_pages():
        raise KeyError("mine")
