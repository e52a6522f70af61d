"""Resizes by matrix products are Pillow's, bit for bit, whatever the picture."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event, get_ident
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from clipdeploy.runtime import products, resize
from clipdeploy.runtime.image import ImageProcessor
from clipdeploy.runtime.pool import Pool
from clipdeploy.runtime.products import axis, pays, resize_products
from clipdeploy.runtime.resize import geometry, resize_crop
from tests.bundles import pixel_spec
from tests.runtime.pictures import noise

BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR
FULL_HD = (1920, 1080)
PICTURES = {
    "noise": lambda width, height: noise(width, height),
    "black and white": lambda width, height: noise(width, height) // 128 * 255,
    "chess": lambda width, height: np.repeat((np.indices((height, width)).sum(axis=0) % 2 * 255)[..., None], 3, 2),
    "stripes": lambda width, height: np.broadcast_to((np.arange(width) % 2 * 255)[None, :, None], (height, width, 3)),
    "ramp": lambda width, height: np.broadcast_to((np.arange(width) % 256)[None, :, None], (height, width, 3)),
    "white": lambda width, height: np.full((height, width, 3), 255),
}


def pillow(pixels: np.ndarray, size: tuple[int, int], crop: tuple[int, int, int, int], resample: Any) -> np.ndarray:
    """Pillow's two passes, the width first."""
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((size[0], image.height), resample).resize(size, resample).crop(crop))


def ours(pixels: np.ndarray, size: tuple[int, int], crop: tuple[int, int, int, int], resample: Any) -> np.ndarray:
    columns = axis(pixels.shape[1], size[0], crop[0], crop[2], resample)
    rows = axis(pixels.shape[0], size[1], crop[1], crop[3], resample)
    return resize_products(pixels, columns, rows)


def drawn(name: str, width: int, height: int) -> np.ndarray:
    return np.ascontiguousarray(PICTURES[name](width, height), dtype=np.uint8)


@pytest.mark.parametrize("resample", [BICUBIC, BILINEAR])
def test_random_sizes_and_crops(resample: Image.Resampling) -> None:
    """Made smaller and larger along each axis, with crops anywhere."""
    rng = np.random.default_rng(3)
    for _ in range(250):
        width, height, *size = (int(v) for v in rng.integers(1, 260, 4))
        left, top = (int(rng.integers(0, side)) for side in size)
        right, bottom = (int(rng.integers(low + 1, side + 1)) for low, side in zip((left, top), size, strict=True))
        what = str(rng.choice(list(PICTURES)))
        crop, pixels = (left, top, right, bottom), drawn(what, width, height)
        expected = pillow(pixels, (size[0], size[1]), crop, resample)
        assert np.array_equal(ours(pixels, (size[0], size[1]), crop, resample), expected), (what, width, height, size)


@pytest.mark.parametrize("what", PICTURES)
@pytest.mark.parametrize("size", [(512, 384), (480, 320), (500, 375), (640, 480), (901, 677)])
@pytest.mark.parametrize("few", [0.0, 1.0])
def test_however_many_values_lie_between_two_bytes(
    what: str, size: tuple[int, int], few: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each in integers, or the strip in float64: at ratios of 2, sums of drawn pictures are halves exactly."""
    monkeypatch.setattr(products, "_FEW", few)
    place = geometry(size, pixel_spec(160, 160))
    pixels = drawn(what, *size)
    expected = pillow(pixels, place.size, place.crop, BICUBIC)
    assert np.array_equal(ours(pixels, place.size, place.crop, BICUBIC), expected)


def test_float32_alone_would_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """The doubt is what makes the bytes Pillow's: without it halves go to the even byte."""
    pixels = drawn("black and white", 512, 384)
    place = geometry((512, 384), pixel_spec(96, 96))
    columns = axis(512, place.size[0], place.crop[0], place.crop[2], BICUBIC)
    rows = axis(384, place.size[1], place.crop[1], place.crop[3], BICUBIC)
    assert columns.doubt > 0
    assert np.array_equal(resize_products(pixels, columns, rows), pillow(pixels, place.size, place.crop, BICUBIC))

    monkeypatch.setattr(products.np, "flatnonzero", lambda _: np.empty(0, np.intp))
    stripes = drawn("stripes", 512, 384) // 255
    left = resize_products(stripes, axis(512, 256, 0, 256, BILINEAR), axis(384, 192, 0, 192, BILINEAR))
    assert not np.array_equal(left, pillow(stripes, (256, 192), (0, 0, 256, 192), BILINEAR))


@pytest.mark.parametrize("size", [(1920, 1080), (1080, 1920), (1600, 1200), (1366, 768), (1919, 1079), (2048, 1365)])
@pytest.mark.parametrize("side", [224, 240, 288])
def test_large_pictures(size: tuple[int, int], side: int) -> None:
    image = Image.fromarray(noise(*size, seed=side))
    place = geometry(size, pixel_spec(side, side))
    whole = image.resize(place.size, BICUBIC).crop(place.crop)
    assert resize_crop(image, place, BICUBIC).tobytes() == whole.tobytes()


def test_sums_of_a_size_stay_within_their_doubt() -> None:
    """float32 sums beside integer ones, over every output of a full HD picture's lines."""
    along = axis(1920, 398, 87, 311, BICUBIC)
    pixels = noise(1920, 64)[:, :, 0][:, slice(*along.used)]
    exact = (pixels[:, along.taps].astype(np.int64) * along.values).sum(axis=2) / (1 << 22)
    for block in along.blocks:
        found = pixels[:, block.first : block.last].astype(np.float32) @ block.weights
        assert np.abs(found - exact[:, block.start : block.stop]).max() < along.doubt / 2


@pytest.mark.parametrize("source", [300, 640, 1080, 1920, 4000, 12000])
def test_a_product_is_small_enough_for_one_thread(source: int) -> None:
    along = axis(source, 224, 0, 224, BICUBIC)
    largest = max(block.weights.size for block in along.blocks)
    assert along.lines * largest <= products._PRODUCT
    assert (along.lines + 1) * largest > products._PRODUCT


def test_what_pays() -> None:
    crop = (224, 224)
    assert pays(FULL_HD, (398, 224), crop, BICUBIC)
    assert pays((1080, 1920), (224, 398), crop, BICUBIC)
    assert not pays(FULL_HD, (398, 224), crop, BILINEAR)
    assert not pays(FULL_HD, (398, 224), (398, 224), BICUBIC)
    assert not pays((640, 480), (298, 224), crop, BICUBIC)
    assert not pays(FULL_HD, (910, 512), (512, 512), BICUBIC)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes that products were asked for."""
    seen: list[tuple[int, ...]] = []

    def counted(pixels: Any, *rest: Any) -> Any:
        seen.append(pixels.shape)
        return resize_products(pixels, *rest)

    resize._products_hold()  # asks for a product itself, once
    monkeypatch.setattr(resize, "resize_products", counted)
    return seen


def is_exact(image: Image.Image, resample: Image.Resampling = BICUBIC) -> bool:
    place = geometry(image.size, pixel_spec(224, 224))
    whole = image.resize(place.size, resample).crop(place.crop)
    part = resize_crop(image, place, resample)
    return (part.mode, part.size, part.tobytes()) == (whole.mode, whole.size, whole.tobytes())


def test_a_camera_picture_goes_this_way(calls: list[tuple[int, ...]]) -> None:
    if not hasattr(Image.Image, "__arrow_c_array__"):
        pytest.skip(f"Pillow {features.version('pil')} does not lend its pixels; 11.2 and later do")
    image = Image.fromarray(noise(*FULL_HD))
    assert is_exact(image)
    assert calls == [(1080, 1920, 4)]


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "YCbCr", "RGBX"])
def test_other_modes_do_not(mode: str, calls: list[tuple[int, ...]]) -> None:
    assert is_exact(Image.fromarray(noise(*FULL_HD)).convert(mode))
    assert calls == []


def test_all_is_pillows_where_it_does_not_lend_its_pixels(
    calls: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resize, "lent_pixels", lambda image: None)
    assert is_exact(Image.fromarray(noise(*FULL_HD)))
    assert calls == []


def test_all_is_pillows_where_its_bytes_would_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Pillow that resizes otherwise, or a numpy whose sums are less exact, is found out on a small picture."""
    resize._products_hold.cache_clear()
    try:
        with monkeypatch.context() as patched:
            patched.setattr(resize, "resize_products", lambda pixels, *_: np.zeros((14, 23, 3), np.uint8))
            assert not resize._products_hold()
            assert is_exact(Image.fromarray(noise(*FULL_HD)))
    finally:
        resize._products_hold.cache_clear()
    assert resize._products_hold()


def test_one_large_picture_is_shared_by_the_threads_that_wait(tmp_path: Path) -> None:
    """Whole to the byte, from one thread or three, whether they are free, busy or gone."""
    file = tmp_path / "picture.png"
    Image.fromarray(noise(*FULL_HD)).save(file, compress_level=1)
    expected = ImageProcessor(pixel_spec(224, 224), workers=1)([file])
    process = ImageProcessor(pixel_spec(224, 224), workers=3)
    assert np.array_equal(process([file]), expected)
    gate = Event()
    busy = [process.pool.submit(gate.wait) for _ in range(3)]
    assert np.array_equal(process([file]), expected)
    assert not any(future.done() for future in busy)
    gate.set()
    process.close()
    assert np.array_equal(process([file]), expected)


def test_what_one_of_the_threads_raises_comes_out() -> None:
    pool, here = Pool(2, "test"), get_ident()
    met = Barrier(2)

    def fails_elsewhere() -> None:
        met.wait(10)  # so that each thread has one
        if get_ident() != here:
            raise MemoryError("no memory for a strip")

    with pytest.raises(MemoryError, match="strip"):
        pool.side_by_side([fails_elsewhere, fails_elsewhere])
    pool.close()


def test_from_many_threads_at_once() -> None:
    pictures = [Image.fromarray(noise(*FULL_HD, seed=seed)) for seed in range(3)]
    place = geometry(FULL_HD, pixel_spec(224, 224))
    expected = [image.resize(place.size, BICUBIC).crop(place.crop).tobytes() for image in pictures]
    axis.cache_clear()
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda turn: resize_crop(pictures[turn % 3], place, BICUBIC).tobytes(), range(18)))
    assert found == expected * 6
