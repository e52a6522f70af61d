"""Pillow's resize of RGB pictures as matrix products: the same bytes, in less time for large pictures.

An output is a sum of pixels times coefficients, rounded to 8 bits after each of the two passes. Only the columns and
rows that the crop reads are touched, and of the products' zeros few are computed: neighbouring outputs make a block,
and a block reads one window.

The sums are float32, whose last bits depend on their order. How far they can be from Pillow's integers is known,
so a value that lies nearer than that to where the rounding changes is summed again, in integers; in a photograph that
is one of some thousand. In drawn pictures many values can lie right between two bytes: there the whole strip is
computed again in float64, which holds such sums without any rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipdeploy.runtime.filters import COEFFICIENT_BITS, coefficients

_ONE = 1 << COEFFICIENT_BITS
_BLOCK = 12
"""Outputs of a block: more multiply more zeros, fewer cost another call."""
_PRODUCT = 1 << 18
"""Multiplications of one matrix product at most: OpenBLAS takes more than one thread beyond, and the caller has its
own."""
_STRIP_BYTES = 1 << 20
"""Pixels that are looked at at once, as float32: what stays in a core's cache."""
_FEW = 1 / 32
"""The share of values that are summed again one by one; where there are more, the strip is."""
_LEAST_PX, _LEAST_SCALE, _LARGEST_SHARE = 700_000, 2.5, 0.8
"""Smaller pictures, those that are made less small, and those of which all is wanted are Pillow's to do: measured."""


def pays(
    source: tuple[int, int], resized: tuple[int, int], wanted: tuple[int, int], resample: Image.Resampling
) -> bool:
    """Whether products are the faster way, from `source` to `resized` of which a crop is `wanted`: (width, height)."""
    return (
        resample == Image.Resampling.BICUBIC  # of Pillow's two, the one that reads twice as far
        and source[0] * source[1] >= _LEAST_PX
        and min(source[0] / resized[0], source[1] / resized[1]) >= _LEAST_SCALE
        and wanted[0] * wanted[1] <= _LARGEST_SHARE * resized[0] * resized[1]
    )


SideBySide: TypeAlias = Callable[[Sequence[Callable[[], None]]], None]
"""Makes calls that do not depend on each other, and returns when all are done."""


@dataclass(frozen=True)
class _Block:
    """Outputs `start .. stop`, which read the pixels `first .. last`; weights (last - first, stop - start) float32."""

    start: int
    stop: int
    first: int
    last: int
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class Axis:
    """One axis of a resize.

    Attributes:
        used: the source pixels that are read at all, from the first to one past the last.
        outputs: how many are wanted.
        blocks: of all outputs; pixels count from `used[0]`.
        taps: (outputs, T) pixels that each output reads, from `used[0]`.
        values: (outputs, T) int64, their coefficients; of fewer than T, the rest is zero.
        doubt: how near to a half a float32 sum may not come.
    """

    used: tuple[int, int]
    outputs: int
    blocks: tuple[_Block, ...]
    taps: NDArray[np.intp]
    values: NDArray[np.int64]
    doubt: float

    @property
    def lines(self) -> int:
        """How many lines of pixels go into one product."""
        largest = max(block.weights.size for block in self.blocks)
        return max(_PRODUCT // largest, 1)


@lru_cache(maxsize=32)
def axis(source: int, resized: int, start: int, stop: int, resample: Image.Resampling) -> Axis:
    """The outputs `start .. stop` of an axis of `source` pixels that becomes one of `resized`."""
    output, pixel, value = coefficients(source, resized, start, stop, resample)
    first, last, outputs = int(pixel.min()), int(pixel.max()) + 1, stop - start
    starts = np.searchsorted(output, np.arange(outputs))
    place = np.arange(len(output)) - starts[output]
    width = int(place.max()) + 1
    taps = np.zeros((outputs, width), np.intp)
    values = np.zeros((outputs, width), np.int64)
    taps[output, place], values[output, place] = pixel - first, value
    blocks = tuple(_block(taps, values, at, min(at + _BLOCK, outputs)) for at in range(0, outputs, _BLOCK))
    # The textbook bound of a sum of products in any order: T roundings of 2 ** -24 each, of 255 times the weights.
    largest = 255 * int(np.abs(values).sum(axis=1).max()) / _ONE
    return Axis((first, last), outputs, blocks, taps, values, (width + 2) * 2.0**-24 * largest)


def _block(taps: NDArray[np.intp], values: NDArray[np.int64], start: int, stop: int) -> _Block:
    row, place = np.nonzero(values[start:stop])
    pixel = taps[start:stop][row, place]
    first, last = int(pixel.min()), int(pixel.max()) + 1
    weights = np.zeros((last - first, stop - start), np.float32)  # which holds 24 digits: none is lost
    weights[pixel - first, row] = values[start:stop][row, place] / _ONE
    return _Block(start, stop, first, last, weights)


def resize_products(
    pixels: NDArray[np.uint8], columns: Axis, rows: Axis, side_by_side: SideBySide | None = None
) -> NDArray[np.uint8]:
    """The crop of a picture that is resized along both axes, the width first.

    Args:
        pixels: (H, W, 3 or more) uint8; what is behind the third channel is not read.
        columns, rows: of W and of H.
        side_by_side: where other cores wait, what makes calls on them; the bytes are the same.

    Returns:
        (rows.outputs, columns.outputs, 3) uint8.
    """
    return in_bytes(change_height(change_width(pixels, columns, rows.used, side_by_side), rows))


def change_width(
    pixels: NDArray[np.uint8], columns: Axis, rows: tuple[int, int], side_by_side: SideBySide | None = None
) -> NDArray[np.float32]:
    """The first pass, over the rows that are read: (3, last - first, columns.outputs), bytes as float32."""
    (top, bottom), (left, right) = rows, columns.used
    source = pixels[top:bottom, left:right, :3].transpose(2, 0, 1)
    height = bottom - top
    lines = min(columns.lines, max(_STRIP_BYTES // (12 * (right - left)), 1), height)
    done = np.empty((3, height, columns.outputs), np.float32)

    def strips(first: int, last: int) -> None:
        strip = np.empty((3, lines, right - left), np.float32)
        for at in range(first, last, lines):
            end = min(at + lines, last)
            planes = strip[:, : end - at]
            np.copyto(planes, source[:, at:end])
            _resample(planes, columns, done[:, at:end], upright=False)

    if side_by_side is None:
        strips(0, height)
    else:
        share = 2 * lines
        side_by_side([partial(strips, at, min(at + share, height)) for at in range(0, height, share)])
    return done


def change_height(planes: NDArray[np.float32], rows: Axis) -> NDArray[np.float32]:
    """The second pass: (3, rows that are read, width) to (3, rows.outputs, width), bytes as float32."""
    width = planes.shape[2]
    done = np.empty((3, rows.outputs, width), np.float32)
    lines = min(rows.lines, width)
    for at in range(0, width, lines):
        _resample(planes[:, :, at : at + lines], rows, done[:, :, at : at + lines], upright=True)
    return done


def in_bytes(planes: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(3, height, width), bytes as float32, to (height, width, 3) uint8."""
    pixels: NDArray[np.uint8] = planes.transpose(1, 2, 0).astype(np.uint8, order="C")
    return pixels


def _resample(source: NDArray[np.float32], along: Axis, target: NDArray[np.float32], *, upright: bool) -> None:
    """Bytes to bytes, both as float32: (planes, lines, pixels) to (planes, lines, outputs).

    Upright: (planes, pixels, lines) to (planes, outputs, lines).
    """
    sums = np.empty(target.shape, np.float32)
    _multiply(source, along, sums, upright=upright)
    whole: NDArray[np.floating[Any]] = np.rint(sums)
    np.subtract(sums, whole, out=sums)
    np.abs(sums, out=sums)
    doubtful = np.flatnonzero(sums.reshape(-1) > np.float32(0.5 - along.doubt))
    if len(doubtful) > _FEW * sums.size:
        exact = np.empty(target.shape, np.float64)  # 8 and 22 digits and some of the sum are fewer than its 53
        _multiply(source.astype(np.float64), along, exact, upright=upright)
        exact += 0.5
        whole = np.floor(exact, out=exact)
    elif len(doubtful):
        plane, line, output = np.unravel_index(doubtful, sums.shape)
        if upright:
            source, line, output = source.transpose(0, 2, 1), output, line
        read = source[plane[:, None], line[:, None], along.taps[output]].astype(np.int64)
        mended = ((read * along.values[output]).sum(axis=1) + _ONE // 2) >> COEFFICIENT_BITS
        whole.reshape(-1)[doubtful] = mended
    np.clip(whole, 0, 255, out=target)


def _multiply(source: NDArray[Any], along: Axis, sums: NDArray[Any], *, upright: bool) -> None:
    """The sums before they are rounded, in the type of `sums`."""
    with np.errstate(all="ignore"):  # some of Apple's processors report faults of sums that have none
        for block in along.blocks:
            weights = block.weights.astype(sums.dtype, copy=False)
            read, made = slice(block.first, block.last), slice(block.start, block.stop)
            if upright:
                np.matmul(weights.T, source[:, read], out=sums[:, made])
            else:
                np.matmul(source[:, :, read], weights, out=sums[:, :, made])
