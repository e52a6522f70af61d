"""A thread that reads a source which may keep it waiting, so that whoever takes the frames never waits for long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from threading import Condition, Event, Thread
from typing import Generic, TypeVar

from clipdeploy.errors import SourceError

T = TypeVar("T")

_LOOK_S = 0.1


class Reader(Generic[T]):
    """Runs `work` in a thread of its own and gives on what it puts.

    A library that waits for a dead network or device cannot be told to stop. The thread that it waits in is then left
    behind; it ends by the library's own timeout, and what it still finds is thrown away.

    Args:
        work: called once with this reader. It gives what it reads to `put` until that says no, and lets go of the
            source before it returns. What it raises is raised to whoever takes.
        name: of the source, for errors.
        lossless: whether `work` waits until each thing was taken and another is wanted; otherwise the newest replaces
            the one that waits.
        first_s: how long the first may take; None for as long as it likes.
        silent_s: how long each later one may take; likewise.
        fix: what may be wrong where nothing comes.
    """

    def __init__(
        self,
        work: Callable[[Reader[T]], None],
        *,
        name: str,
        lossless: bool,
        first_s: float | None = None,
        silent_s: float | None = None,
        fix: str | None = None,
    ) -> None:
        self._work = work
        self._name = name
        self._lossless = lossless
        self._first_s = first_s
        self._silent_s = silent_s
        self._fix = fix
        self._changed = Condition()
        self._waiting: list[T] = []  # at most one
        self._wanted = False
        self._ended = False
        self._closing = False
        self._error: BaseException | None = None
        self._on_close: Callable[[], None] | None = None
        self._on_silence: Callable[[], str] | None = None

    @property
    def closing(self) -> bool:
        """Whether nothing is wanted any more."""
        return self._closing

    def put(self, thing: T) -> bool:
        """Give something on; False when nothing is wanted any more. Called by `work`."""
        with self._changed:
            self._waiting[:] = [thing]
            self._wanted = False
            self._changed.notify_all()
            while self._lossless and not (self._wanted or self._closing):
                self._changed.wait()
            return not self._closing

    def on_close(self, act: Callable[[], None]) -> None:
        """Have `act` called, by whoever takes, when nothing is wanted any more, so that `work` wakes up."""
        with self._changed:
            self._on_close = act
            closing = self._closing
        if closing:
            act()

    def on_silence(self, tell: Callable[[], str]) -> None:
        """Have `tell` say what is known when nothing comes."""
        self._on_silence = tell

    def take(self, stop: Event) -> Iterator[T]:
        """What is put, until `work` ends or `stop` is set.

        Raises:
            SourceError: nothing came for too long. And what `work` raised.
        """
        thread = Thread(target=self._run, name=f"clipdeploy-read-{self._name}", daemon=True)
        thread.start()
        try:
            limit_s = self._first_s
            while (found := self._next(stop, limit_s)) is not None:
                thing = found.pop()
                del found
                yield thing
                del thing
                limit_s = self._silent_s
        finally:
            self._close()
            # a thread that can be woken is gone at once; one that waits in a library is not waited for
            thread.join(_LOOK_S)

    def _next(self, stop: Event, limit_s: float | None) -> list[T] | None:
        """The next thing, in a list of its own; None at the end."""
        began = time.monotonic()
        with self._changed:
            self._wanted = not self._waiting
            self._changed.notify_all()
            while True:
                if stop.is_set():
                    return None
                if self._waiting:
                    found, self._waiting = self._waiting, []
                    return found
                if self._error is not None:
                    raise self._error
                if self._ended:
                    return None
                if limit_s is not None and time.monotonic() - began > limit_s:
                    raise self._silence(limit_s)
                self._changed.wait(_LOOK_S)

    def _silence(self, limit_s: float) -> SourceError:
        known = self._on_silence() if self._on_silence is not None else ""
        return SourceError(
            f"{self._name}: no picture came for {limit_s:g} s" + (f"; {known}" if known else ""), fix=self._fix
        )

    def _close(self) -> None:
        with self._changed:
            self._closing = True
            self._waiting.clear()
            self._changed.notify_all()
            act = self._on_close
        if act is not None:
            act()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._work(self)
        except BaseException as caught:  # noqa: BLE001 - it is raised to whoever takes
            error = caught
        with self._changed:
            self._error, self._ended = error, True
            self._changed.notify_all()
