"""Annotated videos: H.264 in fragments, so that one that is cut off by a kill or a full disk plays up to there."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import re
import threading
from collections import deque
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from clipdeploy.errors import InputError, MissingExtraError, OutputError
from clipdeploy.runtime.stream.records import Event, Result
from clipdeploy.watch.draw import Caption, annotate, canvas_size, picture_of
from clipdeploy.watch.records import VideoOutcome
from clipdeploy.watch.shown import bars, clock_time

SUFFIXES = (".mp4", ".m4v", ".mov")
BARS, TICKER = 6, 3
_TICKER_S = 8.0  # how long an event is shown
_FRAGMENT_MS = 2000  # what a kill may cost
_WAITING = 8  # frames between the stream and the encoder
_STEP_MS = 40  # to the first frame of a file that begins again
_LONGEST_STILL_MS = 10_000  # while a camera was away
_TICKS = 1000  # of the video's clock, a second


def video_paths(video: Path, cameras: Sequence[str]) -> dict[str, Path]:
    """Where each camera's video goes: the path itself for one camera; `NAME-CAMERA.mp4` for each of several.

    Raises:
        InputError: the name is no video's, or a file is there already: a recording is never written over.
        OutputError: the folder does not exist.
    """
    if video.suffix.lower() not in SUFFIXES:
        raise InputError(f"{video} is no name for a video", fix=f"end it in one of {', '.join(SUFFIXES)}")
    if not video.parent.is_dir():
        raise OutputError(f"the folder {video.parent} does not exist", fix=f"make it: mkdir -p {video.parent}")
    if len(cameras) == 1:
        paths = {cameras[0]: video}
    else:
        taken: set[str] = set()
        paths = {}
        for number, camera in enumerate(cameras, start=1):
            safe = re.sub(r"[^\w.-]+", "_", camera).strip("._")[:60] or str(number)
            safe = f"{safe}-{number}" if safe in taken else safe
            taken.add(safe)
            paths[camera] = video.with_name(f"{video.stem}-{safe}{video.suffix}")
    for path in paths.values():
        if os.path.lexists(path) and not path.is_char_device():
            raise InputError(f"{path} exists already", fix="name another file, or remove it first")
    return paths


class Recorder:
    """Writes one camera's video, in a thread of its own.

    A recorder that fails says so once, closes its file, and lets the stream go on.

    Args:
        path: of the file.
        camera: whose results it is given.
        events: the newest events of all cameras, oldest first.
        warn: told when it cannot go on.

    Raises:
        MissingExtraError: PyAV is not installed.
        OutputError: the file cannot be made.
    """

    def __init__(
        self, path: Path, camera: str, events: Callable[[], Sequence[Event]], warn: Callable[[str], None]
    ) -> None:
        try:
            import av
        except ImportError as error:
            raise MissingExtraError("PyAV", extra="video", needed_for="an annotated video") from error
        del av
        self.path, self.camera = path, camera
        self._events, self._warn = events, warn
        self._waiting: queue.Queue[Result | None] = queue.Queue(_WAITING)
        self._frames, self._left_out = 0, 0
        self._error: str | None = None
        self._stopping = threading.Event()
        try:
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise OutputError(
                f"{path} cannot be written: {error.strerror or error}", fix="name another file"
            ) from error
        self._thread = threading.Thread(target=self._run, name=f"video {camera}", daemon=True)
        self._thread.start()

    def take(self, result: Result, *, wait: bool) -> None:
        """Draw and write a result: `wait` for room where every frame counts, else leave out what comes too fast."""
        if self._error is not None or self._stopping.is_set():
            return
        try:
            self._waiting.put_nowait(result)
        except queue.Full:
            if not wait:
                self._left_out += 1
                return
            self._put_patiently(result)

    def close(self, timeout_s: float = 10.0) -> VideoOutcome:
        """Write what waits, and end the file."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._put_patiently(None)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._fail(f"it could not be ended within {timeout_s:.0f} s")
        return VideoOutcome(self.path, self.camera, self._frames, self._left_out, self._error)

    def _put_patiently(self, result: Result | None) -> None:
        """Put, as long as somebody is there to take."""
        while self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._waiting.put(result, timeout=0.2)
                break

    def _run(self) -> None:
        try:
            with self._file:
                self._write()
        except (OSError, ValueError) as error:  # ValueError: what libav cannot take, in PyAV's words
            self._fail(_why(error))

    def _write(self) -> None:
        first = self._waiting.get()
        if first is None:
            return
        with _Film(self._file, canvas_size(first.frame.width, first.frame.height)) as film:
            result: Result | None = first
            while result is not None:
                film.add(result, self._recent(result))
                self._frames += 1
                result = self._waiting.get()

    def _recent(self, result: Result) -> tuple[Event, ...]:
        """This camera's events of the last seconds, as the frame knows them."""
        now = result.frame.time_s
        mine = (e for e in self._events() if e.camera == self.camera and 0 <= now - e.time_s <= _TICKER_S)
        return tuple(deque(mine, maxlen=TICKER))

    def _fail(self, why: str) -> None:
        if self._error is None:
            self._error = why
            self._warn(f"{self.path}: {why}; the video ends here with {self._frames} frames, the stream goes on")


class _Film:
    """One H.264 stream in a fragmented MP4."""

    def __init__(self, file: Any, size: tuple[int, int]) -> None:
        import av

        self._size = size
        options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
        self._container = av.open(file, "w", format="mp4", options=options)
        self._stream = self._container.add_stream("libx264", rate=30)
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, _TICKS)
        self._stream.codec_context.gop_size = 10_000  # key frames are set by the clock, below
        self._stream.options = {"preset": "veryfast", "crf": "23", "tune": "zerolatency", "threads": "1"}
        self._clock: tuple[float, int] | None = None  # the last frame's time, and its place in the video
        self._key_ms: int | None = None

    def add(self, result: Result, events: tuple[Event, ...]) -> None:
        import av
        from av.video.frame import PictureType

        frame = result.frame
        place_ms = self._place_ms(frame.time_s)
        caption = Caption(
            present=result.decision.present,
            bars=bars(result.decision, BARS),
            events=events,
            corner=f"{frame.camera}  {_time(frame.position, frame.wall)}  {result.latency_s * 1e3:.0f} ms",
        )
        drawn = av.VideoFrame.from_image(annotate(picture_of(frame), caption, self._size))
        drawn.pts, drawn.time_base = place_ms, Fraction(1, _TICKS)
        if self._key_ms is None or place_ms - self._key_ms >= _FRAGMENT_MS:
            drawn.pict_type, self._key_ms = PictureType.I, place_ms
        self._container.mux(self._stream.encode(drawn))

    def __enter__(self) -> _Film:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._container.mux(self._stream.encode())
            self._container.close()
            return
        with contextlib.suppress(OSError, ValueError):  # what it failed of is on its way
            self._container.close()

    def _place_ms(self, time_s: float) -> int:
        """Where the frame stands in the video: as far behind the last one as it was taken, also where a file begins
        again."""
        if self._clock is None:
            place = 0
        else:
            last_s, last_ms = self._clock
            ahead = round((time_s - last_s) * _TICKS)
            place = last_ms + (min(ahead, _LONGEST_STILL_MS) if ahead > 0 else _STEP_MS)
        self._clock = (time_s, place)
        return place


def _time(position: float | None, wall: float) -> str:
    """The place in a file, or the time of day."""
    return clock_time(wall) if position is None else f"{int(position // 60)}:{position % 60:04.1f}"


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(error).__name__
