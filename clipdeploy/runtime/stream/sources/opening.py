"""What a user names as a source, told apart."""

from __future__ import annotations

import glob
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, Union, get_args

from clipdeploy.errors import InputError, SourceError
from clipdeploy.runtime.stream.sources.devices import open_device
from clipdeploy.runtime.stream.sources.gstreamer import Pipeline
from clipdeploy.runtime.stream.sources.iterables import Frames, as_iterable
from clipdeploy.runtime.stream.sources.names import without_secrets
from clipdeploy.runtime.stream.sources.network import SCHEMES, NetworkStream
from clipdeploy.runtime.stream.sources.pictures import Pictures
from clipdeploy.runtime.stream.sources.source import Source
from clipdeploy.runtime.stream.sources.video import VideoFile
from clipdeploy.runtime.suffixes import PICTURES
from clipdeploy.spec import FrameColor

SourceLike: TypeAlias = Union[str, "os.PathLike[str]", int, Source, Iterable[Any]]
"""What `open_source` takes."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_DEVICE = re.compile(r"(?:v4l2:(?://)?)?(/dev/(?:video\d+|v4l/.+))|v4l2:(\d+)|(\d+)")
_STILLS = tuple(suffix for suffix in PICTURES if suffix != ".gif")


def open_source(
    what: SourceLike,
    *,
    name: str | None = None,
    color: FrameColor = "rgb",
    fps: float | None = None,
    realtime: bool | None = None,
    loop: bool = False,
    follow: bool = False,
    transport: str = "tcp",
    timeout_s: float = 5.0,
) -> Source:
    """The source that a user means.

    | what | source |
    |---|---|
    | `clip.mp4`, `file:///videos/clip.mp4` | a video file |
    | `rtsp://`, `rtsps://`, `http://`, `https://`, `rtmp://`, and others that FFmpeg reads | a network stream |
    | `/dev/video0`, `v4l2:/dev/video0`, `0` | a camera at this machine |
    | `gst:v4l2src ! ...`, or any text with ` ! ` in it | a GStreamer pipeline, without a sink at its end |
    | `shots/`, `shots/*.jpg`, `shot.png` | pictures |
    | a `Source` | itself |
    | anything else that can be iterated | its arrays, pictures or `Frame`s |

    Args:
        what: as above.
        name: of the camera; None takes the address, without user and password.
        color: of the frames.
        fps: frames a second at most. For pictures and iterables: how many a second they are.
        realtime: whether it goes on at its own pace and the newest frame counts: then it is live. None says yes for
            cameras, network streams and pipelines, and no for files, folders and iterables, whose every frame is taken.
        loop: whether a file or folder begins anew at its end.
        follow: whether to wait for new files in a folder.
        transport: of RTSP: `tcp`, or `udp`, which may lose pictures but never waits.
        timeout_s: after which a camera, stream or pipeline that gives no picture has broken off; the first one may
            take twice as long.

    Raises:
        InputError: it is none of these, or an option does not go with it.
        SourceError: there is no such file, folder or device, or it cannot be read.
        MissingExtraError: the library that reads it is not installed.
    """
    if color not in get_args(FrameColor):
        raise InputError(f"unknown colour order {color!r}", fix="give rgb, bgr or nv12")
    _positive("fps", fps)
    _positive("timeout_s", timeout_s)
    if isinstance(what, Source):
        return what
    if isinstance(what, int) and not isinstance(what, bool):
        what = f"v4l2:{what}"
    wanted = _Wanted(name, color, fps, realtime, loop, follow, transport, timeout_s)
    if isinstance(what, (str, os.PathLike)):
        return _open_named(os.fspath(what), wanted)
    return _open_things(what, wanted)


@dataclass(frozen=True)
class _Wanted:
    """The options of `open_source`."""

    name: str | None
    color: FrameColor
    fps: float | None
    realtime: bool | None
    loop: bool
    follow: bool
    transport: str
    timeout_s: float

    @property
    def live(self) -> bool:
        """Of what goes on by itself unless told otherwise."""
        return self.realtime is not False

    def once(self, kind: str) -> None:
        """Refuse what does not go with a kind of source that neither begins anew nor has new files."""
        if self.loop:
            raise InputError(f"{kind} cannot begin anew", fix="leave out loop, which is for files and folders")
        self.nothing_new(kind)

    def nothing_new(self, kind: str) -> None:
        """Refuse to wait for new files."""
        if self.follow:
            raise InputError(f"{kind} has no new files to wait for", fix="leave out follow, which is for folders")


def _open_things(what: Any, wanted: _Wanted) -> Source:
    """An app's own iterable."""
    things = None if isinstance(what, (bytes, dict)) else as_iterable(what, wanted.color)
    if things is None:
        raise InputError(f"a {type(what).__name__} is no source of frames", fix=_WHAT)
    wanted.once("an iterable")
    name, realtime = wanted.name or "frames", bool(wanted.realtime)
    return Frames(things, name=name, color=wanted.color, fps=wanted.fps, realtime=realtime)


def _open_named(text: str, wanted: _Wanted) -> Source:
    """What a text names: a pipeline, a camera, an address, or a path."""
    name, color, fps, timeout_s = wanted.name, wanted.color, wanted.fps, wanted.timeout_s
    if text.startswith("gst:") or " ! " in text:
        wanted.once("a pipeline")
        shown, realtime = name or without_secrets(text), wanted.realtime
        return Pipeline(text, name=shown, color=color, fps=fps, realtime=realtime, timeout_s=timeout_s)
    device = _DEVICE.fullmatch(text)
    if device and not (device[3] and Path(text).exists()):
        wanted.once("a camera")
        path = device[1] or f"/dev/video{device[2] or device[3]}"
        return open_device(path, name=name or path, color=color, fps=fps, live=wanted.live, timeout_s=timeout_s)
    scheme = _SCHEME.match(text)
    if scheme and scheme[1].lower() != "file":
        if scheme[1].lower() not in SCHEMES:
            raise InputError(
                f"{without_secrets(text)}: {scheme[1]}:// is no address of a stream that is known here",
                fix=f"known: {' '.join(f'{one}://' for one in SCHEMES)}",
            )
        wanted.once("a network stream")
        how = {"live": wanted.live, "transport": wanted.transport, "timeout_s": timeout_s}
        return NetworkStream(text, name=name, color=color, fps=fps, **how)  # type: ignore[arg-type]
    return _open_path(text[7:] if scheme else text, wanted)


_WHAT = "name a video, a folder, rtsp://..., /dev/video0, a GStreamer pipeline, or give an iterable of frames"


def _open_path(text: str, wanted: _Wanted) -> Source:
    """A video, a picture, or a folder of pictures."""
    if not text.strip():
        raise InputError("an empty name is no source of frames", fix=_WHAT)
    path, name, realtime = Path(text), wanted.name, bool(wanted.realtime)
    color, fps, loop = wanted.color, wanted.fps, wanted.loop
    pattern = glob.has_magic(text) and not path.exists()
    if pattern or path.is_dir() or path.suffix.lower() in _STILLS:
        follow = wanted.follow
        return Pictures(text, name=name or text, color=color, fps=fps, realtime=realtime, loop=loop, follow=follow)
    if not path.exists():
        raise SourceError(f"{text} does not exist", fix=_WHAT)
    wanted.nothing_new("a video")
    return VideoFile(path, name=name or path.name, color=color, fps=fps, realtime=realtime, loop=loop)


def _positive(option: str, value: float | None) -> None:
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise InputError(f"{option} must be positive, got {value}")
