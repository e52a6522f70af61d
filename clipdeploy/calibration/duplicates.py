"""Pictures that are nearly the same: neighbouring frames of a video, bursts, copies in another size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HASH_BITS = 10
"""Two pictures are nearly the same when at most this many of the 64 bits of their hashes differ, and ..."""

COLOUR_LEVELS = 4.0
"""... when their thumbnails differ by at most this on average, of 255: the hash sees neither colour nor light."""

_GRID = 8


class Seen:
    """Remembers pictures by 64 bits and an 8 x 8 thumbnail each.

    Args:
        room: how many it can remember.
    """

    def __init__(self, room: int) -> None:
        self._signs = np.empty((room, _GRID * _GRID), np.float32)  # bits as -1 and 1, to compare by a product
        self._thumbnails = np.empty((room, _GRID * _GRID * 3), np.uint8)
        self._count = 0

    def add(self, crop: NDArray[np.uint8]) -> bool:
        """Remember a crop `(H, W, 3)` uint8, RGB; False, and not remembered, when one nearly the same is."""
        signs, thumbnail = np.where(difference_hash(crop), 1.0, -1.0).astype(np.float32), _thumbnail(crop)
        near = self._signs[: self._count] @ signs >= signs.size - 2 * HASH_BITS
        distances = np.abs(self._thumbnails[: self._count][near].astype(np.int16) - thumbnail).mean(axis=1)
        if (distances <= COLOUR_LEVELS).any():
            return False
        self._signs[self._count], self._thumbnails[self._count] = signs, thumbnail
        self._count += 1
        return True


def difference_hash(crop: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(64,) bits of a crop `(H, W, 3)`: whether each place of an 8 x 8 grid is darker than its right neighbour."""
    grey = Image.fromarray(crop).convert("L").resize((_GRID + 1, _GRID), Image.Resampling.BOX)
    values = np.asarray(grey)
    bits: NDArray[np.bool_] = (values[:, 1:] > values[:, :-1]).ravel()
    return bits


def _thumbnail(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    small = Image.fromarray(crop).resize((_GRID, _GRID), Image.Resampling.BOX)
    return np.asarray(small).ravel()
