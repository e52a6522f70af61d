"""The places of a session: as many as threads run at once, up to a limit, and as memory has room for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Condition

from clipdeploy.errors import BackendError
from clipdeploy.runtime.trt.cuda import mebibytes
from clipdeploy.runtime.trt.slot import Common, Slot

_LEFT = 0.1
"""Of the GPU's memory, what a further place must leave free for others."""


class Slots:
    """Lends places to threads. The first is made at once, the others when all are in use.

    Raises:
        BackendError: the first does not fit into memory.
    """

    def __init__(self, common: Common, limit: int) -> None:
        self._common: Common | None = common
        self._file = common.path.name
        self._limit = limit
        self._changed = Condition()
        self._making = False
        with common.cuda.in_use():
            self._all = [Slot(common)]
        self._free = list(self._all)

    @contextmanager
    def lend(self) -> Iterator[Slot]:
        """A place for the calling thread, with the GPU in use; waits until one is free."""
        slot, common = self._take()
        try:
            with common.cuda.in_use():
                yield slot
        finally:
            with self._changed:
                self._free.append(slot)
                self._changed.notify()

    def close(self) -> None:
        """Give everything back when the last batch is done; nothing is lent any more."""
        with self._changed:
            common, self._common = self._common, None
            self._changed.notify_all()
            if common is None:
                return
            while self._making or len(self._free) < len(self._all):
                self._changed.wait()
            self._free.clear()
            with suppress(BackendError), common.cuda.in_use():  # CUDA may be gone already when Python ends
                while self._all:
                    self._all.pop().release()

    def _take(self) -> tuple[Slot, Common]:
        with self._changed:
            while True:
                common = self._common
                if common is None:
                    raise BackendError(f"the session of {self._file} is closed", fix="load the bundle again")
                if self._free:
                    return self._free.pop(), common
                if len(self._all) < self._limit and not self._making:
                    self._making = True
                    break
                self._changed.wait()
        made: Slot | None = None
        try:
            made = self._another(common)
        finally:
            with self._changed:
                self._making = False
                if made is None:
                    self._limit = len(self._all)
                else:
                    self._all.append(made)
                self._changed.notify_all()
        return (made, common) if made is not None else self._take()

    def _another(self, common: Common) -> Slot | None:
        """One more place, None where memory has no room for it."""
        cuda, ports = common.cuda, common.ports
        need = common.contexts.scratch_bytes + ports.largest * sum((*ports.row_bytes, *ports.unread_row_bytes))
        with cuda.in_use():
            free, total = cuda.memory()
            if free - need >= _LEFT * total:
                with suppress(BackendError):
                    return Slot(common)
                cuda.check()
            common.notes.append(
                f"{len(self._all)} batch at a time: a further one needs {mebibytes(need)} and more; "
                f"{cuda.free_memory()}"
            )
        return None
