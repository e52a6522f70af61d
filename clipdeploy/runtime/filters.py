"""What Pillow multiplies pixels with when it resizes: its filters, and their coefficients as integers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Pillow keeps coefficients of byte images as integers with this many binary digits (Resample.c, PRECISION_BITS).
COEFFICIENT_BITS = 22


def coefficients(
    source: int, resized: int, start: int, stop: int, resample: Image.Resampling
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int64]]:
    """What Pillow multiplies pixels with, along one axis, in units of 2 ** -COEFFICIENT_BITS.

    Args:
        source: pixels of the axis before.
        resized: pixels of the axis after.
        start: first output wanted.
        stop: one past the last output wanted.
        resample: bicubic or bilinear.

    Returns:
        Output (from 0 for `start`), source pixel and coefficient, of each that is not zero.
    """
    return box_coefficients(source, (0, source), resized, start, stop, resample)


def box_coefficients(
    source: int, box: tuple[int, int], resized: int, start: int, stop: int, resample: Image.Resampling
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int64]]:
    """As `coefficients`, for the `resized` outputs of the pixels `box` of an axis."""
    reach, curve = FILTERS[resample]
    scale = (box[1] - box[0]) / resized
    stretch = max(scale, 1.0)
    support = reach * stretch
    centre = box[0] + (np.arange(start, stop) + 0.5) * scale
    first = np.maximum(np.trunc(centre - support + 0.5), 0).astype(np.int64)
    last = np.minimum(np.trunc(centre + support + 0.5), source).astype(np.int64)
    pixel = first[:, None] + np.arange(math.ceil(support) * 2 + 1)
    # In Pillow's own order, for the last digit: times the inverse, and summed one after the other.
    weight = curve(np.abs((pixel - centre[:, None] + 0.5) * (1.0 / stretch)))
    weight[pixel >= last[:, None]] = 0.0
    weight /= np.cumsum(weight, axis=1)[:, -1:]
    value = np.trunc(weight * (1 << COEFFICIENT_BITS) + np.copysign(0.5, weight)).astype(np.int64)
    row, column = np.nonzero(value)
    return row, pixel[row, column], value[row, column]


def _bilinear(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(1.0 - x, 0.0)


def _bicubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic with a = -0.5, for x >= 0."""
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


# Reach in source pixels at scale 1, and the curve over the distance.
FILTERS: dict[Image.Resampling, tuple[float, Callable[[NDArray[np.float64]], NDArray[np.float64]]]] = {
    Image.Resampling.BILINEAR: (1.0, _bilinear),
    Image.Resampling.BICUBIC: (2.0, _bicubic),
}
