"""Crops pinned by hash, for machines without torchvision.

The hashes are those of open_clip 3.3 with torchvision 0.29, by `digest(own_crop(picture(mode, *size), spec))`, and of
transformers 5.23, by `digest(processed(picture(mode, *size), spec, floats=False))`.
Wide pictures only: for tall ones Pillow 13 changed which axis it resizes first, and with it some values by a level.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from clipdeploy.runtime.image import ImageProcessor
from clipdeploy.spec import PixelSpec
from tests.bundles import pixel_spec
from tests.runtime.pictures import own_crop, picture, processed

CROP = pixel_spec(64, 64)
LINEAR = pixel_spec(64, 64, interpolation="bilinear")
SQUASH = pixel_spec(64, 64, resize="squash")

GOLDENS = [
    ("RGB", (200, 150), CROP, "a7447e555df65236"),
    ("RGB", (301, 97), LINEAR, "a251330418a9c1e7"),
    ("RGB", (130, 61), SQUASH, "c6c8a28d699ddf26"),
    ("RGB", (37, 21), CROP, "ce65f48e958db31a"),
    ("RGB", (96, 64), CROP, "6b37f828f38bd4ae"),
    ("RGB", (50, 1), CROP, "12950b6b636ce0fd"),
    ("RGB", (64, 64), CROP, "017a93209d27d9b8"),
    ("L", (200, 150), CROP, "6c104faf16bc2041"),
    ("LA", (200, 150), CROP, "6c104faf16bc2041"),
    ("RGBA", (200, 150), LINEAR, "2ff9477944e1272c"),
    ("RGBA", (64, 64), CROP, "017a93209d27d9b8"),
    ("1", (200, 150), CROP, "2f4c3b487313e45e"),
    ("I;16", (99, 70), CROP, "599b72c527b3ab9e"),
    ("I", (99, 70), CROP, "a6e6abb189dab408"),
    ("F", (99, 70), CROP, "d9e05f951162617d"),
    ("CMYK", (200, 150), CROP, "afe66b7df8bb12e1"),
    ("P", (200, 150), CROP, "9e5acc1d7b8199dc"),
]  # fmt: skip

FLOORED = replace(CROP, crop_rounding="floor", rgb="on_white")
WHITE = replace(SQUASH, crop_rounding="floor", rgb="on_white")

TRANSFORMERS = [
    ("RGB", (203, 150), FLOORED, "9ab4fd76bcfdaf30"),
    ("RGB", (203, 150), WHITE, "ac5e7ab11f3a1dfd"),
    ("RGB", (67, 64), FLOORED, "0049da719a917618"),
    ("RGBA", (201, 150), FLOORED, "a6a0a64044984e01"),
    ("RGBA", (201, 150), WHITE, "adae5c8f9e638576"),
    ("P", (200, 150), FLOORED, "f08c7ab5b86bb477"),
    ("LA", (99, 70), WHITE, "7a5b62cab36338d7"),
    ("1", (200, 150), FLOORED, "14cdc58b48e3a3b2"),
]  # fmt: skip


def digest(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16]


@pytest.mark.parametrize(("mode", "size", "spec", "expected"), [*GOLDENS, *TRANSFORMERS])
def test_crop(mode: str, size: tuple[int, int], spec: PixelSpec, expected: str) -> None:
    assert digest(ImageProcessor(spec).crop(picture(mode, *size))) == expected


@pytest.mark.parametrize(("mode", "size", "spec", "expected"), GOLDENS)
def test_the_hashes_are_open_clips(mode: str, size: tuple[int, int], spec: PixelSpec, expected: str) -> None:
    pytest.importorskip("open_clip", reason="the reference is open_clip: pip install 'clipdeploy[export]'")
    assert digest(own_crop(picture(mode, *size), spec)) == expected


@pytest.mark.parametrize(("mode", "size", "spec", "expected"), TRANSFORMERS)
def test_the_hashes_are_transformers(mode: str, size: tuple[int, int], spec: PixelSpec, expected: str) -> None:
    pytest.importorskip(
        "transformers.models.clip.image_processing_pil_clip", reason="the reference is transformers from version 5 on"
    )
    assert digest(processed(picture(mode, *size), spec, floats=False)) == expected


def test_normalised_values() -> None:
    """`(byte / 255 - mean) / std` in float32, worked out in float64 and rounded to the nearest few units."""
    crops = np.repeat(np.arange(64 * 64, dtype=np.int64).reshape(1, 64, 64, 1) % 256, 3, axis=3).astype(np.uint8)
    pixels = ImageProcessor(CROP).normalize(crops)
    expected = (np.moveaxis(crops, 3, 1) / 255 - np.reshape(CROP.mean, (3, 1, 1))) / np.reshape(CROP.std, (3, 1, 1))
    assert pixels.shape == (1, 3, 64, 64)
    assert digest(pixels) == "adf4c2f533a1310f"
    np.testing.assert_allclose(pixels, expected, rtol=0, atol=5e-7)
