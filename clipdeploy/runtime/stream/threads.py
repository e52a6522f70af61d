"""The threads of a stream: started together, ended together."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from queue import SimpleQueue
from threading import Event as Flag
from threading import Thread

from clipdeploy.runtime.stream.answering import Answering
from clipdeploy.runtime.stream.camera import Camera
from clipdeploy.runtime.stream.desk import Desk
from clipdeploy.runtime.stream.outlet import Outlet
from clipdeploy.runtime.stream.records import Event
from clipdeploy.runtime.stream.sinks import Outbox, Sink, SinkStats

_SOURCES_S = 5.0
"""A source that does not end so long after it was told to is left behind."""
_FLUSH_S, _FLUSH_WHEN_STOPPED_S = 5.0, 2.0

_log = logging.getLogger("clipdeploy.stream")


class Threads:
    """One thread a camera, one that answers, those of the sinks, and one that waits for the end and joins the others.

    `wish` takes no lock, so that a signal handler may call it whatever the thread it interrupts is at.

    Args:
        desk: of the stream.
        cameras: with a thread each.
        answering: what the answering thread does.
        outlet: where results wait.
        sinks: closed at the end.
        stop_sources: set when the sources are to end.
    """

    def __init__(
        self,
        desk: Desk,
        cameras: Sequence[Camera],
        answering: Answering,
        outlet: Outlet,
        sinks: Sequence[Sink],
        stop_sources: Flag,
    ) -> None:
        self._desk = desk
        self._cameras = tuple(cameras)
        self._answering = answering
        self._outlet = outlet
        self._sinks = tuple(sinks)
        self._stop_sources = stop_sources
        self._outbox: Outbox | None = None
        self._wishes: SimpleQueue[bool] = SimpleQueue()
        self._answerer = Thread(target=self._answer, name="clipdeploy-answers", daemon=True)
        self._last = Thread(target=self._wait_and_end, name="clipdeploy-stream", daemon=True)

    def wish(self, stop: bool) -> None:
        """Have the stream end: at once with `stop`, or because there is nothing more to answer."""
        self._wishes.put(stop)

    def start(self) -> None:
        """Start all of them."""
        self._outbox = Outbox(self._sinks)
        self._last.start()
        self._answerer.start()
        for camera in self._cameras:
            camera.start()

    def never(self) -> None:
        """End without a start: the sinks are closed."""
        Outbox(self._sinks).close(_FLUSH_WHEN_STOPPED_S)
        self._desk.finish()

    def join(self) -> None:
        """Wait until all have ended."""
        self._desk.wait_until_over()
        if self._last.ident is not None:
            self._last.join()

    def sink_stats(self) -> tuple[SinkStats, ...]:
        """Counts of each sink; none before the start."""
        outbox = self._outbox
        return () if outbox is None else outbox.stats()

    def _answer(self) -> None:
        try:
            self._answering.run(self._send)
        finally:
            self.wish(False)

    def _send(self, event: Event) -> None:
        if self._outbox is not None:
            self._outbox.put(event)

    def _wait_and_end(self) -> None:
        try:
            if self._wishes.get() or self._desk.fault is not None:
                self._desk.stop()
            self._stop_sources.set()
            self._answerer.join()
            ends = time.monotonic() + _SOURCES_S
            for camera in self._cameras:
                if not camera.join(max(0.0, ends - time.monotonic())):
                    _log.warning("%s does not end; it is left behind", camera.name)
            if self._outbox is not None:
                self._outbox.close(_FLUSH_WHEN_STOPPED_S if self._desk.stopping else _FLUSH_S)
        finally:
            with self._desk.lock:
                for camera in self._cameras:
                    camera.inbox.empty()
                if self._desk.stopping:
                    self._outlet.empty()
            self._desk.finish()
