"""Video files, by PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

from clipdeploy.errors import SourceError
from clipdeploy.runtime.stream.records import Frame
from clipdeploy.runtime.stream.sources.decode import Converter, failures, pyav, told, video_stream
from clipdeploy.runtime.stream.sources.pace import Pace
from clipdeploy.runtime.stream.sources.source import Stamp, Thinning
from clipdeploy.spec import FrameColor

_FPS_UNSAID = 25.0
_CUT_S = 1.0
"""A film is cut off that is so much shorter than it says."""
_DAMAGED = (
    "the file is damaged, or was still being written: copy it again, or repair it with `ffmpeg -i FILE -c copy NEW`"
)


class VideoFile:
    """A video file. Positions are those of the file, from 0 at its first frame, and go on where it begins anew. A bare
    stream, such as `.h264`, has none, and is held to have 25 frames a second.

    Frames are turned upright where the file says how it was held. `index` is the frame's number in the file (counted
    on where it begins anew), those left out by `fps` or by the clock counted too.

    Args:
        path: the file.
        name: of the camera.
        color: of the frames.
        fps: frames a second at most; None takes all.
        realtime: whether it plays at its own pace, as a camera would; otherwise as fast as its frames are taken.
        loop: whether it begins anew at its end.
    """

    def __init__(
        self, path: Path, *, name: str, color: FrameColor, fps: float | None, realtime: bool, loop: bool
    ) -> None:
        self.name = name
        self.live = realtime
        self._path = path
        self._color: FrameColor = color
        self._fps = fps
        self._loop = loop
        self._gave = False
        self._stamp = Stamp(name, color)
        self._av = pyav(f"reading the video {path.name}")
        self._failures = failures(self._av)
        _check(path)

    @property
    def mends(self) -> bool:
        """See `Source`: what is damaged stays so; one that is to begin anew does, if any of it can be read."""
        return self.live and self._loop and self._gave

    def frames(self, stop: Event) -> Iterator[Frame]:
        """See `Source`."""
        self._gave = False
        pace = Pace() if self.live else None
        thinning = Thinning(self._fps)
        converter = Converter(self._color, str(self._path))
        begins_s = 0.0
        while not stop.is_set():
            ends_s = begins_s
            for picture, position, next_s in self._decoded(begins_s):
                ends_s, self._gave = next_s, True
                index = self._stamp.count()
                if stop.is_set():
                    return
                if thinning.takes(position) and (pace is None or pace.wait(position, stop)):
                    yield self._stamp.frame(converter(picture), index, position=position)
            if not self._loop:
                return
            if ends_s == begins_s:
                raise SourceError(f"{self._path} holds no frame to begin anew with")
            begins_s = ends_s

    def _decoded(self, begins_s: float) -> Iterator[tuple[Any, float, float]]:
        """Every frame, where it stands, and where the next one should, in seconds; raises SourceError."""
        _check(self._path)
        try:
            # the prefix keeps FFmpeg from reading a name with a colon as an address
            container = self._av.open(f"file:{self._path}")
        except self._failures as error:
            raise SourceError(f"{self._path} is no video that can be read: {told(error)}", fix=_DAMAGED) from error
        with closing(container):
            stream = video_stream(container, str(self._path))
            stream.thread_type = "AUTO"
            gap = 1.0 / float(stream.average_rate or _FPS_UNSAID)
            first, position, count, packets = None, begins_s, 0, 0
            try:
                for packet in container.demux(stream):
                    packets += packet.size > 0 or packet.dts is not None
                    for picture in packet.decode():
                        time_s = count * gap if picture.time is None else float(picture.time)
                        first = time_s if first is None else first
                        position = begins_s + max(0.0, time_s - first)
                        count += 1
                        yield picture, position, position + gap
            except self._failures as error:
                raise self._broken(position - begins_s, count, told(error)) from error
            if not count or (stream.frames and packets < stream.frames):
                expected = f"it should hold {stream.frames} frames" if stream.frames else "it holds no frame"
                raise self._broken(position - begins_s, count, expected)
            promised_s = _promised_s(container)
            if promised_s is not None and position - begins_s + gap < promised_s - _CUT_S:
                raise self._broken(position - begins_s, count, f"it should last {promised_s:.2f} s")

    def _broken(self, position_s: float, count: int, why: str) -> SourceError:
        return SourceError(f"{self._path} breaks off at {position_s:.2f} s, after {count} frames: {why}", fix=_DAMAGED)


def _promised_s(container: Any) -> float | None:
    """How long the film should be, where the file says so by itself and nothing but its video could be meant."""
    if "matroska" not in container.format.name or len(container.streams) > 1 or not container.duration:
        return None
    return float(container.duration) / 1e6


def _check(path: Path) -> None:
    """Raise SourceError where there is no file to read."""
    try:
        if path.is_dir():
            raise SourceError(f"{path} is a folder, not a video")
        if not path.exists():
            raise SourceError(f"{path} does not exist", fix="check the path of the video")
        if not path.is_file():
            raise SourceError(f"{path} is no regular file", fix="name a video file")
        with path.open("rb") as file:
            if not file.read(1):
                raise SourceError(f"{path} is empty", fix=_DAMAGED)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}", fix="check its permissions") from error
