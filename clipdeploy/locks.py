"""Locks between processes: the system holds them, so that a process that is killed gives its locks back."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from clipdeploy.errors import OutputError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

Waiting = Callable[[str], None]
"""Called again and again as `waiting(holder)` while another process has the lock; `holder` such as `process 123`."""

_POLL_S = 0.1
_BEYOND_THE_TEXT = 1 << 20


@contextmanager
def locked(path: Path, *, waiting: Waiting | None = None) -> Iterator[None]:
    """Hold the lock of `path`, a file that is made for it and gone afterwards; waits while another process holds it.

    Not reentrant: taking it again within the block would wait for ever.

    Raises:
        OutputError: the file cannot be made, or its disk has no locks.
    """
    while (handle := _take(path)) is None:
        if waiting is not None:
            waiting(_holder(path))
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        _give_back(path, handle)


@contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock of `path` if nobody else does; gives whether it is held."""
    handle = _take(path)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            _give_back(path, handle)


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock of `path`; needs no more than to read there."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _try(handle, shared=True)
    except OSError:
        return False
    finally:
        os.close(handle)


def _take(path: Path) -> int | None:
    """The open file that carries the lock; None where another process has it."""
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise OutputError(
                f"cannot write to {path.parent}: {error}", fix="choose a folder you may write to"
            ) from error
        try:
            taken = _try(handle)
        except OSError as error:
            os.close(handle)
            raise OutputError(
                f"cannot lock {path}: {error}", fix="copy the folder to a disk that has file locks, such as a local one"
            ) from error
        if taken and _is_same(handle, path):
            with contextlib.suppress(OSError):  # who holds it is a courtesy; a full disk must not forbid the lock
                os.ftruncate(handle, 0)
                os.pwrite(handle, str(os.getpid()).encode(), 0) if hasattr(os, "pwrite") else None
            return handle
        os.close(handle)
        if not taken:
            return None
        # Its holder has just ended and removed the file that we waited for: take the one that is there now.


def _give_back(path: Path, handle: int) -> None:
    # While it is held, nobody else may remove it; whoever waits for the removed one sees that it is no longer there.
    with contextlib.suppress(OSError):  # Windows keeps a file that another process has open; it does no harm
        if _is_same(handle, path):
            path.unlink()
    os.close(handle)


def _is_same(handle: int, path: Path) -> bool:
    """Whether `path` still is the open file."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


def _holder(path: Path) -> str:
    try:
        process = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        process = ""
    return f"process {process}" if process.isdigit() else "another process"


if sys.platform == "win32":

    def _try(handle: int, *, shared: bool = False) -> bool:
        os.lseek(handle, _BEYOND_THE_TEXT, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

else:

    def _try(handle: int, *, shared: bool = False) -> bool:
        """Lock without waiting; False where another holds it."""
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
