"""GStreamer's data protocol, as `gdppay` writes it: buffers with their times, and what they hold.

Each packet begins with 62 bytes, big endian: version (2), flags, padding, type (2), length of what follows (4), time in
ns (8), duration (8), and more that is of no use here. Rows and planes lie as `GstVideoInfo` has them by default.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import SourceError

_HEADER = 62
_BUFFER, _CAPS = 1, 2
_NO_TIME = 2**64 - 1
_LARGEST_TEXT = 1 << 20


@dataclass(frozen=True)
class Caps:
    """What buffers hold: raw video of a format and size in px."""

    format: str
    width: int
    height: int

    @classmethod
    def parse(cls, text: str) -> Caps:
        """Read `video/x-raw, format=(string)RGB, width=(int)640, ...`; raises SourceError."""
        fields = dict(re.findall(r"([\w-]+)=\(\w+\)\"?([^,;\"]+)", text))
        if not text.startswith("video/x-raw") or not {"format", "width", "height"} <= fields.keys():
            raise SourceError(
                f"the pipeline gives no raw video but {text[:80]}", fix="end it in a decoder, such as decodebin"
            )
        caps = cls(fields["format"], int(fields["width"]), int(fields["height"]))
        if caps.format == "NV12" and (caps.width % 2 or caps.height % 2):
            size = f"{caps.width}x{caps.height}"
            raise SourceError(
                f"the pipeline gives {size} px, and nv12 has even sides only", fix="take rgb or bgr frames"
            )
        return caps

    @property
    def row_bytes(self) -> int:
        """From one row of the (first) plane to the next."""
        return -(-self.width * (1 if self.format == "NV12" else 3) // 4) * 4

    @property
    def size_bytes(self) -> int:
        """Of one buffer."""
        rows = self.height
        if self.format == "NV12":
            rows = rows * 3 // 2
        return rows * self.row_bytes


def packets(pipe: int) -> Iterator[tuple[NDArray[np.uint8], float | None]]:
    """Frames as they come off a pipe, (H, W, 3), or (H * 3 / 2, W) for NV12; and their times in seconds.

    Raises:
        SourceError: what comes is not to be understood.
    """
    caps: Caps | None = None
    header = bytearray(_HEADER)
    while _fill(pipe, memoryview(header)):
        major, kind, length, time_ns = header[0], *struct.unpack_from(">HIQ", header, 4)
        if major != 1:
            raise SourceError(
                f"the pipeline's data is of version {major}, expected 1: something else writes to its pipe"
            )
        if kind == _BUFFER and caps is not None and length == caps.size_bytes:
            data = np.empty(length, np.uint8)
            if not _fill(pipe, data.data):
                return
            yield _pixels(data, caps), None if time_ns == _NO_TIME else time_ns / 1e9
            del data
            continue
        if kind == _BUFFER or length > _LARGEST_TEXT:
            raise SourceError(
                f"the pipeline gave {length} bytes for a frame of {caps}", fix="put videoconvert at its end"
            )
        text = bytearray(length)
        if not _fill(pipe, memoryview(text)):
            return
        if kind == _CAPS:
            caps = Caps.parse(text.rstrip(b"\0").decode("utf-8", "replace"))


def _fill(pipe: int, view: memoryview) -> bool:
    """Read until `view` is full; False at the pipe's end."""
    done = 0
    while done < len(view):
        count = os.readv(pipe, [view[done:]])
        if not count:
            return False
        done += count
    return True


def _pixels(data: NDArray[np.uint8], caps: Caps) -> NDArray[np.uint8]:
    rows = data.reshape(-1, caps.row_bytes)
    if caps.format == "NV12":
        return np.ascontiguousarray(rows[:, : caps.width])
    return np.ascontiguousarray(rows[:, : 3 * caps.width]).reshape(caps.height, caps.width, 3)
