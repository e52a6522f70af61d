"""Network streams, by PyAV: RTSP, HTTP, RTMP and what else FFmpeg reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from threading import Event
from typing import Any

from clipdeploy.errors import InputError, SourceError
from clipdeploy.runtime.stream.records import Frame
from clipdeploy.runtime.stream.sources.decode import Converter, failures, pyav, told, video_stream
from clipdeploy.runtime.stream.sources.names import without_secrets
from clipdeploy.runtime.stream.sources.pace import Pace
from clipdeploy.runtime.stream.sources.reader import Reader
from clipdeploy.runtime.stream.sources.source import Stamp, Thinning
from clipdeploy.spec import FrameColor

SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "srt", "udp", "tcp")
"""Of the addresses that are read here."""

TRANSPORTS = ("tcp", "udp")
_PROBE_S = 2.0
_LATER_S = 1.0
"""FFmpeg gives up after us, who say better what is wrong."""
_FIX = "check the address, user and password, and that the camera can be reached: ffprobe ADDRESS"


class NetworkStream:
    """A camera or server on the network.

    A thread of its own decodes all that comes, and what is not taken in time is replaced by the newest, so that no
    picture grows old in a buffer. A stream that ends has broken off, unless it is a file with a length, over HTTP,
    which is played at its own pace.

    Args:
        url: its address, user and password included.
        name: of the camera; None takes the address without them.
        color: of the frames.
        fps: frames a second at most; None takes all.
        live: whether the newest frame counts; otherwise every one is taken, and the server waits.
        transport: of RTSP, `tcp` or `udp`.
        timeout_s: after which a stream without a picture has broken off; the first may take twice as long.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str | None,
        color: FrameColor,
        fps: float | None,
        live: bool,
        transport: str,
        timeout_s: float,
    ) -> None:
        if transport not in TRANSPORTS:
            raise InputError(f"unknown transport {transport!r}", fix=f"give {' or '.join(TRANSPORTS)}")
        self.live = live
        self._shown = without_secrets(url)
        self.name = name or self._shown
        self._url = url
        self._scheme = url.partition("://")[0].lower()
        self._color: FrameColor = color
        self._fps = fps
        self._transport = transport
        self._timeout_s = timeout_s
        self._stamp = Stamp(self.name, color)
        self._av = pyav(f"reading {self._scheme}:// streams")
        self._failures = failures(self._av)

    def frames(self, stop: Event) -> Iterator[Frame]:
        """See `Source`."""
        reader: Reader[tuple[int, Any]] = Reader(
            self._read,
            name=self._shown,
            lossless=not self.live,
            first_s=2 * self._timeout_s,
            silent_s=self._timeout_s,
            fix=_FIX,
        )
        converter, thinning = Converter(self._color, self._shown), Thinning(self._fps)
        for index, picture in reader.take(stop):
            frame = self._stamp.frame(converter(picture), index)
            if thinning.takes(frame.captured):
                yield frame

    def _read(self, reader: Reader[tuple[int, Any]]) -> None:
        """Decode until it breaks off, in the reader's thread."""
        try:
            container = self._av.open(
                self._url,
                options=self._options(),
                timeout=(2 * self._timeout_s + _LATER_S, self._timeout_s + _LATER_S),
            )
        except self._failures as error:
            raise SourceError(f"{self._shown} cannot be opened: {told(error)}", fix=_FIX) from None
        with closing(container):
            stream = video_stream(container, self._shown)
            # frame threads would hold back as many frames as there are threads
            stream.thread_type = "SLICE"
            stream.codec_context.flags |= self._av.codec.context.Flags.low_delay
            whole = bool(container.duration) and self._scheme.startswith("http")
            try:
                self._decode(container, stream, reader, Pace() if whole and self.live else None)
            except self._failures as error:
                raise SourceError(f"{self._shown} has broken off: {told(error)}", fix=_FIX) from None
        if not (whole or reader.closing):
            raise SourceError(f"{self._shown} has ended", fix="check that the camera or server still runs")

    def _decode(self, container: Any, stream: Any, reader: Reader[tuple[int, Any]], pace: Pace | None) -> None:
        ended = Event()
        reader.on_close(ended.set)
        first: float | None = None
        for packet in container.demux(stream):
            if reader.closing:
                return
            try:
                pictures = packet.decode()
            except self._av.error.InvalidDataError:
                continue  # a packet was lost on the way; the next key frame mends it
            for picture in pictures:
                index = self._stamp.count()
                first = picture.time if first is None else first
                if pace is not None and first is not None and not pace.wait((picture.time or 0.0) - first, ended):
                    continue
                if not reader.put((index, picture)):
                    return

    def _options(self) -> dict[str, str]:
        # nobody needs to know the frame rate, which FFmpeg would look for for a second or two
        options = {"fpsprobesize": "0", "analyzeduration": str(round(_PROBE_S * 1e6))}
        if self._scheme.startswith("rtsp"):
            options["rtsp_transport"] = self._transport
        return options
