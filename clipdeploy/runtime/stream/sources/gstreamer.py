"""GStreamer pipelines, each in a process of its own, so that one that crashes takes nothing with it."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from threading import Event

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import InputError, SourceError
from clipdeploy.runtime.stream.records import Frame
from clipdeploy.runtime.stream.sources.child import Child, signal_name
from clipdeploy.runtime.stream.sources.gdp import packets
from clipdeploy.runtime.stream.sources.names import without_secrets
from clipdeploy.runtime.stream.sources.reader import Reader
from clipdeploy.runtime.stream.sources.source import Stamp, Thinning
from clipdeploy.spec import FrameColor

_FORMATS = {"rgb": "RGB", "bgr": "BGR", "nv12": "NV12,colorimetry=bt601"}
_TOOL = "gst-launch-1.0"
_INSTALL = "sudo apt-get install gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-bad"
_TRY = f"try it by hand: {_TOOL} PIPELINE ! fakesink"
_LIVE = "Pipeline is live"
"""What it says where there is a camera in it, which has no end but an accident."""
_APPSINK = re.compile(r"!\s*appsink\b[^!]*$")

Read = tuple[int, NDArray[np.uint8], float | None]


class Pipeline:
    """A GStreamer pipeline, written as for `gst-launch-1.0`, without a sink; an `appsink` at its end is left out.

    It needs neither Python's GStreamer nor PyAV: frames come over a pipe, made the right colour by `videoconvert`. One
    that reads a file ends with it; one that GStreamer calls live has broken off where it ends.

    Args:
        text: the pipeline; `gst:` before it is left out.
        name: of the camera.
        color: of the frames.
        fps: frames a second at most; None takes all.
        realtime: True or None: frames come by the pipeline's clock, and the newest counts. False: every frame is taken,
            at our pace, and frames have the pipeline's times as positions.
        timeout_s: after which a pipeline that gives no frame has broken off; the first may take twice as long.
    """

    def __init__(
        self, text: str, *, name: str, color: FrameColor, fps: float | None, realtime: bool | None, timeout_s: float
    ) -> None:
        self.name = name
        self.live = realtime is not False
        self._color: FrameColor = color
        self._fps = fps
        self._timeout_s = timeout_s
        self._stamp = Stamp(name, color)
        self._command = command(text, color, live=self.live)
        self._shown = without_secrets(text.removeprefix("gst:").strip())
        if not shutil.which(_TOOL):
            raise SourceError(f"{_TOOL}, which runs GStreamer pipelines, is not installed", fix=_INSTALL)

    def frames(self, stop: Event) -> Iterator[Frame]:
        """See `Source`."""
        reader: Reader[Read] = Reader(
            self._read,
            name=self._shown,
            lossless=not self.live,
            first_s=2 * self._timeout_s,
            silent_s=self._timeout_s,
            fix=_TRY,
        )
        thinning = Thinning(self._fps)
        for index, pixels, time_s in reader.take(stop):
            frame = self._stamp.frame(pixels, index, position=None if self.live else time_s)
            if thinning.takes(frame.time_s):
                yield frame

    def _read(self, reader: Reader[Read]) -> None:
        with Child(self._command, listen_for=_LIVE) as child:
            reader.on_close(child.kill)
            reader.on_silence(lambda: self._said(child))
            index = -1
            for pixels, time_s in packets(child.pipe):
                index = self._stamp.count()
                if not reader.put((index, pixels, time_s)):
                    return
            status = child.ended()
            if status and not reader.closing:
                why = f"was ended by {signal_name(status)}" if status < 0 else f"failed: {self._said(child)}"
                raise SourceError(f"the pipeline {self._shown} {why}", fix=_fix(child.last_lines()))
            if (index < 0 or child.heard) and not reader.closing:
                how = "without a frame" if index < 0 else "though it is live"
                raise SourceError(f"the pipeline {self._shown} ended {how}", fix=_TRY)

    def _said(self, child: Child) -> str:
        return without_secrets(complaint(child.last_lines())) or "it said nothing"


def complaint(lines: Sequence[str]) -> str:
    """What is wrong, of all that `gst-launch-1.0` said: its first error with its detail, or else its last lines."""
    for number, line in enumerate(lines):
        found = re.match(r"(?:ERROR|WARNING): (?:from element \S*?(\w+): |erroneous pipeline: )(.*)", line)
        if found is None:
            continue
        element = f"{found[1]}: " if found[1] else ""
        # ERROR, `Additional debug info:`, the place in its source, the detail
        detail = lines[number + 3 : number + 4] if lines[number + 1 : number + 2] == ("Additional debug info:",) else ()
        return " ".join([element + found[2], *(one for one in detail if not one.startswith("ERROR"))])
    return "; ".join(lines[-3:])


def command(text: str, color: FrameColor, *, live: bool) -> list[str]:
    """What runs a pipeline with our end; raises InputError."""
    text = _APPSINK.sub("", text.removeprefix("gst:")).strip()
    try:
        parts = shlex.split(text)
    except ValueError as error:
        raise InputError(
            f"the pipeline {without_secrets(text)} cannot be read: {error}", fix="close its quotes"
        ) from error
    if not parts or parts[-1] == "!":
        raise InputError("the pipeline is empty, or ends in `!`", fix="give one such as 'gst:v4l2src ! decodebin'")
    # kept to the clock first; then the newest frame replaces the one that waits, before it costs a conversion
    newest = "clocksync ! queue leaky=downstream max-size-buffers=1 max-size-bytes=0 max-size-time=0 !" if live else ""
    end = f"videoconvert ! video/x-raw,format={_FORMATS[color]} ! gdppay ! fdsink fd={{fd}} sync=false"
    return [_TOOL, *parts, "!", *newest.split(), *end.split()]


def _fix(lines: tuple[str, ...]) -> str:
    missing = re.search(r"no element \"(\w+)\"", "\n".join(lines))
    if missing is None:
        return _TRY
    if missing[1] in ("gdppay", "videoconvert", "clocksync"):
        return _INSTALL
    return f"install the plugin that has {missing[1]}, or correct its name: gst-inspect-1.0 {missing[1]}"
