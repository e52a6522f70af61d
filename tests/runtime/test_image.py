"""What counts as a picture, and what every other thing is told."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipdeploy.errors import ImageError, InputError
from clipdeploy.runtime.image import ImageProcessor, is_single, open_image
from tests.bundles import pixel_spec
from tests.runtime.pictures import noise

PROCESSOR = ImageProcessor(pixel_spec())
RGB = noise(50, 40)


def encoded(kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(RGB).save(stream, kind, **options)
    return stream.getvalue()


def test_all_kinds_of_one_picture_give_the_same_crop(tmp_path: Path) -> None:
    data = encoded("png")
    path = tmp_path / "ünï code.png"
    path.write_bytes(data)
    expected = PROCESSOR.crop(Image.fromarray(RGB))
    kinds = [path, str(path), data, bytearray(data), memoryview(data), Image.open(path), RGB, np.asfortranarray(RGB)]
    for kind in [*kinds, np.pad(RGB, ((3, 3), (3, 3), (0, 0)))[3:-3, 3:-3]]:
        assert np.array_equal(PROCESSOR.crop(kind), expected), type(kind)
    assert np.array_equal(PROCESSOR.crop(np.ascontiguousarray(RGB[..., ::-1]), color="bgr"), expected)
    assert np.array_equal(PROCESSOR.crop(RGB[..., ::-1], color="bgr"), expected)


def test_arrays_with_alpha_and_without_color() -> None:
    rgba = noise(50, 40, 4)
    expected = PROCESSOR.crop(Image.fromarray(rgba))
    assert np.array_equal(PROCESSOR.crop(rgba), expected)
    assert np.array_equal(PROCESSOR.crop(rgba[..., [2, 1, 0, 3]], color="bgr"), expected)
    grey = RGB[..., 0]
    crop = PROCESSOR.crop(grey)
    assert np.array_equal(crop, PROCESSOR.crop(np.repeat(grey[..., None], 3, axis=2)))
    assert np.array_equal(crop, PROCESSOR.crop(grey, color="bgr"))


def test_a_crop_is_not_a_window_on_the_callers_array() -> None:
    frame = noise(32, 32).copy()
    crop = PROCESSOR.crop(frame)
    before = crop.copy()
    frame[:] = 0
    assert np.array_equal(crop, before)


def test_many_pictures_keep_their_order(tmp_path: Path) -> None:
    pictures = [noise(40 + i, 40, seed=i) for i in range(9)]
    together = PROCESSOR(pictures)
    assert together.shape == (9, 3, 32, 32)
    assert together.dtype == np.float32
    assert together.flags.c_contiguous
    for pixels, one in zip(together, pictures, strict=True):
        assert np.array_equal(pixels, PROCESSOR([one])[0])
    assert np.array_equal(together, ImageProcessor(pixel_spec(), workers=1)(pictures))
    assert PROCESSOR([]).shape == (0, 3, 32, 32)


def test_palette_with_transparency_passes_without_a_warning_and_untouched() -> None:
    image = Image.fromarray(RGB).convert("P")
    image.info["transparency"] = b"\x00\x80\xff"
    PROCESSOR.crop(image)
    assert image.info["transparency"] == b"\x00\x80\xff"


def test_the_first_frame_of_a_moving_picture_counts(tmp_path: Path) -> None:
    path = tmp_path / "moving.gif"
    frames = [Image.fromarray(noise(40, 40, seed=i)).convert("P") for i in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with Image.open(path) as moving:
        expected = PROCESSOR.crop(moving)
        moving.seek(1)
        assert not np.array_equal(PROCESSOR.crop(moving), expected)
    assert np.array_equal(PROCESSOR.crop(path), expected)


@pytest.mark.parametrize(
    ("array", "hint"),
    [
        (np.zeros((4, 4, 3), np.float32), "astype(np.uint8)"),
        (np.zeros((4, 4), np.float64), "encode_pixels"),
        (np.zeros((4, 4, 3), np.uint16), "0..255"),
        (np.zeros((4, 4, 3), bool), "0..255"),
        (np.zeros((4, 4, 3), np.int64), "0..255"),
        (np.zeros((3, 40, 50), np.uint8), "transpose(1, 2, 0)"),
        (np.zeros((40, 50, 1), np.uint8), "image[:, :, 0]"),
        (np.zeros((40, 50, 2), np.uint8), "height, width and colour"),
        (np.zeros((2, 40, 50, 3), np.uint8), "frames[0]"),
        (np.zeros((7,), np.uint8), "height, width and colour"),
        (np.zeros((0, 5, 3), np.uint8), "camera"),
        (np.zeros((5, 0), np.uint8), "camera"),
    ],
)
def test_an_array_that_is_no_picture(array: np.ndarray, hint: str) -> None:
    with pytest.raises(ImageError) as caught:
        PROCESSOR.crop(array)
    assert f"array of {array.dtype} {array.shape}" in caught.value.message
    assert hint in str(caught.value.fix)


@pytest.mark.parametrize("thing", [None, 3, 2.5, object(), {"a": 1}, [1, 2]])
def test_a_thing_that_is_no_picture(thing: Any) -> None:
    with pytest.raises(ImageError, match=type(thing).__name__) as caught:
        open_image(thing)
    assert "expected a path" in caught.value.message


def test_an_unknown_color_order() -> None:
    with pytest.raises(InputError, match='expected "rgb" or "bgr"'):
        PROCESSOR.crop(RGB, color="gbr")


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def bad_file(kind: str, folder: Path) -> Path:
    """A path of the named fault."""
    jpeg, png = encoded("jpeg"), encoded("png")
    if kind == "missing":
        return folder / "missing.jpg"
    if kind == "folder":
        return folder
    contents = {
        "empty": b"",
        "no image": b"hello, this is text",
        "truncated jpeg": jpeg[: len(jpeg) // 2],
        "truncated png": png[: len(png) // 2],
        "header only": jpeg[:30],
        "broken png": png[:60] + bytes(40) + png[100:],
    }
    return write(folder / (kind.replace(" ", "_") + ".jpg"), contents[kind])


FAULTS = {
    "missing": "does not exist",
    "folder": "is a folder",
    "empty": "is empty",
    "no image": "is not an image",
    "truncated jpeg": "broken or truncated",
    "truncated png": "broken or truncated",
    "header only": "(not an image|broken or truncated)",
    "broken png": "broken or truncated",
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_file_that_is_no_picture_is_named(kind: str, tmp_path: Path) -> None:
    path = bad_file(kind, tmp_path)
    with pytest.raises(ImageError, match=FAULTS[kind]) as caught:
        PROCESSOR.crop(path)
    assert str(path) in caught.value.message
    assert caught.value.fix


@pytest.mark.parametrize("data", [b"", b"no image", encoded("jpeg")[:200]])
def test_bytes_that_are_no_picture(data: bytes) -> None:
    with pytest.raises(ImageError, match="bytes"):
        PROCESSOR.crop(data)


def test_a_web_address() -> None:
    with pytest.raises(ImageError, match="web address"):
        PROCESSOR.crop("https://example.org/dog.jpg")


def test_an_unreadable_file(tmp_path: Path) -> None:
    loop = tmp_path / "loop.jpg"
    loop.symlink_to(loop)
    with pytest.raises(ImageError, match=r"loop\.jpg"):
        PROCESSOR.crop(loop)


def huge_png(width: int, height: int) -> bytes:
    """A PNG that says it is huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [9_999, 20_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb(side: int, tmp_path: Path) -> None:
    path = write(tmp_path / "bomb.png", huge_png(side, side))
    with pytest.raises(ImageError, match="decompression bomb") as caught:
        PROCESSOR.crop(path)
    assert "bomb.png" in caught.value.message
    assert "MAX_IMAGE_PIXELS" in str(caught.value.fix)


def test_a_decompression_bomb_where_warnings_are_errors(tmp_path: Path) -> None:
    path = write(tmp_path / "bomb.png", huge_png(9_999, 9_999))
    with pytest.raises(ImageError, match="decompression bomb"):
        PROCESSOR.crop(path)


def test_a_picture_without_pixels() -> None:
    with pytest.raises(ImageError, match="empty: 0x5 px"):
        PROCESSOR.crop(Image.new("RGB", (0, 5)))


def test_a_picture_too_long_and_thin() -> None:
    with pytest.raises(ImageError, match="too long and thin"):
        ImageProcessor(pixel_spec(224, 224)).crop(np.zeros((1, 60_000), np.uint8))


def test_a_mode_that_cannot_be_resized() -> None:
    with pytest.raises(ImageError, match="mode La"):
        PROCESSOR.crop(Image.new("LA", (40, 50)).convert("La"))


def test_a_picture_in_a_batch_is_named_by_its_index() -> None:
    with pytest.raises(ImageError, match=r"^picture 12: an array of float64"):
        PROCESSOR([RGB, RGB, np.zeros((4, 4))], first=10)


def test_a_file_in_a_batch_is_named_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.jpg does not exist"):
        PROCESSOR([RGB, tmp_path / "gone.jpg"])


@pytest.mark.parametrize(
    "crops",
    [np.zeros((1, 32, 32, 3), np.float32), np.zeros((32, 32, 3), np.uint8), np.zeros((1, 31, 32, 3), np.uint8), None],
)
def test_crops_of_another_kind_are_not_normalised(crops: Any) -> None:
    with pytest.raises(ImageError, match=r"\(N, 32, 32, 3\)"):
        PROCESSOR.normalize(crops)


def test_what_is_one_picture() -> None:
    ones = ["a.jpg", Path("a.jpg"), b"..", Image.new("L", (2, 2)), np.zeros((2, 2)), np.zeros((2, 2, 3))]
    many = [["a.jpg"], (Path("a.jpg"),), np.zeros((1, 2, 2, 3)), iter([]), None]
    assert all(is_single(one) for one in ones)
    assert not any(is_single(one) for one in many)
