"""Is a frame worth asking the model about, or does it look as the one before?

A picture of some hundred cells, each the mean luma of 4 x 4 pixels that lie apart, is held against that of the last
frame that the model was asked about. The mean of 16 pixels quietens a sensor's noise; what is left of it is measured
(the median over all cells, which an object does not move), and only what stands out of it counts. Slow changes of the
light, which are a factor and an offset over all cells, are taken out as long as they are small.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import InputError
from clipdeploy.runtime.stream.records import Frame

_ROWS, _COLUMNS = 72, 96
_CELL = 4
_OUT_OF_NOISE = 5.0
_TO_SIGMA = 1.4826  # of a normal distribution: standard deviation over median of the absolute deviations
_GAIN_AT_MOST, _OFFSET_AT_MOST = 0.3, 20.0
_CELLS = 2
_FLAT = 4.0


class Gate:
    """Says whether a frame differs from the last one that it let through; one a camera, not shared between threads.

    Args:
        change: levels of 255 by which a cell must differ; more where the picture is noisy.
        every_s: a frame is let through when the last one was so long before, whatever it shows.

    Raises:
        InputError: an argument is out of range.
    """

    def __init__(self, *, change: float = 6.0, every_s: float = 1.0) -> None:
        if not 0.0 < change <= 255.0:
            raise InputError(f"change must be in 0..255 levels, got {change}")
        if not 0.0 < every_s < float("inf"):
            raise InputError(f"every_s must be positive, got {every_s}", fix="pass gate=None to ask about every frame")
        self.change = float(change)
        self.every_s = float(every_s)
        self._cells: NDArray[np.float32] | None = None
        self._time_s = 0.0
        self._shape: tuple[object, ...] = ()

    def fresh(self) -> Gate:
        """One of the same settings that has seen nothing."""
        return Gate(change=self.change, every_s=self.every_s)

    def reset(self) -> None:
        """Forget what was seen; the next frame is let through."""
        self._cells = None

    def changed(self, frame: Frame) -> bool:
        """Whether to ask the model; a frame of which this says so is the one that later ones are held against."""
        cells, shape = _cells(frame), (frame.color, *frame.pixels.shape)
        since = frame.time_s - self._time_s
        known = self._cells if self._shape == shape and 0.0 <= since < self.every_s else None
        if known is not None and self._alike(known, cells):
            return False
        self._cells, self._time_s, self._shape = cells, frame.time_s, shape
        return True

    def _alike(self, before: NDArray[np.float32], cells: NDArray[np.float32]) -> bool:
        middle, middle_before = float(cells.mean()), float(before.mean())
        spread = before - middle_before
        variance = float((spread * spread).mean())
        gain = float((spread * (cells - middle)).mean()) / variance if variance > _FLAT else 1.0
        if abs(gain - 1.0) > _GAIN_AT_MOST or abs(middle - middle_before) > _OFFSET_AT_MOST:
            return False
        left = cells - middle - gain * spread
        left -= np.float32(_median(left))
        left = np.abs(left)
        limit = max(self.change, _OUT_OF_NOISE * _TO_SIGMA * _median(left))
        return int(np.count_nonzero(left > limit)) < min(_CELLS, left.size)


def _cells(frame: Frame) -> NDArray[np.float32]:
    """Mean luma of some hundred places of a frame: (rows * columns,) float32, 0..255."""
    height, width = frame.height, frame.width
    down, across = max(1, height // _ROWS), max(1, width // _COLUMNS)
    places = np.ascontiguousarray(frame.pixels[:height][down // 2 :: down, across // 2 :: across])
    if frame.color == "nv12":
        luma = places.astype(np.uint16)
        luma *= 4
    else:  # green counts double, which does for luma and suits both orders
        luma = places[..., 1].astype(np.uint16)
        luma *= 2
        luma += places[..., 0]
        luma += places[..., 2]
    rows, columns = luma.shape[0] // _CELL * _CELL, luma.shape[1] // _CELL * _CELL
    if not (rows and columns):
        few: NDArray[np.float32] = luma.ravel().astype(np.float32) * np.float32(0.25)
        return few
    # sums over whole planes are far quicker than a mean over two short axes; 16 * 4 * 255 fits in 16 bits
    high = luma[0:rows:_CELL, :columns]
    high = sum((luma[row:rows:_CELL, :columns] for row in range(1, _CELL)), high)
    wide = sum((high[:, column::_CELL] for column in range(1, _CELL)), high[:, ::_CELL])
    cells: NDArray[np.float32] = wide.ravel().astype(np.float32) * np.float32(1.0 / 64.0)
    return cells


def _median(values: NDArray[np.float32]) -> float:
    """The middle one, of an even number the upper; without the checks that make numpy's slow for so few."""
    return float(np.partition(values, len(values) // 2)[len(values) // 2])
