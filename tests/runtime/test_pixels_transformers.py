"""Pixels are those of transformers' own processors, bit for bit, where a checkpoint says that they made them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipdeploy.runtime.image import ImageProcessor
from clipdeploy.spec import PixelSpec
from tests.bundles import pixel_spec
from tests.runtime.pictures import MODES, noise, picture, processed, random_size

HABITS = {"crop_rounding": "floor", "rgb": "on_white"}
CLIP = replace(pixel_spec(48, 48), **HABITS)
LINEAR = replace(CLIP, interpolation="bilinear")
SQUASH = replace(pixel_spec(48, 48, resize="squash", mean=(0.5,) * 3, std=(0.5,) * 3), **HABITS)
OBLONG = replace(SQUASH, height=32, width=56, interpolation="bilinear")
SPECS = {"clip": CLIP, "bilinear": LINEAR, "siglip": SQUASH, "oblong": OBLONG}


@pytest.fixture(autouse=True, scope="module")
def _transformers() -> None:
    pytest.importorskip(
        "transformers.models.clip.image_processing_pil_clip", reason="the reference is transformers from version 5 on"
    )


@pytest.mark.parametrize("mode", MODES)
def test_pixels_are_transformers(mode: str) -> None:
    rng = np.random.default_rng(MODES.index(mode))
    for seed in range(16):
        spec = list(SPECS.values())[seed % len(SPECS)]
        image = picture(mode, *random_size(rng, spec), seed=seed)
        ours = ImageProcessor(spec)([image])[0]
        assert ours.dtype == np.float32
        assert np.array_equal(ours, processed(image, spec)), (mode, image.size, spec)


@pytest.mark.parametrize(
    "size",
    [
        *[
            (1, 1),
            (1, 250),
            (250, 1),
            (47, 48),
            (48, 47),
            (48, 48),
            (49, 49),
            (51, 48),
            (48, 55),
            (640, 480),
            (480, 640),
        ],
        *[(1920, 1080), (1080, 1920), (102, 96), (96, 110), (13, 7), (7, 13), (299, 101)],
    ],
)
@pytest.mark.parametrize("name", SPECS)
def test_pixels_of_every_shape(name: str, size: tuple[int, int]) -> None:
    image = Image.fromarray(noise(*size))
    assert np.array_equal(ImageProcessor(SPECS[name])([image])[0], processed(image, SPECS[name]))


@pytest.mark.parametrize("margin", [3, 7, 11, 31])
def test_an_odd_margin_is_floored(margin: int) -> None:
    for size in ((48 + margin, 48), (48, 48 + margin)):
        image = Image.fromarray(noise(*size))
        crop = ImageProcessor(CLIP).crop(image)
        assert np.array_equal(crop, processed(image, CLIP, floats=False))
        assert not np.array_equal(crop, ImageProcessor(replace(CLIP, crop_rounding="round")).crop(image))


def translucent(mode: str) -> Image.Image:
    """A picture with transparency, in each of the ways that files carry it."""
    image = picture("RGBA", 90, 61)
    if mode.endswith(", one colour"):
        flat = image.convert("RGB").convert(mode.split(",")[0])
        clear = flat.getpixel((45, 30))
        flat.paste(clear, (30, 20, 60, 40))  # large enough to be seen after the resize
        flat.info["transparency"] = clear
        return flat
    return picture("P+transparency", 90, 61) if mode == "P, a table" else image.convert(mode)


@pytest.mark.parametrize(
    "mode", ["RGBA", "LA", "PA", "P, a table", "P, one colour", "RGB, one colour", "L, one colour"]
)
def test_what_is_transparent_is_laid_on_white(mode: str) -> None:
    image = translucent(mode)
    before = dict(image.info)
    crop = ImageProcessor(CLIP).crop(image)
    assert np.array_equal(crop, processed(image, CLIP, floats=False))
    assert not np.array_equal(crop, ImageProcessor(replace(CLIP, rgb="before_resize")).crop(image))
    assert image.info == before


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P+transparency", "P", "1", "CMYK", "LAB"])
def test_converted_before_the_resize_with_alpha_dropped(mode: str) -> None:
    """As transformers 4 does: `convert("RGB")`, and then what it does with an RGB picture."""
    image = picture(mode, 90, 61)
    converted = image.copy()
    converted.info.pop("transparency", None)
    expected = processed(converted.convert("RGB"), CLIP, floats=False)
    assert np.array_equal(ImageProcessor(replace(CLIP, rgb="before_resize")).crop(image), expected)


@pytest.mark.parametrize("mode", ["P", "1", "RGBA", "LAB"])
def test_the_order_of_conversion_and_resize_shows(mode: str) -> None:
    image = picture(mode, 90, 61)
    before, after = (ImageProcessor(replace(CLIP, rgb=rgb)).crop(image) for rgb in ("before_resize", "after_resize"))
    assert not np.array_equal(before, after)


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ((0.0,) * 3, (1.0,) * 3),
    ],
)
def test_every_byte_is_normalised_as_transformers_does(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    spec: PixelSpec = replace(CLIP, mean=mean, std=std)
    crop = np.resize(np.arange(256, dtype=np.uint8), (48, 48, 3))
    assert set(crop.ravel().tolist()) == set(range(256))
    ours = ImageProcessor(spec).normalize(crop[None])[0]
    assert np.array_equal(ours, processed(Image.fromarray(crop), spec))


def test_pixels_of_photographs(photos: list[Path]) -> None:
    spec = replace(CLIP, height=224, width=224)
    chosen = photos[:: max(1, len(photos) // 8)]
    for path, pixels in zip(chosen, ImageProcessor(spec)(chosen), strict=True):
        assert np.array_equal(pixels, processed(Image.open(path), spec)), path
