"""NV12 frames, as decoders and cameras give them, to RGB.

BT.601 with luma in 16..235 and chroma in 16..240, each chroma value standing for its two by two pixels: what OpenCV's
`cvtColor(frame, COLOR_YUV2RGB_NV12)` does, bit for bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BITS = 20
"""Binary digits of the coefficients below."""
LUMA_FLOOR, CHROMA_MIDDLE = 16, 128
LUMA = 1220542
"""255 / 219: to each of red, green and blue."""
FROM_U = (0, -409993, 2116026)
"""To red, green and blue."""
FROM_V = (1673527, -852492, 0)
"""To red, green and blue."""


def nv12_to_rgb(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One (H * 3 / 2, W) frame -> (H, W, 3) uint8."""
    rows, width = frame.shape
    height = rows * 2 // 3
    luma = np.maximum(frame[:height].astype(np.int32) - LUMA_FLOOR, 0) * LUMA + (1 << (BITS - 1))
    chroma = frame[height:].reshape(height // 2, width // 2, 2).astype(np.int32) - CHROMA_MIDDLE
    rgb = np.empty((height, width, 3), np.uint8)
    for channel, (from_u, from_v) in enumerate(zip(FROM_U, FROM_V, strict=True)):
        share = chroma[..., 0] * from_u + chroma[..., 1] * from_v
        value = luma.reshape(height // 2, 2, width // 2, 2) + share[:, None, :, None]
        rgb[..., channel] = np.clip(value >> BITS, 0, 255).reshape(height, width)
    return rgb
