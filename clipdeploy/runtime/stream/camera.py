"""One source and its thread: opens it, reads it, and opens it again with back-off when it breaks."""

from __future__ import annotations

import logging
import time
from contextlib import closing
from threading import Event, Thread
from typing import Literal, TypeAlias, cast

from clipdeploy.errors import ClipdeployError, SourceError
from clipdeploy.runtime.stream.desk import Desk
from clipdeploy.runtime.stream.inbox import Inbox
from clipdeploy.runtime.stream.records import CameraStats
from clipdeploy.runtime.stream.sources import Backoff, Source
from clipdeploy.runtime.stream.stats import Window

State: TypeAlias = Literal["opening", "running", "waiting to reconnect", "ended", "failed"]

_LATENCIES = 512
"""Answered frames of a camera that its latency is told of."""

_log = logging.getLogger("clipdeploy.stream.camera")


class Camera:
    """A source that puts its frames into an inbox, in a thread of its own.

    A live source that breaks is opened again, at first soon, then with longer and longer waits; the count begins anew
    with each frame that comes. One that is not live cannot be taken up where it broke, and fails; so does one that does
    not mend, such as a damaged file that plays as a camera would.

    Args:
        source: what gives frames.
        desk: of the stream.
        stop: set when the source is to end.
        backoff: when to open it again.
        size: frames that wait at most.
    """

    def __init__(self, source: Source, desk: Desk, stop: Event, backoff: Backoff, size: int) -> None:
        self.name = source.name
        self.live = source.live
        self.inbox = Inbox(desk, size, lossless=not source.live)
        self.latency_ms = Window(_LATENCIES)
        self.state: State = "opening"
        self.error: SourceError | None = None
        self.reconnects = 0
        self.lost_at: float | None = None  # when it broke; None while frames come
        self._source = source
        self._desk = desk
        self._stop = stop
        self._backoff = backoff
        self._attempt = 0
        self._hopeless = False
        self._thread = Thread(target=self._work, name=f"clipdeploy-camera-{self.name}", daemon=True)

    @property
    def over(self) -> bool:
        """Whether no frame will come any more; needs the desk's lock."""
        return self.state in ("ended", "failed")

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread's end; False where the source does not let go of it."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def stats(self, undelivered: int) -> CameraStats:
        """Counts so far; needs the desk's lock."""
        counts = self.inbox.counts
        return CameraStats(
            camera=self.name,
            state=self.state,
            captured=counts.captured,
            answered=counts.answered,
            repeated=counts.repeated,
            dropped=counts.dropped,
            failed=counts.failed,
            waiting=self.inbox.waiting,
            undelivered=undelivered,
            reconnects=self.reconnects,
            error=None if self.error is None else self.error.message,
            fps=self.inbox.pace.fps(time.monotonic()),
            latency_ms=self.latency_ms.percentiles,
        )

    def _work(self) -> None:
        state: State = "failed"
        try:
            while True:
                try:
                    self._read()
                    state = "ended"
                    return
                except SourceError as error:
                    error.__traceback__ = None  # which would keep the last frame in memory
                    if not self._wait(error):
                        return
        finally:
            with self._desk.lock:
                self.state = "ended" if self._desk.stopping else state
                self._desk.arrived.notify()

    def _read(self) -> None:
        """Open the source and take its frames until it ends; raises SourceError where it breaks."""
        try:
            with closing(self._source.frames(self._stop)) as frames:  # type: ignore[type-var]  # a generator
                for frame in frames:
                    if self._attempt or self.state != "running":
                        self._runs()
                    if not self.inbox.put(frame):
                        return
        except SourceError:
            raise
        except ClipdeployError as error:  # such as a library that is not installed, which no waiting mends
            self._hopeless = True
            raise SourceError(f"{self.name}: {error.message}", fix=error.fix) from error
        except Exception as error:  # an app's own iterable may raise anything
            raise SourceError(f"{self.name}: {type(error).__name__}: {error}") from error

    def _runs(self) -> None:
        with self._desk.lock:
            self.state, self.lost_at = "running", None
            self._attempt = 0

    def _wait(self, error: SourceError) -> bool:
        """Wait until the source is to be opened again; False where it is not."""
        mends = not self._hopeless and bool(getattr(self._source, "mends", self.live))
        delay_s = self._backoff.delay_s(self._attempt) if mends else None
        with self._desk.lock:
            self.error = error
            self.inbox.pace.broke()
            if self.lost_at is None:
                self.lost_at = time.monotonic()
            self.state = "failed" if delay_s is None else "waiting to reconnect"
            self._desk.arrived.notify()
        if self._stop.is_set():
            return False
        if delay_s is None:
            _log.warning("%s: %s", self.name, error.message)
            return False
        if not self._attempt:
            _log.warning("%s: %s; it is opened again", self.name, error.message)
        self._attempt += 1
        if self._stop.wait(delay_s):
            return False
        with self._desk.lock:
            self.state = "opening"
            self.reconnects += 1
        return True


def all_failed(cameras: tuple[Camera, ...]) -> SourceError | None:
    """What to raise when no camera came to its end; None where one did."""
    if any(camera.state != "failed" for camera in cameras):
        return None
    errors = [cast(SourceError, camera.error) for camera in cameras]
    if len(errors) == 1:
        return errors[0]
    told = "; ".join(error.message for error in errors)
    return SourceError(f"all {len(errors)} sources failed: {told}", fix=errors[0].fix)
