"""Calibration data for tests: distinct pictures, copies of them, and videos, all seeded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from clipdeploy.spec import PixelSpec, ResizeMode


def pixel_spec(resize: ResizeMode = "shortest") -> PixelSpec:
    """A small CLIP's preprocessing: 32 x 32 px."""
    mean, std = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
    return PixelSpec(height=32, width=32, resize=resize, interpolation="bicubic", mean=mean, std=std)


def scene(seed: int, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """(height, width, 3) uint8: coloured clouds, another arrangement for every seed."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC))


def write_pictures(folder: Path, count: int, *, first: int = 0) -> list[Path]:
    """`count` distinct PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{seed:05d}.png" for seed in range(first, first + count)]
    for seed, path in enumerate(paths, first):
        Image.fromarray(scene(seed)).save(path)
    return paths


def write_video(path: Path, scenes: Sequence[int], *, repeat: int = 4) -> Path:
    """An MP4 at 10 frames a second that shows each scene `repeat` times, its index in front of the pictures."""
    import av

    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("mpeg4", rate=10, options={"g": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.bit_rate = 8_000_000
        for seed in scenes:
            frame = av.VideoFrame.from_ndarray(scene(seed), format="rgb24")
            for _ in range(repeat):
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def turn_video(path: Path) -> Path:
    """Mark an MP4 as filmed by a camera on its side: players show it a quarter turn clockwise."""
    data = bytearray(path.read_bytes())
    upright = np.array([1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30], ">i4").tobytes()
    turned = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30], ">i4").tobytes()
    at = data.index(upright, data.index(b"tkhd"))
    data[at : at + len(turned)] = turned
    path.write_bytes(data)
    return path
