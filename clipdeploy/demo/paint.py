"""Scene -> pixels, at any canvas size."""

from __future__ import annotations

from math import cos, sin

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from clipdeploy.demo.camera import expose
from clipdeploy.demo.shapes import outline, ring_hole
from clipdeploy.demo.world import Backdrop, Scene, Thing
from clipdeploy.errors import InputError

Pixels = NDArray[np.float32]


def render(scene: Scene, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """The scene as an RGB picture of `size` = (width, height) in px. The same scene gives the same picture."""
    width, height = size
    if min(width, height) < 8:
        raise InputError(f"a canvas of {width}x{height} px", fix="ask for 8 px or more on each side")
    canvas = paint_backdrop(scene.backdrop, width, height)
    for thing in scene.things:
        paint_thing(canvas, thing)
    return Image.fromarray(expose(canvas, scene.camera))


def _grid(rng: np.random.Generator, columns: int, rows: int, width: int, height: int) -> Pixels:
    """Smooth noise of -1..1: (height, width) float32, from a coarse grid so that it looks alike at any size."""
    coarse = rng.uniform(-1.0, 1.0, (rows, columns)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))


def _axes(width: int, height: int) -> tuple[Pixels, Pixels]:
    """(1, W) and (H, 1) coordinates in short sides from the centre."""
    short = min(width, height)
    x = ((np.arange(width) + 0.5 - width / 2) / short).astype(np.float32)
    y = ((np.arange(height) + 0.5 - height / 2) / short).astype(np.float32)
    return x[None, :], y[:, None]


def _backdrop_mix(backdrop: Backdrop, width: int, height: int) -> Pixels:
    """How much of the second colour shows: (H, W) float32, about 0..1."""
    rng = np.random.default_rng(backdrop.seed)
    x, y = _axes(width, height)
    match backdrop.kind:
        case "plain":
            return np.zeros((height, width), np.float32)
        case "gradient":
            ramp: Pixels = np.clip(0.5 + x * cos(backdrop.turn) + y * sin(backdrop.turn), 0.0, 1.0)
            return ramp
        case "noisy":
            return 0.5 + 0.9 * _grid(rng, 40, 40, width, height)
        case "wood":
            wave = 0.06 * _grid(rng, 4, 7, width, height) + 0.01 * _grid(rng, 30, 60, width, height)
            grain: Pixels = np.sin((y + wave) * (34.0 + 14.0 * cos(backdrop.turn)))
            return 0.5 + 0.5 * grain
        case "grass":
            return 0.5 + 0.8 * _grid(rng, 56, 18, width, height)
        case "sky":
            clouds = _grid(rng, 5, 6, width, height) + 0.5 * _grid(rng, 11, 14, width, height)
            return np.clip(1.6 * clouds + 0.2, 0.0, 1.0)
        case "brick":
            row = np.floor((y + 8.0) * 8.0)
            along = (x + 8.0) * 4.0 + 0.5 * (row % 2)
            mortar = ((y + 8.0) * 8.0 - row < 0.16) | (along - np.floor(along) < 0.08)
            joints: Pixels = mortar.astype(np.float32)
            return joints + 0.25 * _grid(rng, 8, 8, width, height)
        case _:
            raise InputError(f"unknown backdrop {backdrop.kind!r}", fix="see clipdeploy.demo.world.BACKGROUNDS")


def paint_backdrop(backdrop: Backdrop, width: int, height: int) -> Pixels:
    """(H, W, 3) float32, 0..255."""
    mix = _backdrop_mix(backdrop, width, height)[..., None]
    first = np.array(backdrop.rgb, np.float32)
    second = np.array(backdrop.rgb2, np.float32)
    if backdrop.kind == "sky":
        second = np.array((236.0, 240.0, 244.0), np.float32)
    elif backdrop.kind == "brick":
        second = first * 0.4 + 116.0
    return np.clip(first + (second - first) * mix, 0.0, 255.0).astype(np.float32)


def _texture(thing: Thing, width: int, height: int, left: int, top: int, canvas: tuple[int, int]) -> Pixels:
    """Where the second shade goes: (height, width) float32 of 0 or 1, in the window at (left, top)."""
    x_all, y_all = _axes(*canvas)
    x = (x_all[:, left : left + width] - thing.x) / thing.radius
    y = (y_all[top : top + height] - thing.y) / thing.radius
    c, s = cos(thing.texture_turn), sin(thing.texture_turn)
    u, v = x * c + y * s, y * c - x * s
    period = 0.62 if thing.size == "large" else 0.8
    match thing.texture:
        case "striped":
            return ((u / period) % 1.0 < 0.42).astype(np.float32)
        case "dotted":
            du, dv = (u / period) % 1.0 - 0.5, (v / period) % 1.0 - 0.5
            return (du * du + dv * dv < 0.085).astype(np.float32)
        case "checkered":
            return ((np.floor(u / period * 1.3) + np.floor(v / period * 1.3)) % 2).astype(np.float32)
        case _:
            return np.zeros((height, width), np.float32)


def thing_mask(thing: Thing, size: tuple[int, int]) -> tuple[Image.Image, tuple[int, int]] | None:
    """Its coverage of the canvas: an "L" picture of its window and that window's (left, top); None when outside."""
    width, height = size
    short = min(size)
    reach = thing.radius * short * 1.25 + 2
    cx, cy = width / 2 + thing.x * short, height / 2 + thing.y * short
    left, top = max(0, int(cx - reach)), max(0, int(cy - reach))
    right, bottom = min(width, int(cx + reach) + 1), min(height, int(cy + reach) + 1)
    if right <= left or bottom <= top:
        return None
    times = 4 if short <= 160 else 2 if short <= 640 else 1
    mask = Image.new("L", ((right - left) * times, (bottom - top) * times), 0)
    draw = ImageDraw.Draw(mask)
    c, s = cos(thing.turn), sin(thing.turn)
    for points, ink in ((outline(thing.shape), 255), (ring_hole(), 0)):
        if ink == 0 and thing.shape != "ring":
            break
        px = (cx - left + (points[:, 0] * c - points[:, 1] * s) * thing.radius * short) * times
        py = (cy - top + (points[:, 0] * s + points[:, 1] * c) * thing.radius * short) * times
        draw.polygon([(float(a), float(b)) for a, b in zip(px, py, strict=True)], fill=ink)
    return mask.reduce(times) if times > 1 else mask, (left, top)


def paint_thing(canvas: Pixels, thing: Thing) -> None:
    """Draws onto (H, W, 3) float32 in place."""
    height, width = canvas.shape[:2]
    found = thing_mask(thing, (width, height))
    if found is None:
        return
    mask, (left, top) = found
    w, h = mask.size
    cover = (np.asarray(mask, np.float32) / 255.0)[..., None]  # (h, w, 1)
    first = np.array(thing.rgb, np.float32)
    # the second shade keeps the colour's name: lighter on dark colours, darker on light ones
    light = float(first.max()) < 60.0
    second = first * 0.5 + 62.0 if light else first * (0.62 if thing.colour != "white" else 0.76)
    pattern = _texture(thing, w, h, left, top, (width, height))[..., None]
    ink = first + (second - first) * pattern
    window = canvas[top : top + h, left : left + w]
    window += (ink - window) * cover
