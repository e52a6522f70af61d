"""Pictures of any kind -> `(N, 3, H, W)` float32, exactly as the checkpoint's own transform makes them.

Two libraries, two orders. open_clip resizes and crops in the picture's own mode (palettes and 1-bit pictures by
nearest neighbour, as Pillow does) and makes the rest RGB. transformers makes RGB first, and from its version 5 on lays
what is transparent on white. `PixelSpec.rgb` says which. Neither applies an EXIF orientation; for pictures that need
it, pass `PIL.ImageOps.exif_transpose(image)`.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from clipdeploy.errors import ImageError, InputError
from clipdeploy.runtime.pool import Pool, results
from clipdeploy.runtime.resize import geometry, resize_crop
from clipdeploy.spec import PixelSpec

ImageLike: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | NDArray[Any]"
"""A path, the bytes of an image file, a PIL image, or an array: (H, W, 3), (H, W, 4) or (H, W) uint8."""

_RESAMPLE = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
# A resized picture beyond this many px (4 GiB) comes of an extreme aspect ratio, and no machine is the better for it.
_MAX_RESIZED_PX = 1 << 30
# What Pillow's decoders raise on files that are not what they seem.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    EOFError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
)


class ImageProcessor:
    """Makes pictures into the pixels that the image tower was trained on. Safe to share between threads.

    Args:
        spec: size, resize rule and normalisation of the checkpoint.
        workers: threads that open and crop pictures, of all calls together; None takes one a core.

    Attributes:
        pool: these threads; made when several pictures are asked for at once, and kept until `close`.
    """

    def __init__(self, spec: PixelSpec, *, workers: int | None = None) -> None:
        self.spec = spec
        self.workers = workers or os.cpu_count() or 1
        self.pool = Pool(self.workers, "clipdeploy-picture")
        self._table = _normalisation_table(spec)

    def crop(self, image: ImageLike, *, color: str = "rgb", alone: bool = False) -> NDArray[np.uint8]:
        """One picture after resize and crop: `(H, W, 3)` uint8, RGB.

        Bit-identical to the checkpoint's transform: torchvision's PIL path, or transformers' PIL processors.

        Args:
            image: the picture.
            color: the order of an array's channels, `rgb` or `bgr`.
            alone: that no other picture is worked on, so that threads that wait may take part of a large one.

        Raises:
            ImageError: the picture cannot be read, or has an impossible shape or type.
        """
        opened = open_image(image, color=color)
        place = geometry(opened.size, self.spec)
        if place.size[0] * place.size[1] > _MAX_RESIZED_PX:
            raise ImageError(
                f"{describe(image)} is {opened.width}x{opened.height} px: too long and thin, its shortest side "
                f"scaled to the model's {self.spec.width}x{self.spec.height} makes {place.size[0]}x{place.size[1]} px",
                fix="crop the picture first",
            )
        try:
            ready = opened if self.spec.rgb == "after_resize" else _RGB_FIRST[self.spec.rgb](opened)
            side_by_side = self.pool.side_by_side if alone and self.workers > 1 else None
            cropped = _to_rgb(resize_crop(ready, place, _RESAMPLE[self.spec.interpolation], side_by_side))
        except (ValueError, OSError, MemoryError) as error:
            raise ImageError(
                f"{describe(image)} (mode {opened.mode}, {opened.width}x{opened.height} px) cannot be resized: {error}",
                fix='convert it first, such as image.convert("RGB")',
            ) from error
        return np.asarray(cropped)

    def normalize(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """`(N, H, W, 3)` uint8 -> `(N, 3, H, W)` float32: `(value / 255 - mean) / std`, rounded as PyTorch rounds."""
        expected = (self.spec.height, self.spec.width, 3)
        if not isinstance(crops, np.ndarray) or crops.dtype != np.uint8 or crops.shape[1:] != expected:
            given = f"{crops.dtype} {crops.shape}" if isinstance(crops, np.ndarray) else type(crops).__name__
            raise ImageError(f"crops must be uint8 of shape (N, {expected[0]}, {expected[1]}, 3), got {given}")
        pixels = np.empty((len(crops), 3, *expected[:2]), dtype=np.float32)
        for crop, planes in zip(crops, pixels, strict=True):
            self.normalize_into(crop, planes)
        return pixels

    def normalize_into(self, crop: NDArray[np.uint8], planes: NDArray[np.float32]) -> None:
        """One `(H, W, 3)` uint8 crop into its place of a batch, `(3, H, W)` float32; as `normalize`."""
        for channel, plane in enumerate(planes):
            # A byte is never out of range; `clip` only spares numpy a buffer.
            np.take(self._table[channel], crop[:, :, channel], out=plane, mode="clip")

    def __call__(self, images: Sequence[ImageLike], *, color: str = "rgb", first: int = 0) -> NDArray[np.float32]:
        """Pictures -> `(N, 3, H, W)` float32, RGB, normalised; several are opened at once.

        Args:
            images: N pictures.
            color: the order of an array's channels, `rgb` or `bgr`.
            first: the index of `images[0]` among all pictures, for messages.
        """
        pixels = np.empty((len(images), 3, self.spec.height, self.spec.width), dtype=np.float32)

        def place(row: int) -> None:
            try:
                crop = self.crop(images[row], color=color, alone=len(images) == 1)
                self.normalize_into(crop, pixels[row])
            except ImageError as error:
                if first + len(images) == 1 or isinstance(images[row], (str, os.PathLike)):
                    raise
                raise named(error, images[row], first + row) from error

        rows = range(len(images))
        if len(images) <= 1 or self.workers == 1:
            for row in rows:
                place(row)
        else:
            results([self.pool.submit(place, row) for row in rows])
        return pixels

    def close(self) -> None:
        """Give the threads back; one picture at a time can still be read."""
        self.pool.close()


def named(error: ImageError, image: object, index: int) -> ImageError:
    """The error of one picture of many, which says which: by its path, or by its index."""
    if isinstance(image, (str, os.PathLike)):
        return error
    return ImageError(f"picture {index}: {error.message}", fix=error.fix)


def is_single(images: object) -> bool:
    """Whether `images` is one picture rather than many; an array of four axes is many."""
    if isinstance(images, np.ndarray):
        return images.ndim < 4
    return isinstance(images, (str, os.PathLike, bytes, bytearray, memoryview, Image.Image))


def open_image(image: ImageLike, *, color: str = "rgb") -> Image.Image:
    """A picture of any accepted kind, decoded, in its own mode.

    Args:
        image: path, bytes of an image file, PIL image or array; see `ImageLike`.
        color: the order of an array's channels, `rgb` or `bgr`; says nothing of files and PIL images.

    Raises:
        ImageError: naming the picture and what is wrong with it.
    """
    check_color(color)
    if isinstance(image, np.ndarray):
        return _from_array(image, color)
    if isinstance(image, Image.Image):
        opened = _decode(lambda: image, describe(image))
    elif isinstance(image, (bytes, bytearray, memoryview)):
        opened = _from_bytes(bytes(image))
    elif isinstance(image, (str, os.PathLike)):
        opened = _from_file(image)
    else:
        raise ImageError(
            f"a picture cannot be made from {type(image).__module__}.{type(image).__qualname__}; "
            "expected a path, bytes of an image file, a PIL image, or an ndarray of (H, W, 3) uint8",
            fix="pass np.asarray(image) if it holds uint8 values, or pixels ready for the model to encode_pixels",
        )
    if not (opened.width and opened.height):
        raise ImageError(f"{describe(image)} is empty: {opened.width}x{opened.height} px")
    return opened


def check_color(color: str) -> None:
    """Raise InputError unless `color` is an order of channels."""
    if color not in ("rgb", "bgr"):
        raise InputError(f'unknown color order {color!r}; expected "rgb" or "bgr"')


def describe(image: object) -> str:
    """What to call a picture in a message."""
    if isinstance(image, np.ndarray):
        return f"array {image.dtype} {image.shape}"
    if isinstance(image, (bytes, bytearray, memoryview)):
        return f"picture of {len(image)} bytes"
    if isinstance(image, Image.Image):
        return str(getattr(image, "filename", "")) or "PIL image"
    return str(image)


def _from_file(path: str | os.PathLike[str]) -> Image.Image:
    file = Path(path)
    if str(path).startswith(("http://", "https://")):
        raise ImageError(f"{path} is a web address; clipdeploy reads files", fix="download it and pass its path")
    if file.is_dir():
        raise ImageError(f"{path or '(an empty path)'} is a folder, not an image file", fix="pass the files in it")
    if not file.exists():
        raise ImageError(f"{path} does not exist", fix="check the path; it is read relative to " + str(Path.cwd()))
    try:
        with file.open("rb") as stream:
            if not stream.read(1):
                raise ImageError(f"{path} is empty (0 bytes)", fix="write or download the file again")
            stream.seek(0)
            return _decode(lambda: Image.open(stream), str(path))
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}") from error


def _from_bytes(data: bytes) -> Image.Image:
    if not data:
        raise ImageError("the bytes of a picture are empty (0 bytes)", fix="pass the whole content of an image file")
    return _decode(lambda: Image.open(io.BytesIO(data)), describe(data))


def _decode(source: Callable[[], Image.Image], name: str) -> Image.Image:
    """Open and load, with Pillow's many errors made into one that names the picture."""
    try:
        opened = source()
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and opened.width * opened.height > limit:
            raise _too_large(name, f"{opened.width}x{opened.height} px")
        opened.load()
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name} is not an image that Pillow can read", fix="pass an image file, such as JPEG, PNG or WebP"
        ) from error
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name, "far too many px") from error
    except _DECODE_ERRORS as error:
        raise ImageError(f"{name} is broken or truncated: {error}", fix="copy or download the file again") from error
    return opened


def _too_large(name: str, size: str) -> ImageError:
    return ImageError(
        f"{name} is too large: {size}, and Pillow takes files beyond {Image.MAX_IMAGE_PIXELS} px "
        "for decompression bombs",
        fix="if you trust the file, raise the limit: PIL.Image.MAX_IMAGE_PIXELS = 500_000_000",
    )


def _from_array(array: NDArray[Any], color: str) -> Image.Image:
    """An `(H, W, 3)`, `(H, W, 4)` or `(H, W)` uint8 array as a PIL image that shares or copies its memory."""
    hint = _array_fault(array)
    if hint is not None:
        raise ImageError(
            f"an array of {array.dtype} {array.shape} is no picture; "
            "expected uint8 of shape (H, W, 3), (H, W, 4) or (H, W) with values 0..255",
            fix=hint,
        )
    mode, raw = _ARRAY_MODES[array.shape[2] if array.ndim == 3 else 1, color]
    height, width = array.shape[:2]
    return Image.frombuffer(mode, (width, height), np.ascontiguousarray(array), "raw", raw, 0, 1)


# (channels, order) -> Pillow's mode, and how its raw decoder calls the layout.
_ARRAY_MODES = {
    (1, "rgb"): ("L", "L"),
    (1, "bgr"): ("L", "L"),
    (3, "rgb"): ("RGB", "RGB"),
    (3, "bgr"): ("RGB", "BGR"),
    (4, "rgb"): ("RGBA", "RGBA"),
    (4, "bgr"): ("RGBA", "BGRA"),
}


def _array_fault(array: NDArray[Any]) -> str | None:
    """How to mend an array that is no picture, None when it is one."""
    shape = array.shape
    if 0 in shape:
        return "pass a frame that has pixels; was the camera read successful?"
    if array.dtype.kind == "f":
        return "pass (image * 255).round().astype(np.uint8) for values 0..1, or normalised pixels to encode_pixels"
    if array.dtype != np.uint8:
        return "scale the values to 0..255 and pass image.astype(np.uint8)"
    if array.ndim == 2 or (array.ndim == 3 and shape[2] in (3, 4)):
        return None
    if array.ndim == 3 and shape[0] in (1, 3, 4):
        return "channels come last: pass image.transpose(1, 2, 0)"
    if array.ndim == 3 and shape[2] == 1:
        return "pass image[:, :, 0] for a grey picture"
    if array.ndim == 4:
        return "pass one frame, frames[0], where one picture is expected"
    return "pass one frame of height, width and colour channels"


def _to_rgb(image: Image.Image) -> Image.Image:
    """`convert("RGB")`, without Pillow's warning that transparency is lost; alpha is dropped, RGB is not copied."""
    if image.mode == "RGB":
        return image
    if image.mode == "P" and "transparency" in image.info:
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """RGB, with what is transparent laid on white; a picture without transparency is only converted."""
    if "A" not in image.getbands() and image.info.get("transparency") is None:
        return _to_rgb(image)
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


# How a picture becomes RGB before it is resized, by `PixelSpec.rgb`.
_RGB_FIRST: dict[str, Callable[[Image.Image], Image.Image]] = {"before_resize": _to_rgb, "on_white": _on_white}


def _normalisation_table(spec: PixelSpec) -> NDArray[np.float32]:
    """The normalised value of each byte, (3, 256) float32, in the order and precision of ToTensor and Normalize.

    transformers scales by 1 / 255 in float64 and rounds then, which for no byte gives another float32.
    """
    unit = np.arange(256, dtype=np.float32) / np.float32(255)
    mean, std = np.asarray(spec.mean, dtype=np.float32), np.asarray(spec.std, dtype=np.float32)
    table: NDArray[np.float32] = (unit - mean[:, None]) / std[:, None]
    return table
