"""Frames in, results out: cameras that share one model, newest frame first, for months.

    with Stream(clip, ["rtsp://door/1", "/dev/video0"], labels=["a person", "a parcel"]) as stream:
        for result in stream:
            print(result.frame.camera, result.decision.label)

Threads: one a camera reads frames and opens its source again when it breaks (`camera.py`); one answers, in
micro-batches over all cameras (`answering.py`); one a sink delivers events (`sinks/`); one waits for the end and joins
the others (here). They meet at one lock (`desk.py`). All of them belong to parts that do not know the `Stream`, so
that one which is forgotten ends.
"""

from __future__ import annotations

import signal
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event as Flag
from threading import Lock, current_thread, main_thread
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from clipdeploy.errors import InputError
from clipdeploy.runtime.labels import DEFAULT_TEMPLATE
from clipdeploy.runtime.stream.answerer import Answerer
from clipdeploy.runtime.stream.answering import Answering
from clipdeploy.runtime.stream.camera import Camera, all_failed
from clipdeploy.runtime.stream.decide import Decider, Smoothing, Thresholds
from clipdeploy.runtime.stream.desk import Desk
from clipdeploy.runtime.stream.gate import Gate
from clipdeploy.runtime.stream.given import Listener, answerer_of, sources_of
from clipdeploy.runtime.stream.lane import Lane
from clipdeploy.runtime.stream.outlet import Outlet
from clipdeploy.runtime.stream.records import Event, Result, StreamStats
from clipdeploy.runtime.stream.sinks import Sink, SinkStats
from clipdeploy.runtime.stream.sources import Backoff
from clipdeploy.runtime.stream.threads import Threads

if TYPE_CHECKING:
    from clipdeploy.runtime.baked import Baked
    from clipdeploy.runtime.clip import Clip


class Stream:
    """Cameras in, an answer for each frame out. Starts with `with`, with iteration or with `run`; runs once.

    Iterating gives a `Result` for each frame, as they are made. An app that is slower than the cameras loses the oldest
    results, never the newest; frames that come faster than the model answers are dropped likewise, the newest is
    asked about. Sources that are not live, such as files, wait instead: no frame of them is lost, and they go no faster
    than the results are taken. Every frame is counted: see `stats`.

    Args:
        model: a `Clip`, with `labels`; a `Baked`, which has its own; or any `Answerer`. It stays the caller's, who
            closes it after the stream.
        sources: one or a list: what `open_source` takes, or a `Source`.
        labels: K distinct texts, for a `Clip`.
        template: as for `Clip.encode_labels`.
        others: labels for what else is to be seen, such as an empty street: asked about with the rest, and never told.
            Of a `Baked` or an `Answerer`, those of its labels that are such.
        max_batch: frames in one run of the model at most, over all cameras.
        deadline_ms: how long a frame waits at most for frames of other cameras, to be asked about with them; only
            while some are about to come. 0 never waits.
        queue: frames of a live camera that wait at most for their turn; the oldest are dropped. 1 is the freshest.
        gate: which frames look as the one before, and get its answer; None asks about every frame.
        smoothing: over the answers of successive frames; None takes each as it is.
        thresholds: how well a label must fit, else it is `none of these`; see `calibrate_thresholds`.
        enter_s, leave_s, probability, rivals: when a label has appeared, and when it has left; see `Decider`.
        sinks: where events go; closed with the stream.
        on_event: called with each event, in a thread of its own. What it raises costs that event and is counted.
        reconnect: when a live source that broke is opened again.
        keep_results: results of each camera that wait at most for the app, with their frames: the memory they take is
            this times that of a frame.

    Raises:
        InputError: an argument is wrong. TextError: a label is.
        SourceError: a source is none.
    """

    def __init__(
        self,
        model: Answerer | Clip | Baked,
        sources: Any,
        *,
        labels: Sequence[str] | None = None,
        template: str | Sequence[str] = DEFAULT_TEMPLATE,
        others: Sequence[str] = (),
        max_batch: int = 4,
        deadline_ms: float = 20.0,
        queue: int = 1,
        gate: Gate | None = Gate(),  # noqa: B008  # never used itself: each camera has a fresh one of its settings
        smoothing: Smoothing | None = Smoothing(),  # noqa: B008  # frozen
        thresholds: Thresholds | None = None,
        enter_s: float = 0.1,
        leave_s: float = 0.2,
        probability: float = 0.5,
        rivals: float | None = None,
        sinks: Sequence[Sink] = (),
        on_event: Callable[[Event], object] | None = None,
        reconnect: Backoff = Backoff(),  # noqa: B008  # frozen
        keep_results: int = 16,
    ) -> None:
        for name, value in (("max_batch", max_batch), ("queue", queue), ("keep_results", keep_results)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} must be a whole number above 0, got {value!r}")
        if not 0.0 <= deadline_ms < float("inf"):
            raise InputError(f"deadline_ms must not be negative, got {deadline_ms!r}")
        self._others = tuple(others)
        self._answerer = answerer_of(model, labels, self._others, template)
        self._check(thresholds)
        opened = sources_of(sources)
        self._desk, self._stop_sources = Desk(), Flag()
        self._outlet = Outlet(self._desk, tuple(source.name for source in opened), keep_results)
        self._cameras = tuple(
            Camera(source, self._desk, self._stop_sources, reconnect, queue if source.live else max(queue, max_batch))
            for source in opened
        )
        lanes = []
        for camera in self._cameras:
            decider = Decider(
                smoothing=Smoothing(0.0) if smoothing is None else smoothing,
                thresholds=thresholds,
                enter_s=enter_s,
                leave_s=leave_s,
                probability=probability,
                rivals=rivals,
                others=self._others,
            )
            lanes.append(Lane(camera, None if gate is None else gate.fresh(), decider, self._outlet))
        listeners: list[Sink] = [] if on_event is None else [Listener(on_event)]
        self._answering = Answering(
            self._answerer, lanes, self._desk, self._outlet, max_batch=max_batch, deadline_s=deadline_ms / 1e3
        )
        self._threads = Threads(
            self._desk, self._cameras, self._answering, self._outlet, [*sinks, *listeners], self._stop_sources
        )
        self._forgotten = weakref.finalize(self, self._threads.wish, True)
        self._starting = Lock()
        self._began: float | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that may be in view, from the next answer on; without `others`."""
        return tuple(label for label in self._answerer.labels if label not in self._others)

    @property
    def cameras(self) -> tuple[str, ...]:
        """The names of the sources, in the order given."""
        return tuple(camera.name for camera in self._cameras)

    def __enter__(self) -> Stream:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Result]:
        """Results as they are made, until the sources end or the stream is stopped.

        Outside of `with` the stream ends with the loop.

        Raises:
            SourceError: no source came to its end, all of them failed.
            ClipdeployError: the model failed again and again.
        """
        started = self._start()
        try:
            while (result := self._outlet.take()) is not None:
                yield result
                del result  # which would keep its frame in memory while the next one is waited for
            self._raise()
        finally:
            if started:
                self.close()

    def run(self, on_result: Callable[[Result], object] | None = None) -> None:
        """Pass each result to `on_result`, in this thread, until the sources end or the stream is stopped.

        Raises:
            As iteration does, and what `on_result` raises.
        """
        for result in self:
            if on_result is not None:
                on_result(result)

    def stop(self) -> None:
        """Ask the stream to end, and return at once; from any thread or signal handler, any number of times.

        Frames and results that wait are dropped and counted; iteration and `run` end once the threads have.
        """
        self._threads.wish(True)

    def close(self) -> None:
        """Stop, and wait until all threads have ended, sources and sinks are closed."""
        self.stop()
        with self._starting:
            begun, self._began = self._began, self._began or time.monotonic()  # it is not started any more
        if begun is None:
            self._threads.never()
        self._threads.join()

    def swap(self, labels: Sequence[str], template: str | Sequence[str] | None = None) -> None:
        """Replace the labels while the stream runs; the next frame of each camera is asked with them.

        Labels that stay keep their state; those that go leave, with an event; new ones have the median of the
        thresholds, where there are any. `others` stay. None keeps the template.

        Raises:
            TextError: a label is empty, given twice, or too long for the model; the labels stay.
            InputError: the labels of this model cannot be swapped, as they are baked in.
        """
        swap = getattr(self._answerer, "swap", None)
        if swap is None:
            raise InputError(
                f"the labels of a {type(self._answerer).__name__} cannot be swapped",
                fix="stream with the bundle that it was baked from: clipdeploy.load(BUNDLE)",
            )
        swap([*labels, *self._others], template)
        self._answering.ask_all()

    def stats(self) -> StreamStats:
        """Counts and times so far, all of one moment; from any thread."""
        began, lost = self._began, sum(sink.lost for sink in self.sink_stats())
        with self._desk.lock:
            answering = self._answering
            return StreamStats(
                cameras=tuple(camera.stats(self._outlet.undelivered[camera.name]) for camera in self._cameras),
                seconds=0.0 if began is None else time.monotonic() - began,
                latency_ms=answering.times.latency_ms.percentiles,
                answer_ms=answering.times.answer_ms.percentiles,
                batch=answering.times.batch,
                events=answering.events,
                events_lost=lost,
                error=None if answering.error is None else f"{type(answering.error).__name__}: {answering.error}",
            )

    def sink_stats(self) -> tuple[SinkStats, ...]:
        """Counts of each sink, `on_event` last."""
        return self._threads.sink_stats()

    @contextmanager
    def serve_signals(self, *signals: signal.Signals) -> Iterator[None]:
        """Have SIGINT and SIGTERM, or those given, stop the stream, within `with`; the next does as before.

        Raises:
            InputError: not called in the main thread, where Python allows no handlers.
        """
        if current_thread() is not main_thread():
            raise InputError("signals can be served in the main thread only", fix="call stream.stop() instead")
        before: dict[signal.Signals, Any] = {}

        def stop(number: int, frame: FrameType | None) -> None:
            for one, handler in before.items():
                signal.signal(one, signal.SIG_DFL if handler is None else handler)
            self.stop()

        for one in signals or (signal.SIGINT, signal.SIGTERM):
            before[one] = signal.signal(one, stop)
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, signal.SIG_DFL if handler is None else handler)

    def _start(self) -> bool:
        """Start the threads; whether it was this call that did."""
        with self._starting:
            if self._began is not None:
                return False
            self._began = time.monotonic()
            self._threads.start()
            return True

    def _check(self, thresholds: Thresholds | None) -> None:
        if thresholds is not None:
            origin = {
                name: getattr(self._answerer, name, None) for name in ("embedding_space", "templates", "precision")
            }
            thresholds.check(self.labels, **origin)

    def _raise(self) -> None:
        if self._desk.fault is not None:
            raise self._desk.fault
        failed = all_failed(self._cameras)
        if failed is not None and not self._desk.stopping:
            raise failed

    def __repr__(self) -> str:
        return f"<Stream of {len(self._cameras)} cameras, {len(self.labels)} labels>"
