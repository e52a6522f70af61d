"""A few threads that are made at first use, kept, and given back by `close`."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from threading import Lock
from typing import Any, ParamSpec, TypeVar
from weakref import WeakSet

from clipdeploy.errors import BackendError

P = ParamSpec("P")
T = TypeVar("T")


class Pool:
    """Threads for work that lets go of the interpreter, such as decoding. Safe to share between threads.

    A process that was forked starts with none, and makes its own. Dropped without `close`, it ends by itself.

    Args:
        workers: threads at most.
        name: what they are called.
    """

    def __init__(self, workers: int, name: str) -> None:
        self.workers = workers
        self._name = name
        self._lock = Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._closed = False
        _POOLS.add(self)

    def submit(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a thread make the call; raises BackendError after `close`."""
        with self._lock:
            if self._closed:
                raise _closed()
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self.workers, thread_name_prefix=self._name)
            return self._executor.submit(call, *args, **kwargs)

    def side_by_side(self, calls: Sequence[Callable[[], None]]) -> None:
        """Make calls that do not depend on each other, in this thread and in those that are free; return when all are
        made. A pool that is busy or closed leaves them to this thread.
        """
        waiting = deque(calls)

        def work() -> None:
            while waiting:
                try:
                    call = waiting.popleft()
                except IndexError:  # another thread took the last one
                    return
                call()

        helpers = []
        with suppress(BackendError):
            helpers = [self.submit(work) for _ in range(min(self.workers, len(calls)) - 1)]
        try:
            work()
        finally:
            begun = [helper for helper in helpers if not helper.cancel()]
            wait(begun)
        for helper in begun:
            helper.result()

    def close(self, *, cancel: bool = True) -> None:
        """End the threads once what they do now is done; what waits is cancelled, or with False done too."""
        with self._lock:
            executor, self._executor = self._executor, None
            self._closed = True
        if executor is not None:
            executor.shutdown(cancel_futures=cancel)

    def _forget(self) -> None:
        """In a forked child: the threads are the parent's, and whoever held the lock is not here."""
        self._lock = Lock()
        self._executor = None


def results(futures: Sequence[Future[T]]) -> list[T]:
    """What the calls returned, in order; at the first that failed the rest is dropped, and its error raised.

    Raises:
        BackendError: the pool was closed before all were made.
    """
    try:
        return [future.result() for future in futures]
    except CancelledError:
        raise _closed() from None
    finally:
        drop(futures)


def drop(futures: Iterable[Future[Any]]) -> None:
    """Cancel the calls that no thread has begun, and wait for the others."""
    begun = [future for future in futures if not future.cancel()]
    for future in begun:
        future.exception()


def _closed() -> BackendError:
    return BackendError("the Clip is closed and has given its threads back", fix="load the bundle again")


_POOLS: WeakSet[Pool] = WeakSet()


def _forget_all() -> None:
    for pool in list(_POOLS):
        pool._forget()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_forget_all)
