"""Pillow's own memory as an array."""

from __future__ import annotations

import gc
import sys

import numpy as np
import pytest
from PIL import Image, features

from clipdeploy.runtime.lent import lent_pixels
from tests.runtime.pictures import noise

lends = pytest.mark.skipif(
    not hasattr(Image.Image, "__arrow_c_array__"),
    reason=f"Pillow {features.version('pil')} does not lend its pixels; 11.2 and later do",
)


@lends
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (640, 480), (1920, 1080)])
def test_the_pixels_are_the_pictures(size: tuple[int, int]) -> None:
    values = noise(*size)
    found = lent_pixels(Image.fromarray(values))
    assert found is not None
    assert found.shape == (size[1], size[0], 4)
    assert not found.flags.writeable
    assert np.array_equal(found[..., :3], values)


@lends
def test_they_stay_when_the_picture_is_gone() -> None:
    values = noise(300, 200)
    found = lent_pixels(Image.fromarray(values))
    gc.collect()
    others = [Image.new("RGB", (300, 200), "red") for _ in range(20)]
    assert found is not None and others
    assert np.array_equal(found[..., :3], values)


@lends
def test_they_are_given_back() -> None:
    """Two hundred full HD pictures are 1.6 GB; what stays is a few of them."""
    resource = pytest.importorskip("resource", reason="memory is read from getrusage, which Windows has not")
    unit = 1 if sys.platform == "darwin" else 1024
    lent_pixels(Image.new("RGB", (1920, 1080), "white"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(200):
        found = lent_pixels(Image.new("RGB", (1920, 1080), "white"))
        assert found is not None
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * unit < 100 << 20


def test_a_picture_in_several_blocks_is_not_lent() -> None:
    """Pillow takes memory in blocks of 16 MiB."""
    assert lent_pixels(Image.new("RGB", (2400, 2000))) is None


def test_nor_is_one_whose_lines_have_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.core, "get_alignment", lambda: 64)
    assert lent_pixels(Image.new("RGB", (30, 20))) is None


def test_nor_where_pillow_is_older(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Image.Image, "__arrow_c_array__", raising=False)
    assert lent_pixels(Image.new("RGB", (30, 20))) is None
