"""Frames to RGB on the processor, for what takes only pictures: Pillow's resize, a screen, a file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import ImageError
from clipdeploy.runtime.nv12 import nv12_to_rgb
from clipdeploy.runtime.stream.records import Frame


def to_rgb(frame: Frame) -> NDArray[np.uint8]:
    """A frame as (H, W, 3) uint8, RGB; a view where only the order of its channels changes.

    nv12 is read as the frame graph reads it, at limited range with the coefficients of BT.601; see `runtime/nv12.py`.

    Raises:
        ImageError: its array does not have the shape of its colour.
    """
    pixels = frame.pixels
    if frame.color == "nv12":
        if pixels.ndim != 2 or pixels.shape[0] % 3 or pixels.shape[1] % 2 or not pixels.size:
            raise ImageError(f"an nv12 frame has the shape (H * 3 / 2, W) with even H and W, got {pixels.shape}")
        return nv12_to_rgb(pixels)
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ImageError(f"a frame of {frame.color} has the shape (H, W, 3), got {pixels.shape}")
    return pixels if frame.color == "rgb" else pixels[..., ::-1]
