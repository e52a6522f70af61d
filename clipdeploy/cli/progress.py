"""Progress on a terminal as one redrawn line, elsewhere as a plain line every few seconds."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from typing import TextIO

from clipdeploy.text import one_line

REDRAW_S = 0.1
TERMINAL_AFTER_S = 0.3
PLAIN_AFTER_S = 2.0
PLAIN_EVERY_S = 5.0
_ERASE = "\r\x1b[2K"


class ProgressLine:
    """A `Progress` callback that draws; work done sooner than `*_AFTER_S` leaves no trace.

    A thread redraws while the work itself is silent, so that a long step shows that time passes.

    Args:
        stream: where to draw.
        terminal: whether a line can be drawn over.
        enabled: False draws nothing.
        clock: seconds, for tests.
        heartbeat: whether to start the thread.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        terminal: bool,
        enabled: bool = True,
        clock: Callable[[], float] = time.monotonic,
        heartbeat: bool = True,
    ) -> None:
        self._stream, self._terminal, self._clock = stream, terminal, clock
        self._enabled, self._heartbeat = enabled, heartbeat
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._started = clock()
        self._drawn_at: float | None = None
        self._visible = False
        self._what, self._done, self._total = "", 0, 0
        self._stage_started, self._stage_first = self._started, 0
        self._thread: threading.Thread | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        """Take the news: `done` of `total` of `what`; `total` is 0 while it is not known."""
        if not self._enabled or self._closed.is_set():
            return
        with self._lock:
            if what != self._what:
                self._stage_started, self._stage_first = self._clock(), done
            self._what, self._done, self._total = what, done, total
            self._draw()
        if self._heartbeat and self._thread is None:
            self._thread = threading.Thread(target=self._beat, name="progress", daemon=True)
            self._thread.start()

    def tick(self) -> None:
        """Redraw, if it is time."""
        with self._lock:
            self._draw()

    def erase(self) -> None:
        """Clear the drawn line, so that something else can be written; the next news draws it again."""
        with self._lock:
            if self._visible:
                self._stream.write(_ERASE)
                self._stream.flush()
                self._visible, self._drawn_at = False, None

    def close(self) -> None:
        """Clear the line and draw no more."""
        self._closed.set()
        self.erase()

    def _beat(self) -> None:
        while not self._closed.wait(0.5):
            self.tick()

    def _draw(self) -> None:
        now = self._clock()
        after, every = (TERMINAL_AFTER_S, REDRAW_S) if self._terminal else (PLAIN_AFTER_S, PLAIN_EVERY_S)
        due = now - self._started >= after and (self._drawn_at is None or now - self._drawn_at >= every)
        if not due or not self._what or self._closed.is_set():
            return
        line = self._line(now)
        if self._terminal:
            columns = shutil.get_terminal_size().columns
            self._stream.write(_ERASE + line[: max(columns - 1, 10)])
            self._visible = True
        else:
            self._stream.write(line + "\n")
        self._stream.flush()
        self._drawn_at = now

    def _line(self, now: float) -> str:
        """Such as `embedding pictures: 320 of 1000 (32 %), 12 s, about 25 s left`."""
        text = one_line(self._what)
        parts = [f"{now - self._started:.0f} s"]
        if self._total:
            text += f": {self._done} of {self._total} ({100 * self._done // self._total} %)"
            fresh = self._done - self._stage_first
            if fresh > 0 and self._done < self._total and now - self._stage_started > 1:
                left = (now - self._stage_started) / fresh * (self._total - self._done)
                parts.append(f"about {left:.0f} s left")
        elif self._done:
            text += f": {self._done}"
        line = ", ".join([text, *parts])
        encoding = self._stream.encoding or "utf-8"
        return line.encode(encoding, "backslashreplace").decode(encoding)
