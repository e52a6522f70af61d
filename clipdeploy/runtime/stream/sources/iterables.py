"""Frames that a program makes itself: any iterable of arrays, pictures or frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipdeploy.errors import InputError, SourceError
from clipdeploy.runtime.stream.records import Frame
from clipdeploy.runtime.stream.sources.pace import Pace
from clipdeploy.runtime.stream.sources.reader import Reader
from clipdeploy.runtime.stream.sources.source import Stamp
from clipdeploy.spec import FrameColor


class Frames:
    """An iterable of uint8 arrays in the colour that is said, of PIL pictures, or of `Frame`s.

    A `Frame` keeps its pixels, colour, times and position; its camera and number become the source's. What may keep us
    waiting (all but lists, tuples and arrays) is iterated in a thread of its own.

    Args:
        things: what is iterated, anew each time that it is opened.
        name: of the camera.
        color: of the arrays, and of the frames that pictures become.
        fps: how many a second they are, for their positions; None where they have none.
        realtime: whether they come at their own pace, so that one not taken in time is replaced by the next; a
            sequence is then played at `fps`.
    """

    def __init__(
        self, things: Iterable[Any], *, name: str, color: FrameColor, fps: float | None, realtime: bool
    ) -> None:
        self.name = name
        self.live = realtime
        self._things = things
        self._color: FrameColor = color
        self._fps = fps
        self._stamp = Stamp(name, color)
        self._sequence = isinstance(things, (Sequence, np.ndarray))
        if realtime and self._sequence and fps is None:
            raise InputError(f"{name}: nothing says how fast its frames are to be played", fix="give fps")

    def frames(self, stop: Event) -> Iterator[Frame]:
        """See `Source`."""
        if not self._sequence:
            reader: Reader[tuple[int, Any]] = Reader(self._read, name=self.name, lossless=not self.live)
            for index, thing in reader.take(stop):
                yield self._frame(thing, index)
            return
        pace = Pace() if self.live else None
        for thing in self._things:
            if stop.is_set():
                return
            index = self._stamp.count()
            if pace is None or pace.wait(index / (self._fps or 1.0), stop):
                yield self._frame(thing, index)

    def _read(self, reader: Reader[tuple[int, Any]]) -> None:
        for thing in self._things:
            if not reader.put((self._stamp.count(), thing)):
                return

    def _frame(self, thing: Any, index: int) -> Frame:
        if isinstance(thing, Frame):
            return replace(thing, camera=self.name, index=index)
        position = None if self._fps is None else index / self._fps
        pixels = self._array(thing, index)
        return self._stamp.frame(pixels, index, position=position)

    def _array(self, thing: Any, index: int) -> NDArray[np.uint8]:
        if isinstance(thing, Image.Image):
            return picture_pixels(thing, self._color)
        if not isinstance(thing, np.ndarray) or thing.dtype != np.uint8:
            what = f"array of {thing.dtype}" if isinstance(thing, np.ndarray) else type(thing).__name__
            raise SourceError(
                f"{self.name}: its frame {index} is no uint8 array, picture or Frame but {what}",
                fix="give (height, width, 3) uint8 arrays, or (height * 3 / 2, width) with color='nv12'",
            )
        flat = self._color == "nv12"
        fits = (
            thing.ndim == 2 and not thing.shape[0] % 3 and not thing.shape[1] % 2 if flat else thing.shape[2:] == (3,)
        )
        if not fits or not thing.size:
            wanted = "(height * 3 / 2, width) with even sides" if flat else "(height, width, 3)"
            raise SourceError(
                f"{self.name}: its frame {index} has shape {thing.shape}, a {self._color} frame has {wanted}"
            )
        return thing


def picture_pixels(picture: Image.Image, color: FrameColor) -> NDArray[np.uint8]:
    """A picture as (height, width, 3) uint8, `rgb` or `bgr`; raises InputError for `nv12`."""
    if color == "nv12":
        raise InputError("pictures are not to be had as nv12 frames", fix="take them as rgb or bgr")
    pixels = np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))
    return np.ascontiguousarray(pixels[..., ::-1]) if color == "bgr" else pixels


def as_iterable(what: Any, color: FrameColor) -> Iterable[Any] | None:
    """`what` as things to iterate: one picture or array alone is one frame. None where it is neither."""
    alone = 2 if color == "nv12" else 3
    if isinstance(what, (Image.Image, Frame)) or (isinstance(what, np.ndarray) and what.ndim == alone):
        return [what]
    return what if isinstance(what, Iterable) else None
