"""Frames of a camera, frame graphs, and what runs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipdeploy.runtime.image import ImageProcessor
from clipdeploy.runtime.nv12 import nv12_to_rgb
from clipdeploy.spec import FrameSpec, PixelSpec, TensorSpec

Run = Callable[[np.ndarray], np.ndarray]
ENGINES = ("onnxruntime", "openvino")


def write_graph(frame: FrameSpec, pixels: PixelSpec, path: Path) -> Path:
    """The frame graph of these frames, in the tower's usual opset."""
    from clipdeploy.frames.graph import frame_graph

    output = TensorSpec("pixel_values", "float32", ("batch", 3, pixels.height, pixels.width))
    model = frame_graph(frame, pixels, output, opset=19, ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def opened(graph: Path, engine: str) -> Any:
    """A session of the runtime's own."""
    pytest.importorskip(engine)
    from clipdeploy.runtime.backends import open_session

    return open_session(graph, backend=engine)


def expected(frames: np.ndarray, frame: FrameSpec, pixels: PixelSpec) -> np.ndarray:
    """What the runtime's own preprocessing makes of them, through Pillow."""
    pictures = [nv12_to_rgb(each) for each in frames] if frame.color == "nv12" else list(frames)
    return ImageProcessor(pixels, workers=1)(pictures, color="bgr" if frame.color == "bgr" else "rgb")


def as_frame(picture: Path, frame: FrameSpec) -> np.ndarray:
    """A photograph that fills a frame, its middle where the shapes differ: (...) uint8."""
    with Image.open(picture) as image:
        rgb = image.convert("RGB")
    scale = max(frame.width / rgb.width, frame.height / rgb.height)
    rgb = rgb.resize((round(rgb.width * scale + 0.5), round(rgb.height * scale + 0.5)), Image.Resampling.LANCZOS)
    left, top = (rgb.width - frame.width) // 2, (rgb.height - frame.height) // 2
    return as_color(np.asarray(rgb.crop((left, top, left + frame.width, top + frame.height))), frame)


def as_color(rgb: np.ndarray, frame: FrameSpec) -> np.ndarray:
    """(H, W, 3) uint8 RGB in the order of the frames; to nv12 by BT.601, chroma of a pixel of each four."""
    if frame.color == "rgb":
        return np.ascontiguousarray(rgb)
    if frame.color == "bgr":
        return np.ascontiguousarray(rgb[:, :, ::-1])
    red, green, blue = (rgb[..., channel].astype(np.float64) for channel in range(3))
    luma = 16 + 0.257 * red + 0.504 * green + 0.098 * blue
    u = 128 - 0.148 * red - 0.291 * green + 0.439 * blue
    v = 128 + 0.439 * red - 0.368 * green - 0.071 * blue
    chroma = np.stack([u[::2, ::2], v[::2, ::2]], axis=-1).reshape(frame.height // 2, frame.width)
    return np.concatenate([luma, chroma]).round().astype(np.uint8)


def noise(frame: FrameSpec, count: int = 1) -> np.ndarray:
    """The worst there is: every value by chance."""
    return np.random.default_rng(7).integers(0, 256, (count, *frame.shape), dtype=np.uint8)
