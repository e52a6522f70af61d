"""Raw frames, laid out so that the axis which is resized first lies in front of all others."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from clipdeploy.frames.nodes import Nodes, Value
from clipdeploy.runtime.nv12 import BITS, CHROMA_MIDDLE, FROM_U, FROM_V, LUMA, LUMA_FLOOR
from clipdeploy.spec import FrameSpec

SOURCE = "frame"
"""The graph's input."""


class Planes(Protocol):
    """Frames of one colour order.

    Attributes:
        row: values that belong to one place of the first axis.
        interleaved: whether its channels lie side by side where the first axis is the height; elsewhere one is behind
            the other.
    """

    row: int
    interleaved: bool

    def window(self, start: int, stop: int) -> Value:
        """The places `start .. stop` of the first axis: (batch, stop - start, row) float32, whole numbers in 0..255."""


class Packed:
    """Frames whose three channels lie side by side; see `Planes`.

    Args:
        nodes: what they are read with.
        frame: their size.
        columns: those that are read, from the first to one past the last.
        rows: likewise.
        by_rows: whether the height is resized first.
    """

    interleaved = True

    def __init__(
        self, nodes: Nodes, frame: FrameSpec, columns: tuple[int, int], rows: tuple[int, int], *, by_rows: bool
    ) -> None:
        width, height = columns[1] - columns[0], rows[1] - rows[0]
        read = nodes.slice(SOURCE, 1, *rows, frame.height)
        read = nodes.slice(read, 2, *columns, frame.width)
        read = nodes.reshape(read, height, width * 3)
        if by_rows:
            self.row, self._places = width * 3, height
        else:
            self.row, self._places = 3 * height, width
            read = nodes.reshape(nodes.transpose(read, 2, 1), width, 3 * height)
        self._nodes, self._read = nodes, read

    def window(self, start: int, stop: int) -> Value:
        """See `Planes.window`."""
        return self._nodes.floats(self._nodes.slice(self._read, 1, start, stop, self._places))


class Nv12:
    """Frames of luma and, below it, chroma of half the size; see `Planes`.

    They are converted as OpenCV does it (see `clipdeploy.runtime.nv12`), in float32, rounded to 8 bits. Chroma is
    spread along the rows of memory while it has 8 bits, and along the first axis as it is added.
    """

    interleaved = False

    def __init__(
        self, nodes: Nodes, frame: FrameSpec, columns: tuple[int, int], rows: tuple[int, int], *, by_rows: bool
    ) -> None:
        width, height, whole = columns[1] - columns[0], rows[1] - rows[0], frame.shape[0]
        first = frame.height + rows[0] // 2
        luma = nodes.slice(nodes.slice(SOURCE, 1, *rows, whole), 2, *columns, frame.width)
        chroma = nodes.slice(SOURCE, 1, first, first + height // 2, whole)
        chroma = nodes.slice(chroma, 2, *columns, frame.width)
        if by_rows:
            pairs = nodes.transpose(nodes.reshape(chroma, height // 2, width // 2, 2), 1, 3, 2)
            twice = nodes.reshape(pairs, height // 2, 2, width // 2, 1)
            chroma = nodes.reshape(nodes("Concat", twice, twice, axis=4), height // 2, 2, width)
            places, line = height, width
        else:
            lines = nodes.reshape(chroma, height // 2, 1, width)
            twice = nodes.reshape(nodes("Concat", lines, lines, axis=2), height, width)
            chroma = nodes.reshape(nodes.transpose(twice, 2, 1), width // 2, 2, height)
            luma, places, line = nodes.transpose(luma, 2, 1), width, height
        self._nodes, self.row, self._places = nodes, 3 * line, places
        self._rgb = self._converted(nodes, luma, chroma, places // 2, line)

    def window(self, start: int, stop: int) -> Value:
        """See `Planes.window`."""
        return self._nodes.slice(self._rgb, 1, start, stop, self._places)

    def _converted(self, nodes: Nodes, luma: Value, chroma: Value, pairs: int, line: int) -> Value:
        """Luma (batch, 2 * pairs, line) and chroma (batch, pairs, 2, line), uint8, to (batch, 2 * pairs, 3 * line)."""
        gain, black = LUMA / (1 << BITS), LUMA_FLOOR
        grey = nodes("Mul", nodes("Max", nodes.floats(luma), _floats(black)), _floats(gain))
        grey = nodes("Add", grey, _floats(0.5 - black * gain))  # and the half that a rounding adds
        hues = nodes("Sub", nodes.floats(chroma), _floats(CHROMA_MIDDLE))
        u, v = (nodes.slice(hues, 2, at, at + 1, 2) for at in (0, 1))
        added = nodes("Add", nodes("Mul", u, _shares(FROM_U)), nodes("Mul", v, _shares(FROM_V)))
        rgb = nodes("Add", nodes.reshape(grey, pairs, 2, 1, line), nodes.reshape(added, pairs, 1, 3, line))
        return nodes.reshape(nodes("Clip", nodes("Floor", rgb), _floats(0), _floats(255)), 2 * pairs, 3 * line)


def _floats(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def _shares(values: tuple[int, int, int]) -> np.ndarray:
    """What a chroma value adds to red, green and blue, (3, 1) float32."""
    return (np.array(values)[:, None] / (1 << BITS)).astype(np.float32)
