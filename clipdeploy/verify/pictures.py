"""The golden pictures, painted from a seed: edges, gradients, textures and fine rings in every mode and shape.

Each is there for a reason: `bricks` and `floor` need no resize and leave an odd margin, so that a crop offset that
is floored instead of rounded shows; `rings` alias when a resize does not filter; `glass` is translucent, `mosaic`
has a palette, `icon` is enlarged, `panorama` is nearly all cropped away, `hills` is a JPEG of camera-like size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipdeploy.spec import PixelSpec

Plane = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Painting:
    """A painted picture and the file name it is saved under."""

    name: str
    image: Image.Image


def paint_pictures(pixels: PixelSpec, *, seed: int = 0) -> list[Painting]:
    """Ten pictures for a model that sees `pixels`; the same spec and seed give the same ones."""
    width, height = pixels.width, pixels.height
    easels: list[tuple[str, Callable[[int, int, np.random.Generator], Image.Image], int, int]] = [
        ("lighthouse.png", _lighthouse, 210, 340),
        ("hills.jpg", _hills, 1024, 683),
        ("rings.png", _rings, 256, 256),
        ("icon.png", _icon, 19, 13),
        ("mosaic.png", _mosaic, 300, 220),
        ("glass.png", _glass, 240, 200),
        ("bricks.png", _bricks, width + 77, height),
        ("floor.png", _floor, width, height + 79),
        ("panorama.png", _panorama, 640, 90),
        ("needle.png", _needle, 37, 401),
    ]
    rngs = [np.random.default_rng(one) for one in np.random.SeedSequence(seed).spawn(len(easels))]
    return [Painting(name, paint(w, h, rng)) for (name, paint, w, h), rng in zip(easels, rngs, strict=True)]


def _grid(width: int, height: int) -> tuple[Plane, Plane]:
    """Pixel centres as x (H, W) and y (H, W), both 0..1."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return (x + 0.5) / width, (y + 0.5) / height


def _mix(below: Plane, colour: tuple[int, int, int], cover: Plane) -> Plane:
    """`colour` laid over `below` (H, W, 3) where `cover` (H, W) is 1."""
    return below + (np.asarray(colour, np.float32) - below) * cover[..., None]


def _ramp(t: Plane, start: tuple[int, int, int], end: tuple[int, int, int]) -> Plane:
    """(H, W, 3) from `start` where t is 0 to `end` where it is 1."""
    first, last = np.asarray(start, np.float32), np.asarray(end, np.float32)
    return np.asarray(first + np.clip(t, 0, 1)[..., None] * (last - first))


def _rgb(values: Plane) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _edge(distance_px: Plane) -> Plane:
    """1 inside (negative distance), 0 outside, one pixel of ramp between."""
    return np.asarray(np.clip(0.5 - distance_px, 0, 1))


def _lighthouse(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    x, y = _grid(width, height)
    scene = _ramp(y, (18, 28, 74), (236, 140, 92))
    for star_x, star_y in rng.uniform(0, 1, (40, 2)):
        scene = _mix(scene, (255, 250, 220), _edge(np.hypot((x - star_x) * width, (y - star_y * 0.5) * height) - 1))
    half = 0.10 + 0.08 * (y - 0.25)
    body = _edge((np.abs(x - 0.5) - half) * width) * (y > 0.25) * (y < 0.88)
    scene = _mix(scene, (244, 240, 232), body)
    scene = _mix(scene, (196, 42, 48), body * ((y * 7) % 1 < 0.45))
    scene = _mix(scene, (255, 226, 110), _edge(np.hypot((x - 0.5) * width, (y - 0.21) * height) - 16))
    return _rgb(_mix(scene, (20, 40, 58), _edge((0.86 - y + 0.02 * np.sin(x * 14)) * height)))


def _hills(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    x, y = _grid(width, height)
    scene = _ramp(y * 1.6, (92, 158, 226), (252, 232, 190))
    scene = _mix(scene, (255, 246, 200), _edge(np.hypot((x - 0.72) * width, (y - 0.26) * height) - 60))
    grain = 1 + 0.10 * np.sin(x[:1] * 160) * np.sin(y * 210 + 40 * x)
    for layer, colour in enumerate([(126, 150, 178), (92, 128, 120), (70, 108, 70), (44, 74, 44)]):
        phase = rng.uniform(0, 6.28, 2).astype(np.float32)
        ridge = 0.45 + 0.13 * layer + 0.05 * np.sin(x[:1] * 7 + phase[0]) + 0.02 * np.sin(x[:1] * 23 + phase[1])
        shade = np.asarray(colour, np.float32) * grain[..., None]
        scene = scene + (shade - scene) * _edge((ridge - y) * height)[..., None]
    return _rgb(scene)


def _rings(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    x, y = _grid(width, height)
    centre = rng.uniform(0.35, 0.65, 2)
    wave = np.cos(((x - centre[0]) ** 2 + (y - centre[1]) ** 2) * 420)  # finer the further out
    return Image.fromarray(np.rint(127.5 + 120 * wave).astype(np.uint8))  # mode L


def _icon(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    x, y = _grid(width, height)
    scene = _ramp(x, (250, 204, 60), (240, 96, 120))
    scene = _mix(scene, (30, 30, 60), _edge((np.abs(x - 0.3) + np.abs(y - 0.5) - 0.25) * 12))
    return _rgb(scene + rng.normal(0, 12, scene.shape))


def _mosaic(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    x, y = _grid(width, height)
    seeds, colours = rng.uniform(0, 1, (48, 2)), rng.integers(20, 240, (48, 3), dtype=np.uint8)
    away = np.hypot((x[..., None] - seeds[:, 0]) * width, (y[..., None] - seeds[:, 1]) * height)  # (H, W, 48)
    near = np.partition(away, 1, axis=-1)
    index = np.where(near[..., 1] - near[..., 0] < 3, 48, np.argmin(away, axis=-1)).astype(np.uint8)
    image = Image.fromarray(index)
    image.putpalette([*colours.ravel().tolist(), 16, 16, 20])  # which makes it mode P
    return image


def _glass(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    x, y = _grid(width, height)
    scene, alpha = np.full((height, width, 3), 250.0), np.full((height, width), 0.15)
    for colour in [(220, 40, 60), (40, 160, 90), (40, 80, 220), (250, 190, 30), (160, 60, 200)]:
        centre, radius = rng.uniform(0.2, 0.8, 2), rng.uniform(35, 70)
        cover = _edge(np.hypot((x - centre[0]) * width, (y - centre[1]) * height) - radius)
        scene, alpha = _mix(scene, colour, 0.6 * cover), np.maximum(alpha, cover * (0.35 + 0.6 * x))
    return _rgb(np.dstack([scene, 255 * alpha]))  # mode RGBA


def _bricks(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    row = y // 18
    column = (x + 20 * (row % 2)) // 40
    tint = rng.uniform(-26, 26, (int(row.max()) + 1, int(column.max()) + 1))[row, column]
    scene = np.array([168.0, 78.0, 58.0]) + tint[..., None]
    mortar = ((y % 18) < 2) | ((x + 20 * (row % 2)) % 40 < 2)
    return _rgb(np.where(mortar[..., None], np.array([206.0, 200.0, 190.0]), scene))


def _floor(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    x, y = _grid(width, height)
    depth = 1 / np.maximum(y - 0.35, 0.02)
    tiles = (np.floor((x - 0.5) * depth * 3) + np.floor(depth * 2.4)) % 2
    ground = _ramp(tiles, (34, 40, 52), (226, 222, 210))
    sky = _ramp(y / 0.37, (250, 170, 120), (120, 90, 150))
    scene = np.where((y > 0.37)[..., None], ground, sky)
    ball = _edge(np.hypot((x - rng.uniform(0.3, 0.7)) * width, (y - 0.55) * height) - width / 6)
    return _rgb(_mix(scene, (30, 150, 170), ball))


def _panorama(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    x, y = _grid(width, height)
    scene = _ramp(x, (255, 120, 60), (40, 60, 160))
    for left, roof in zip(np.linspace(0, 0.97, 34), rng.uniform(0.25, 0.85, 34), strict=True):
        scene = _mix(scene, (24, 24, 34), ((x > left) & (x < left + 0.025) & (y > roof)).astype(float))
    return _rgb(scene)


def _needle(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    x, y = _grid(width, height)
    scene = _ramp(y, (240, 248, 255), (150, 190, 160))
    scene = _mix(scene, (90, 60, 40), _edge((np.abs(x - 0.5 - 0.1 * np.sin(y * 9)) - 0.12) * width))
    for leaf in rng.uniform(0.05, 0.95, (30, 2)):
        scene = _mix(scene, (40, 130, 60), _edge(np.hypot((x - leaf[0]) * width, (y - leaf[1]) * height) - 4))
    return _rgb(scene)
