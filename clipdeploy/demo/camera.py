"""What a lens and a sensor do to a clean picture: blur, vignette, exposure, white balance, noise, 8 bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clipdeploy.demo.world import Camera


def _blur_axis(canvas: NDArray[np.float32], sigma_px: float, axis: int) -> NDArray[np.float32]:
    """A Gaussian along one axis, edges repeated."""
    reach = max(1, int(np.ceil(2.5 * sigma_px)))
    offsets = np.arange(-reach, reach + 1, dtype=np.float32)
    weights = np.exp(-0.5 * (offsets / sigma_px) ** 2)
    weights /= weights.sum()
    pad = [(0, 0)] * canvas.ndim
    pad[axis] = (reach, reach)
    wide = np.pad(canvas, pad, mode="edge")
    length = canvas.shape[axis]
    out = np.zeros_like(canvas)
    for i, weight in enumerate(weights):
        window = [slice(None)] * canvas.ndim
        window[axis] = slice(i, i + length)
        out += wide[tuple(window)] * np.float32(weight)
    return out


def expose(canvas: NDArray[np.float32], camera: Camera) -> NDArray[np.uint8]:
    """(H, W, 3) float32, 0..255, scene-referred -> (H, W, 3) uint8, RGB."""
    height, width = canvas.shape[:2]
    short = min(height, width)
    sigma_px = camera.blur * short
    if sigma_px > 0.3:
        canvas = _blur_axis(_blur_axis(canvas, sigma_px, 0), sigma_px, 1)
    y = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) / height
    x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / width
    fall_off = 1.0 - np.float32(camera.vignette) * (y[:, None] ** 2 + x[None, :] ** 2) * 2.0
    gains = np.array(camera.white_balance, np.float32) * np.float32(camera.exposure)
    lit = canvas * fall_off[..., None] * gains
    if camera.noise > 0.0:
        rng = np.random.default_rng(camera.seed)
        # read noise plus what grows with light, as sensors have it
        sigma = np.float32(camera.noise) * (0.6 + 0.4 * lit / 255.0)
        lit = lit + rng.standard_normal(lit.shape, dtype=np.float32) * sigma
    developed: NDArray[np.uint8] = np.clip(lit + 0.5, 0.0, 255.0).astype(np.uint8)
    return developed
