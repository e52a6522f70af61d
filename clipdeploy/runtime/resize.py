"""Resize and centre crop exactly as torchvision and transformers do them, without computing what the crop drops.

Pillow resizes in two passes, one along each axis, with a rounding to 8 bits after each. Its `box` argument would
compute the crop alone, but holds its corners in float32, so that for most sizes the coefficients shift in their
last bits and some values by one level. What is exact for every size:

- the second pass need not see what the crop drops of the first;
- rows that no output of the crop reads need no pass along the rows;
- a box whose corners are whole pixels at the same ratio as the full resize keeps every coefficient.

A large picture of which the crop drops much is resized by products of matrices instead, which need no box.

Which axis comes first depends on Pillow's version. It is found out on a few tiny pictures, once; where it is none of
the orders known here, everything is resized in full.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipdeploy.runtime.filters import COEFFICIENT_BITS as COEFFICIENT_BITS
from clipdeploy.runtime.filters import FILTERS, box_coefficients
from clipdeploy.runtime.filters import coefficients as coefficients
from clipdeploy.runtime.lent import lent_pixels
from clipdeploy.runtime.products import SideBySide, axis, pays, resize_products
from clipdeploy.spec import CropRounding, PixelSpec

# Modes of one byte a channel, which Pillow resamples as described above; all others take the plain way.
_BYTE_MODES = frozenset({"L", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "La", "RGBa"})
# Pillow resizes these with the colour multiplied by the alpha.
_ALPHA_MODES = {"LA": "La", "RGBA": "RGBa"}
# A cut that spares less than this share of an axis is not worth finding.
_WORTHWHILE = 0.9


@dataclass(frozen=True)
class Geometry:
    """Where the pixels of a crop come from.

    Attributes:
        size: (width, height) of the whole resized picture, px.
        crop: (left, top, right, bottom) of the crop in the resized picture, px.
    """

    size: tuple[int, int]
    crop: tuple[int, int, int, int]


def geometry(size: tuple[int, int], spec: PixelSpec) -> Geometry:
    """Resized size and crop of a picture of `size` (width, height), by the rules of torchvision or transformers."""
    width, height = size
    if spec.resize == "squash":
        return Geometry((spec.width, spec.height), (0, 0, spec.width, spec.height))
    if spec.height == spec.width:
        # torchvision's Resize with one number, transformers' `shortest_edge`: the long side is cut to a whole pixel.
        long = int(spec.width * max(size) / min(size))
        resized = (spec.width, long) if width <= height else (long, spec.height)
    else:
        # open_clip's ResizeKeepRatio, which rounds instead.
        ratio = min(height / spec.height, width / spec.width)
        resized = (round(width / ratio), round(height / ratio))
    left, top = (_margin(a - b, spec.crop_rounding) for a, b in zip(resized, (spec.width, spec.height), strict=True))
    return Geometry(resized, (left, top, left + spec.width, top + spec.height))


def _margin(surplus: int, rounding: CropRounding) -> int:
    """What is cut off before the crop: torchvision rounds halves to even, transformers floors.

    The two are a pixel apart for a quarter of all sizes.
    """
    return surplus // 2 if rounding == "floor" else round(surplus / 2.0)


def resize_crop(
    image: Image.Image, place: Geometry, resample: Image.Resampling, side_by_side: SideBySide | None = None
) -> Image.Image:
    """`image.resize(place.size, resample).crop(place.crop)`, bit for bit, at less work; keeps the mode.

    `side_by_side` makes calls on cores that wait, for a large picture.
    """
    whole = place.crop == (0, 0, *place.size)
    if image.size == place.size:
        return image if whole else image.crop(place.crop)
    if image.mode in _ALPHA_MODES:
        return resize_crop(image.convert(_ALPHA_MODES[image.mode]), place, resample).convert(image.mode)
    rule = None if image.mode not in _BYTE_MODES or _is_sliver(image.size) else _order_rule()
    if rule is not None and not rule(image.size, place.size):
        done = _by_products(image, place, resample, side_by_side)
        if done is not None:
            return done
    if rule is None or whole:
        resized = image.resize(place.size, resample)
        return resized if whole else resized.crop(place.crop)
    columns = _cut(image.width, place.size[0], place.crop[0], place.crop[2], resample)
    rows = _cut(image.height, place.size[1], place.crop[1], place.crop[3], resample)
    if rule(image.size, place.size):
        return _resize_columns(_resize_rows(image, rows, resample), columns, resample)
    first, last = _rows_read(image, rows, resample)
    if (first, last) == (0, image.height):
        return _resize_rows(_resize_columns(image, columns, resample), rows, resample)
    strip = _resize_columns(image.crop((0, first, image.width, last)), columns, resample)
    # The second pass must see its rows at their own place, for its coefficients depend on it.
    sheet = Image.new(strip.mode, (strip.width, image.height))
    sheet.paste(strip, (0, first))
    return _resize_rows(sheet, rows, resample)


def _by_products(
    image: Image.Image, place: Geometry, resample: Image.Resampling, side_by_side: SideBySide | None
) -> Image.Image | None:
    """The crop by matrix products, None where Pillow is the faster or the only one."""
    left, top, right, bottom = place.crop
    if image.mode != "RGB" or not pays(image.size, place.size, (right - left, bottom - top), resample):
        return None
    pixels = lent_pixels(image) if _products_hold() else None
    if pixels is None:
        return None
    columns = axis(image.width, place.size[0], left, right, resample)
    rows = axis(image.height, place.size[1], top, bottom, resample)
    return Image.fromarray(resize_products(pixels, columns, rows, side_by_side))


@lru_cache(maxsize=1)
def _products_hold() -> bool:
    """Whether products are the installed Pillow's bytes here: its own coefficients, numpy's own sums."""
    source, resized = (97, 61), (23, 14)
    noise = _noise(source[0], source[1] * 3).reshape(source[1], source[0], 3)
    columns, rows = (axis(a, b, 0, b, Image.Resampling.BICUBIC) for a, b in zip(source, resized, strict=True))
    done = Image.fromarray(noise).resize((resized[0], source[1]), Image.Resampling.BICUBIC)
    done = done.resize(resized, Image.Resampling.BICUBIC)
    return done.tobytes() == resize_products(noise, columns, rows).tobytes()


def height_first(source: tuple[int, int], resized: tuple[int, int]) -> bool:
    """Whether the installed Pillow changes the height before the width, between sizes of (width, height)."""
    rule = _order_rule()
    return rule is not None and rule(source, resized)


@dataclass(frozen=True)
class _Cut:
    """The wanted outputs of an axis, the outputs `start .. stop` computed for them, and the source they come of."""

    wanted: tuple[int, int]
    start: int
    stop: int
    source: tuple[int, int]


def _resize_columns(image: Image.Image, cut: _Cut, resample: Image.Resampling) -> Image.Image:
    """The pass that changes the width, and the crop of its outputs."""
    box = (cut.source[0], 0, cut.source[1], image.height)
    resized = image.resize((cut.stop - cut.start, image.height), resample, box=box)
    return resized.crop((cut.wanted[0] - cut.start, 0, cut.wanted[1] - cut.start, image.height))


def _resize_rows(image: Image.Image, cut: _Cut, resample: Image.Resampling) -> Image.Image:
    """The pass that changes the height, and the crop of its outputs."""
    box = (0, cut.source[0], image.width, cut.source[1])
    resized = image.resize((image.width, cut.stop - cut.start), resample, box=box)
    return resized.crop((0, cut.wanted[0] - cut.start, image.width, cut.wanted[1] - cut.start))


@lru_cache(maxsize=1024)
def _cut(source: int, resized: int, start: int, stop: int, resample: Image.Resampling) -> _Cut:
    """The smallest range around `start .. stop` that a box computes with the full resize's own coefficients."""
    divisor = math.gcd(source, resized)
    step_in, step_out = source // divisor, resized // divisor
    low, high = start // step_out, -(-stop // step_out)
    cut = _Cut((start, stop), low * step_out, high * step_out, (low * step_in, high * step_in))
    everything = _Cut((start, stop), 0, resized, (0, source))
    if cut.stop - cut.start > _WORTHWHILE * resized:
        return everything
    full = coefficients(source, resized, cut.start, cut.stop, resample)
    boxed = box_coefficients(source, cut.source, cut.stop - cut.start, 0, cut.stop - cut.start, resample)
    return cut if all(np.array_equal(a, b) for a, b in zip(full, boxed, strict=True)) else everything


def _rows_read(image: Image.Image, rows: _Cut, resample: Image.Resampling) -> tuple[int, int]:
    """The source rows that the wanted outputs read, and one more on either side."""
    scale = (rows.source[1] - rows.source[0]) / (rows.stop - rows.start)
    support = FILTERS[resample][0] * max(scale, 1.0)
    first = max(math.floor((rows.wanted[0] + 0.5) * scale - support) - 1, 0)
    last = min(math.ceil((rows.wanted[1] - 0.5) * scale + support) + 1, image.height)
    if image.width * (last - first) > (Image.MAX_IMAGE_PIXELS or math.inf):
        return 0, image.height  # Pillow would call so large a crop a decompression bomb
    return first, last


# Whether Pillow changes the height first, given the sizes before and after.
_OrderRule = Callable[[tuple[int, int], tuple[int, int]], bool]


def _width_first(source: tuple[int, int], resized: tuple[int, int]) -> bool:
    """Pillow up to 12."""
    return False


def _much_taller_height_first(source: tuple[int, int], resized: tuple[int, int]) -> bool:
    """Pillow 13: the height first when it loses more than twice the pixels that the width loses."""
    lost = (source[0] - resized[0], source[1] - resized[1])
    return lost[1] > 0 and lost[1] > 2 * lost[0]


def _is_sliver(size: tuple[int, int]) -> bool:
    """Pillow 12.2 treats pictures more than a hundred times as high as wide apart."""
    return size[1] > 100 * size[0]


# Sizes on both sides of the rules above: much and little taller, wider, larger and smaller than before.
_PROBES = (
    ((12, 16), (8, 8)),
    ((12, 17), (8, 8)),
    ((20, 12), (9, 7)),
    ((9, 30), (7, 25)),
    ((9, 30), (7, 26)),
    ((5, 9), (11, 13)),
    ((6, 14), (11, 13)),
    ((16, 60), (8, 30)),
    ((40, 60), (8, 12)),
    ((7, 350), (6, 40)),
)


@lru_cache(maxsize=1)
def _order_rule() -> _OrderRule | None:
    """The rule that the installed Pillow follows on all probes, None when it is none of the known."""
    for rule in (_width_first, _much_taller_height_first):
        if all(_follows(rule, source, resized) for source, resized in _PROBES):
            return rule
    return None


def _follows(rule: _OrderRule, source: tuple[int, int], resized: tuple[int, int]) -> bool:
    image = Image.fromarray(_noise(*source))
    between = (source[0], resized[1]) if rule(source, resized) else (resized[0], source[1])
    passes = image.resize(between, Image.Resampling.BICUBIC).resize(resized, Image.Resampling.BICUBIC)
    return passes.tobytes() == image.resize(resized, Image.Resampling.BICUBIC).tobytes()


def _noise(width: int, height: int) -> NDArray[np.uint8]:
    noise: NDArray[np.uint8] = (np.arange(width * height) ** 2 * 7919 % 251).astype(np.uint8)
    return noise.reshape(height, width)
