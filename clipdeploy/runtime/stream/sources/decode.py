"""Decoded video to arrays, by PyAV: colours as the video says, turned as it says; and its errors in words."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import MissingExtraError, SourceError
from clipdeploy.spec import FrameColor

_FORMATS = {"rgb": "rgb24", "bgr": "bgr24", "nv12": "nv12"}
_UNSAID = 2
_BT601 = "ITU601"
_MATRICES = {1: "ITU709", 4: "FCC", 5: _BT601, 6: _BT601, 7: "SMPTE240M", 9: "BT2020", 10: "BT2020"}
"""What a stream may say of its colours (ITU-T H.273, matrix coefficients), as PyAV names it."""
_HD_PX = 720
_LIMITED = 1


def pyav(needed_for: str) -> Any:
    """The library; raises MissingExtraError."""
    try:
        return import_module("av")
    except ImportError as error:
        raise MissingExtraError("av", extra="video", needed_for=needed_for) from error


def failures(av: Any) -> tuple[type[Exception], ...]:
    """What PyAV raises. Its texts hold the address and thus a password: say `told` of them, and raise `from None`."""
    return (av.error.FFmpegError, OSError, ValueError)


def told(error: Exception) -> str:
    """What FFmpeg says, without the address, which may hold a password."""
    text = getattr(error, "strerror", None) or type(error).__name__
    return str(text).strip()


def video_stream(container: Any, name: str) -> Any:
    """The video of a container; raises SourceError where it has none that can be decoded."""
    videos = container.streams.video
    if not videos:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise SourceError(f"{name} has no video, only {kinds}", fix="name a video, or a stream that has one")
    stream = videos[0]
    if stream.codec_context is None:
        raise SourceError(
            f"{name}: there is no decoder for its video", fix="have the camera or file send H.264 or H.265"
        )
    return stream


class Converter:
    """Makes decoded frames into arrays. Not to be shared between threads.

    The matrix from YUV to RGB is the one that the stream names. Where it names none, BT.709 is taken from 720 lines on
    and BT.601 below, as players do. `nv12` always has BT.601 at limited range, as `runtime/nv12.py` reads it: a stream
    of that kind keeps its samples; any other is converted, which costs two to three times what `rgb` does.

    Args:
        color: what the arrays are to hold.
        name: of the source, for errors.
    """

    def __init__(self, color: FrameColor, name: str) -> None:
        self._color = color
        self._name = name
        av = pyav("reading a video")
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._second = av.video.reformatter.VideoReformatter()
        self._failures = failures(av)

    def __call__(self, frame: Any) -> NDArray[np.uint8]:
        """Pixels of a frame, uint8, C-contiguous, as `FrameSpec` lays them out; turned upright where the video says so.

        Raises:
            SourceError: its size cannot be had in that colour, or it cannot be converted.
        """
        height, width = frame.height, frame.width
        if self._color == "nv12" and (height % 2 or width % 2):
            raise SourceError(
                f"{self._name} is {width}x{height} px, and nv12 has even sides only",
                fix="take its frames as rgb or bgr",
            )
        space = int(frame.colorspace)
        matrix = ("ITU709" if min(height, width) >= _HD_PX else _BT601) if space == _UNSAID else _MATRICES.get(space)
        try:
            pixels: NDArray[np.uint8] = np.ascontiguousarray(self._convert(frame, matrix).to_ndarray())
        except self._failures as error:
            raise SourceError(
                f"{self._name}: its pixels ({frame.format.name}) cannot be made {self._color}: {told(error)}",
                fix="have the camera or file send H.264 or H.265 with 8-bit 4:2:0 pixels",
            ) from error
        turns = round(getattr(frame, "rotation", 0) / 90) % 4
        return turn(pixels, turns, self._color) if turns else pixels

    def _convert(self, frame: Any, matrix: str | None) -> Any:
        same = {"src_colorspace": matrix, "dst_colorspace": matrix}
        if self._color != "nv12":
            return self._reformatter.reformat(frame, format=_FORMATS[self._color], **same)
        bt601 = {"src_colorspace": _BT601, "dst_colorspace": _BT601, "dst_color_range": _LIMITED}
        if matrix != _BT601:  # by way of RGB: swscale's own way from matrix to matrix takes three times as long
            frame = self._second.reformat(frame, format="rgb24", **same)
        return self._reformatter.reformat(frame, format="nv12", **bt601)


def turn(pixels: NDArray[np.uint8], turns: int, color: FrameColor) -> NDArray[np.uint8]:
    """A frame turned by `turns` quarters counter-clockwise."""
    if color != "nv12":
        return np.ascontiguousarray(np.rot90(pixels, turns))
    height, width = pixels.shape[0] * 2 // 3, pixels.shape[1]
    luma = np.rot90(pixels[:height], turns)
    chroma = np.rot90(pixels[height:].reshape(height // 2, width // 2, 2), turns)
    return np.concatenate([luma, chroma.reshape(-1, luma.shape[1])])
