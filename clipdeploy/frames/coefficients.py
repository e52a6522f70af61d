"""Pillow's resampling coefficients of one axis, as blocks of constant matrices.

An output reads only the pixels around it, so neighbouring outputs make a block, and a block reads one window of the
axis: several small products in place of one that is nearly all zeros.

Pillow computes in integers: coefficients of 22 binary digits, pixels of 8, and sums that do not fit into float32's 24.
Each coefficient is therefore the sum of a coarse one, a multiple of 2 ** -11, and a fine one, a multiple of
2 ** -22, with at most 11 digits each. Products of 8 and 11 digits and sums of some tens of them are exact in float32,
in whatever order; also where a GPU rounds factors to the 11 digits of TF32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipdeploy.runtime.resize import COEFFICIENT_BITS, coefficients

_FINE_BITS = COEFFICIENT_BITS // 2
_SMALLEST_BLOCK, _MOST_BLOCKS = 8, 28
"""A larger block multiplies more zeros, a smaller one costs another operation."""


@dataclass(frozen=True)
class Blocks:
    """One axis: outputs in blocks of one size, and the window that each reads.

    Attributes:
        used: the source pixels that are read at all, from the first to one past the last.
        starts: where each block's window begins, from `used[0]`.
        weights: (blocks, 2 * block, window) float32: the coarse coefficients of a block's outputs, then the fine.
        outputs: how many are wanted; the last block may have some more, of zeros.
    """

    used: tuple[int, int]
    starts: tuple[int, ...]
    weights: NDArray[np.float32]
    outputs: int

    @property
    def count(self) -> int:
        """How many blocks there are."""
        return len(self.starts)

    @property
    def size(self) -> int:
        """Outputs of a block."""
        return int(self.weights.shape[1]) // 2

    @property
    def window(self) -> int:
        """Source pixels that a block reads."""
        return int(self.weights.shape[2])


def blocks(
    source: int, resized: int, start: int, stop: int, resample: Image.Resampling, *, even: bool = False
) -> Blocks:
    """The outputs `start .. stop` of an axis of `source` pixels that becomes one of `resized`.

    Args:
        source: pixels of the axis before.
        resized: pixels of the axis after.
        start: first output wanted.
        stop: one past the last output wanted.
        resample: bicubic or bilinear.
        even: make what is used begin at an even pixel and end before one.
    """
    outputs, (row, pixel, value) = stop - start, coefficients(source, resized, start, stop, resample)
    step = 2 if even else 1
    first = int(pixel.min()) // step * step
    last = -(-(int(pixel.max()) + 1) // step) * step
    matrix = np.zeros((outputs, last - first), np.int64)
    matrix[row, pixel - first] = value
    size = _block_size(outputs)
    parts = [matrix[at : at + size] for at in range(0, outputs, size)]
    read = [np.flatnonzero(part.any(axis=0)) for part in parts]
    window = max(int(columns[-1]) + 1 - int(columns[0]) for columns in read)
    begin = [min(int(columns[0]), last - first - window) for columns in read]
    # at the border of what is enlarged, coefficients pass 1
    fine_bits = _FINE_BITS + int(np.abs(value).max() > 1 << COEFFICIENT_BITS)
    weights = np.zeros((len(parts), 2 * size, window), np.float32)
    for place, part, at in zip(weights, parts, begin, strict=True):
        coarse, fine = _split(part[:, at : at + window], fine_bits)
        place[: len(part)], place[size : size + len(part)] = coarse, fine
    return Blocks((first, last), tuple(begin), weights, outputs)


def _block_size(outputs: int) -> int:
    """Outputs of a block: a divisor of all of them, where there is a good one."""
    least = min(outputs, max(_SMALLEST_BLOCK, -(-outputs // _MOST_BLOCKS)))
    return next((size for size in range(least, min(2 * least, outputs) + 1) if outputs % size == 0), least)


def _split(values: NDArray[np.int64], fine_bits: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Integer coefficients as a coarse part, whose last `fine_bits` digits are zero, and the rest."""
    coarse = (values + (1 << (fine_bits - 1))) >> fine_bits << fine_bits
    one = 1 << COEFFICIENT_BITS
    return (coarse / one).astype(np.float32), ((values - coarse) / one).astype(np.float32)
