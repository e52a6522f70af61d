"""Pixels are those of open_clip's own transform, bit for bit, at every size and in every mode."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipdeploy.runtime.image import ImageProcessor
from clipdeploy.spec import PixelSpec
from tests.bundles import pixel_spec
from tests.runtime.pictures import MODES, noise, own_crop, own_transform, picture, random_size, random_spec

FAMILIES = {
    "clip": pixel_spec(224, 224),
    "siglip": pixel_spec(224, 224, resize="squash", mean=(0.5,) * 3, std=(0.5,) * 3),
    "clipa": pixel_spec(
        224, 224, resize="squash", interpolation="bilinear", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    ),
    "mobileclip": pixel_spec(256, 256, interpolation="bilinear", mean=(0.0,) * 3, std=(1.0,) * 3),
    "pe": pixel_spec(336, 336, resize="squash", interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3),
}


@pytest.fixture(autouse=True, scope="module")
def _open_clip() -> None:
    pytest.importorskip("open_clip", reason="the reference is open_clip: pip install 'clipdeploy[export]'")


@pytest.mark.parametrize("mode", MODES)
def test_crops_are_open_clips(mode: str) -> None:
    rng = np.random.default_rng(MODES.index(mode))
    for seed in range(24):
        spec = random_spec(rng)
        image = picture(mode, *random_size(rng, spec), seed=seed)
        ours, theirs = ImageProcessor(spec).crop(image), own_crop(image, spec)
        assert ours.dtype == np.uint8
        assert np.array_equal(ours, theirs), (mode, image.size, spec)


@pytest.mark.parametrize(
    "size",
    [
        *[(1, 1), (1, 2), (2, 1), (1, 250), (250, 1), (3, 700), (223, 224), (224, 223), (224, 224), (225, 225)],
        *[(640, 480), (480, 640), (1920, 1080), (1080, 1920), (672, 448), (448, 672), (1500, 250), (250, 1500)],
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_crops_of_every_family(family: str, size: tuple[int, int]) -> None:
    image = Image.fromarray(noise(*size))
    assert np.array_equal(ImageProcessor(FAMILIES[family]).crop(image), own_crop(image, FAMILIES[family]))


@pytest.mark.parametrize("family", ["clip", "mobileclip"])
@pytest.mark.parametrize("margin", [3, 7, 11, 31, 99])
def test_crops_where_rounding_and_flooring_differ(family: str, margin: int) -> None:
    spec = FAMILIES[family]
    for width, height in [
        (spec.width + margin, spec.height),
        (spec.width, spec.height + margin),
        (2 * (spec.width + margin), 2 * spec.height),
    ]:
        image = Image.fromarray(noise(width, height))
        crop = ImageProcessor(spec).crop(image)
        assert np.array_equal(crop, own_crop(image, spec)), image.size
        assert not np.array_equal(crop, ImageProcessor(replace(spec, crop_rounding="floor")).crop(image)), image.size


@pytest.mark.parametrize("size", [(6000, 4000), (4000, 6000)])
def test_crops_of_a_huge_picture(size: tuple[int, int]) -> None:
    image = Image.fromarray(np.resize(noise(997, 401), (size[1], size[0], 3)))
    assert np.array_equal(ImageProcessor(FAMILIES["clip"]).crop(image), own_crop(image, FAMILIES["clip"]))


@pytest.mark.parametrize("spec", FAMILIES.values(), ids=FAMILIES)
def test_normalised_values_are_open_clips(spec: PixelSpec) -> None:
    """Every byte in every channel, and the layout."""
    crops = noise(spec.width, spec.height * 3).reshape(3, spec.height, spec.width, 3)
    crops[0].reshape(-1, 3)[:256] = np.arange(256)[:, None]
    to_tensor, normalise = own_transform(spec)[-2:]
    theirs = np.stack([normalise(to_tensor(Image.fromarray(crop))).numpy() for crop in crops])
    ours = ImageProcessor(spec).normalize(crops)
    assert ours.dtype == np.float32
    assert np.array_equal(ours, theirs)


def test_pixels_of_photographs(photos: list[Path]) -> None:
    chosen = photos[:: max(1, len(photos) // 24)]
    spec = FAMILIES["clip"]
    steps = own_transform(spec)
    ours = ImageProcessor(spec)(chosen)
    for path, pixels in zip(chosen, ours, strict=True):
        theirs = Image.open(path)
        for step in steps:
            theirs = step(theirs)
        assert np.array_equal(pixels, theirs.numpy()), path


def test_an_orientation_in_the_file_is_left_as_open_clip_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(60, 40)).save(path, exif=exif)
    assert np.array_equal(ImageProcessor(pixel_spec()).crop(path), own_crop(Image.open(path), pixel_spec()))
