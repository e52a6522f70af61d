"""Huge pages change where memory lies, never what is in it, and declining costs nothing."""

from __future__ import annotations

import ctypes
import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

from clipdeploy.runtime import huge_pages as module
from clipdeploy.runtime.huge_pages import PAGE_BYTES, collapse, huge_pages


def held_kib() -> int:
    lines = Path("/proc/self/smaps").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages:"))


def private(size: int) -> mmap.mmap:
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def supported() -> bool:
    """Whether this kernel gathers pages when asked."""
    if not sys.platform.startswith("linux") or not module._wanted():
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


@needs_kernel
def test_gaps_and_what_is_hardly_used_are_left_alone() -> None:
    """A huge page for one written byte would take 2 MiB."""
    with private(8 * PAGE_BYTES) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        skip = -start % PAGE_BYTES
        for page in (0, 1, 4, 6):  # 2 and 5 are gaps, 3 holds a byte
            memory[skip + page * PAGE_BYTES : skip + (page + 1) * PAGE_BYTES] = bytes(PAGE_BYTES)
        memory[skip + 3 * PAGE_BYTES] = 1
        memory.madvise(mmap.MADV_HUGEPAGE)
        before = held_kib()
        assert collapse(start, start + len(memory)) == 4
        assert held_kib() - before == 4 * PAGE_BYTES // 1024


@needs_kernel
@pytest.mark.parametrize("told", [True, False])
def test_a_page_that_the_kernel_declines_costs_itself_alone(monkeypatch: pytest.MonkeyPatch, told: bool) -> None:
    if not told:
        monkeypatch.setattr(module, "_PAGEMAP", Path("/proc/self/no_such_file"))
    real, calls = module._madvise(), []

    def declining(address: int, size: int, advice: int) -> int:
        calls.append(size)
        return -1 if address <= middle < address + size else int(real(address, size, advice))

    monkeypatch.setattr(module, "_madvise", lambda: declining)
    array = np.ones(6 * PAGE_BYTES, np.uint8)
    start = -(-array.ctypes.data // PAGE_BYTES) * PAGE_BYTES
    middle = start + 2 * PAGE_BYTES
    assert collapse(start, start + 5 * PAGE_BYTES) == 4
    assert calls == [5 * PAGE_BYTES, *[PAGE_BYTES] * 5]
    middle = 0
    calls.clear()
    assert collapse(start, start + 5 * PAGE_BYTES) == 5
    assert calls == [5 * PAGE_BYTES]


@pytest.mark.parametrize(
    ("enabled", "size", "wanted"),
    [
        ("always [madvise] never", PAGE_BYTES, True),
        ("[always] madvise never", PAGE_BYTES, True),
        ("always madvise [never]", PAGE_BYTES, False),
        ("[always] madvise never", 512 << 20, False),
        (None, PAGE_BYTES, False),
    ],
)
def test_the_setting_of_the_machine_is_kept_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, enabled: str | None, size: int, wanted: bool
) -> None:
    (tmp_path / "hpage_pmd_size").write_text(f"{size}\n")
    if enabled is not None:
        (tmp_path / "enabled").write_text(enabled)
    monkeypatch.setattr(module, "_SETTINGS", tmp_path)
    asked: list[int] = []
    monkeypatch.setattr(module, "collapse", lambda start, end: asked.append(end - start))
    with huge_pages(), private(8 * PAGE_BYTES) as memory:
        kept = private(8 * PAGE_BYTES)
        kept.write(bytes(8 * PAGE_BYTES))
        memory.write(b"1")
    assert bool(asked) is wanted
    kept.close()


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
