"""The kernels that TensorRT for RTX compiles when it first meets a shape, kept for the next process."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from threading import Lock
from typing import Any

from clipdeploy.errors import OutputError
from clipdeploy.runtime.remembered import cache_folder
from clipdeploy.writing import replacing

FOLDER = "rtx-kernels"
_LARGEST_BYTES = 1 << 30


def kernel_file(engine_name: str, gpu: str) -> Path:
    """Where the kernels of an engine on a GPU are kept on this machine.

    The product checks what it reads against its own version, the GPU and the driver, and takes nothing that differs.
    """
    digest = hashlib.sha256(f"{engine_name}\0{gpu}".encode()).hexdigest()[:16]
    return cache_folder() / FOLDER / f"{engine_name[:80]}_{digest}.bin"


class KernelCache:
    """Read when made, written by `keep`. Nothing but a saving of time: a file that cannot be read or written is none.

    Args:
        runtime_cache: the product's, empty.
        path: the file; None keeps kernels in memory alone.
    """

    def __init__(self, runtime_cache: Any, path: Path | None) -> None:
        self._path, self._lock, self._kept = path, Lock(), 0
        self._cache = runtime_cache
        if path is not None:
            with contextlib.suppress(OSError):
                if 0 < path.stat().st_size <= _LARGEST_BYTES:
                    content = path.read_bytes()
                    if runtime_cache.deserialize(content):
                        self._kept = len(content)

    def keep(self) -> None:
        """Write the kernels if there are more than were read or written before."""
        if self._path is None or not self._lock.acquire(blocking=False):
            return
        try:
            content = memoryview(self._cache.serialize())
            if content.nbytes in (0, self._kept):
                return
            with contextlib.suppress(OSError, OutputError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with replacing(self._path) as beside:
                    beside.write_bytes(content)
                self._kept = content.nbytes
        finally:
            self._lock.release()
