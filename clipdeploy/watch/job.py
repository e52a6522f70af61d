"""The stage: cameras to views, until the sources end, time is up, or somebody ends it."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import FrameType

from clipdeploy.errors import InputError
from clipdeploy.progress import Progress, silent
from clipdeploy.runtime.stream import Gate, Smoothing, Stream
from clipdeploy.runtime.stream.records import Event, Result
from clipdeploy.watch.board import Board
from clipdeploy.watch.open import Model, found_thresholds, opened_model, opened_sinks, opened_sources
from clipdeploy.watch.records import Ending, View, WatchOutcome, WatchRequest
from clipdeploy.watch.video import Recorder, video_paths
from clipdeploy.watch.web import WebServer, web_address

TICK_S = 0.2
_ENDINGS: dict[int, Ending] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


def watch(request: WatchRequest, view: Callable[[Board], View], *, progress: Progress = silent) -> WatchOutcome:
    """Watch, and show what is seen.

    Args:
        request: what to watch, as what, and where the answers go.
        view: makes what a person reads, of the board on which lies what was seen last.
        progress: told until `view` is made.

    Raises:
        InputError: an argument is wrong. TextError: a label is.
        SourceError: a source does not exist, or all of them failed.
        BundleError, BackendError, MissingExtraError: the bundle or the engine cannot be used.
        OutputError: the video, the events or the page cannot be written or served.
    """
    if request.seconds is not None and request.seconds <= 0:
        raise InputError(f"{request.seconds} seconds are no time to watch", fix="give a number above 0")
    with ExitStack() as stack:
        stack.enter_context(_told_once())
        server = _opened_server(request)
        if server is not None:
            stack.callback(server.close)
        model = stack.enter_context(opened_model(request, progress))
        relay = _Relay()
        stream = _opened_stream(request, model, relay, progress)
        stack.callback(stream.close)
        board = relay.board = Board(stream.cameras, stream.stats)
        relay.view = view(board)
        stack.callback(relay.view.close)
        stack.callback(board.close)
        if request.video is not None:
            for camera, path in video_paths(request.video, stream.cameras).items():
                relay.recorders[camera] = Recorder(path, camera, relay.events, relay.view.warn)
        if server is not None:
            swap = None if model.baked else _Swap(stream)
            server.start(board, title="clipdeploy watch", labels=lambda: stream.labels, swap=swap)
            _tell_address(relay.view, server)
        relay.view.note(f"{model.backend.name}, {model.precision}: {model.backend.reason}")
        ended = _run(request, stream, relay)
        return WatchOutcome(
            model=model.name,
            precision=model.precision,
            backend=model.backend.name,
            backend_reason=model.backend.reason,
            labels=stream.labels,
            ended=ended,
            stats=board.stats(fresh=True),
            videos=tuple(recorder.close() for recorder in relay.recorders.values()),
        )


@contextmanager
def _told_once() -> Iterator[None]:
    """Keep cameras that break off out of the log's own way to stderr: the view tells of them already."""
    log, nowhere = logging.getLogger("clipdeploy.stream.camera"), logging.NullHandler()
    log.addHandler(nowhere)
    try:
        yield
    finally:
        log.removeHandler(nowhere)


@dataclass(eq=False)
class _Relay:
    """Passes on what the stream tells, to all who show it; they are made after the stream is."""

    board: Board | None = None
    view: View | None = None
    recorders: dict[str, Recorder] = field(default_factory=dict)
    live: dict[str, bool] = field(default_factory=dict)

    def event(self, event: Event) -> None:
        """To the board, and to who reads."""
        if self.board is not None and self.view is not None:
            self.board.event(event)
            self.view.event(event)

    def result(self, result: Result) -> None:
        """To the board, and into the camera's video: every frame where none may be lost."""
        if self.board is not None:
            self.board.take(result)
        recorder = self.recorders.get(result.frame.camera)
        if recorder is not None:
            recorder.take(result, wait=not self.live[result.frame.camera])

    def events(self) -> list[Event]:
        """The newest ones, oldest first."""
        return [] if self.board is None else [told.event for told in self.board.events()]


class _Swap:
    """Replaces the labels, for one visitor after the other."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._lock = stream, threading.Lock()

    def __call__(self, labels: Sequence[str]) -> None:
        with self._lock:
            self._stream.swap(labels)


def _opened_server(request: WatchRequest) -> WebServer | None:
    if request.web is None:
        if request.token is not None:
            raise InputError("a token is for the page", fix="add --web, or leave --token out")
        return None
    return WebServer(web_address(request.web, request.token))


def _opened_stream(request: WatchRequest, model: Model, relay: _Relay, progress: Progress) -> Stream:
    sources = opened_sources(request, model.color)
    if request.video is not None:
        video_paths(request.video, [source.name for source in sources])  # before thresholds take their time
    relay.live = {source.name: source.live for source in sources}
    return Stream(
        model.answerer,
        sources,
        max_batch=request.max_batch,
        deadline_ms=request.deadline_ms,
        gate=Gate() if request.gate else None,
        others=request.others,
        smoothing=Smoothing(request.smooth_s),
        thresholds=found_thresholds(request, model, progress),
        sinks=opened_sinks(request),
        on_event=relay.event,
    )


def _tell_address(view: View, server: WebServer) -> None:
    if server.open_to_others:
        view.warn(
            f"the page is open to other machines, unencrypted; who has this address sees the cameras: {server.url}"
        )
    else:
        view.note(f"the page is at {server.url}")


def _run(request: WatchRequest, stream: Stream, relay: _Relay) -> Ending:
    """Until the end; what it was."""
    ended: list[Ending] = []
    assert relay.view is not None
    try:
        with _on_signals(stream, ended), stream, _until(stream, request.seconds, ended), _ticking(relay.view):
            stream.run(relay.result)
    finally:
        stream.close()  # all events are told
        for recorder in relay.recorders.values():
            recorder.close()
    return ended[0] if ended else "sources ended"


@contextmanager
def _on_signals(stream: Stream, ended: list[Ending]) -> Iterator[None]:
    """Ctrl-C and TERM end the stream; a second one does what it did before. Nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _ENDINGS}

    def end(number: int, frame: FrameType | None) -> None:
        for other, handler in before.items():
            signal.signal(other, signal.SIG_DFL if handler is None else handler)
        ended.append(_ENDINGS[number])
        stream.stop()

    for number in _ENDINGS:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def _until(stream: Stream, seconds: float | None, ended: list[Ending]) -> Iterator[None]:
    """The stream ends after so many seconds."""
    if seconds is None:
        yield
        return

    def end() -> None:
        ended.append("time is up")
        stream.stop()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _ticking(view: View) -> Iterator[None]:
    """The view is asked to draw, a few times a second."""
    over = threading.Event()

    def tick() -> None:
        while not over.wait(TICK_S):
            view.tick()

    thread = threading.Thread(target=tick, name="view", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
