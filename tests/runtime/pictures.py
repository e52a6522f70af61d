"""Seeded pictures of any mode and size, and what open_clip's and transformers' own code makes of them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from PIL import Image

from clipdeploy.spec import PixelSpec
from tests.bundles import pixel_spec

MODES = (
    "RGB", "L", "LA", "P", "P+transparency", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "1", "I;16", "I", "F",
)  # fmt: skip


def noise(width: int, height: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """(height, width, channels) uint8: noise, the hardest picture to resize alike."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def picture(mode: str, width: int, height: int, seed: int = 0) -> Image.Image:
    """A noisy picture of a Pillow mode."""
    values = noise(width, height, 4, seed)
    grey = values[..., 0]
    if mode == "I;16":
        return Image.fromarray(grey.astype(np.uint16) * 257)
    if mode == "I":
        return Image.fromarray(grey.astype(np.int32) * 3 - 100)
    if mode == "F":
        return Image.fromarray(grey.astype(np.float32) * 1.5 - 40)
    if mode == "RGBA":
        return Image.fromarray(values)
    rgb = Image.fromarray(values[..., :3].copy())
    if mode == "LAB":
        return Image.merge("LAB", rgb.split())
    if mode == "P+transparency":
        palette = rgb.convert("P")
        palette.info["transparency"] = bytes(range(200))
        return palette
    return rgb.convert(mode)


def own_transform(spec: PixelSpec) -> list[Any]:
    """The steps of open_clip's evaluation transform for `spec`; the last two make floats."""
    from open_clip.transform import image_transform

    transform = image_transform(
        (spec.height, spec.width),
        is_train=False,
        mean=spec.mean,
        std=spec.std,
        resize_mode=spec.resize,
        interpolation=spec.interpolation,
    )
    return list(transform.transforms)


def own_crop(image: Image.Image, spec: PixelSpec) -> np.ndarray:
    """open_clip's crop of a picture, (H, W, 3) uint8."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Palette images with Transparency")
        for step in own_transform(spec)[:-2]:
            image = step(image)
    return np.asarray(image)


def own_processor(spec: PixelSpec) -> Any:
    """The picture processor of transformers for `spec`: CLIP's where it crops, SigLIP's where it squashes."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    size = {"height": spec.height, "width": spec.width}
    settings: dict[str, Any] = {
        "resample": {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[spec.interpolation],
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
        "do_convert_rgb": True,
    }
    if spec.resize == "squash":
        return SiglipImageProcessorPil(size=size, **settings)
    return CLIPImageProcessorPil(size={"shortest_edge": spec.height}, crop_size=size, **settings)


def processed(image: Image.Image, spec: PixelSpec, *, floats: bool = True) -> np.ndarray:
    """What transformers makes of a picture: `(3, H, W) float32`, or the `(H, W, 3) uint8` crop before the floats."""
    if floats:
        return np.asarray(own_processor(spec)(image, return_tensors="np")["pixel_values"][0])
    crop = own_processor(spec)(image, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
    return np.moveaxis(np.asarray(crop), 0, -1).astype(np.uint8)


def random_spec(rng: np.random.Generator) -> PixelSpec:
    """A size and resize rule such as checkpoints have, squares mostly."""
    side = int(rng.choice([32, 48, 64, 112, 224]))
    if rng.random() < 0.25:
        # open_clip resizes to oblong sizes by bicubic, whatever it is asked for.
        return pixel_spec(side, int(rng.integers(16, 130)))
    resize = str(rng.choice(["shortest", "shortest", "squash"]))
    return pixel_spec(side, side, resize=resize, interpolation=str(rng.choice(["bicubic", "bilinear"])))


def random_size(rng: np.random.Generator, spec: PixelSpec) -> tuple[int, int]:
    """(width, height): any, one pixel thin, one pixel beside a square, or of the crop's own ratio."""
    kind = rng.integers(6)
    long = int(rng.integers(1, 250))
    if kind == 0:
        return 1, long
    if kind == 1:
        return long, 1
    if kind == 2:
        return long, long + int(rng.integers(0, 2))
    if kind == 3:
        return spec.width * int(rng.integers(1, 4)), spec.height * int(rng.integers(1, 4))
    return int(rng.integers(2, 500)), int(rng.integers(2, 500))
