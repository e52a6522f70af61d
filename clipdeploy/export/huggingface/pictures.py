"""How a transformers checkpoint wants its pictures: the picture processor's file, and the library's own processor.

The reference is the processor of each kind that resizes with Pillow, which the published checkpoints were made and used
with (transformers 4 calls it "slow", transformers 5 ends its name with `Pil`). The one that transformers 5 takes by
default resizes with torchvision instead and differs by a level of 255 here and there.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from clipdeploy.errors import CheckpointError, InputError
from clipdeploy.export.huggingface.config import calm, first_line, read_json
from clipdeploy.export.openclip import preprocessing
from clipdeploy.spec import Interpolation, PixelSpec, ResizeMode

PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
_ENDINGS = ("ImageProcessorPil", "ImageProcessorFast", "ImageProcessor", "FeatureExtractor")
_KINDS = {"CLIP": "clip", "Siglip": "siglip", "ChineseCLIP": "chinese_clip", "ViT": "vit", "Bit": "bit"}
_FILTERS: dict[int, Interpolation] = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic"}
# What a file may state besides: names, and settings that do not touch pixels.
_HARMLESS = (
    *("_valid_processor_keys", "processor_class", "data_format", "input_data_format", "device", "return_tensors"),
    *("disable_grouping", "default_to_square", "image_seq_length", "num_channels"),
)
_KNOWN = (
    *("size", "crop_size", "resample", "rescale_factor", "image_mean", "image_std", "do_resize", "do_center_crop"),
    *("do_rescale", "do_normalize", "do_convert_rgb", "image_processor_type", "feature_extractor_type"),
)


@dataclass(frozen=True)
class Pictures:
    """A checkpoint's preprocessing: the record, and the library's own doing of it as `Checkpoint` describes it."""

    spec: PixelSpec
    crop: Callable[[Image.Image], npt.NDArray[np.uint8]]
    transform: Callable[[Image.Image], torch.Tensor]


def read_pictures(folder: Path, family: str | None, *, own_size: int, size: int, label: str) -> Pictures:
    """The preprocessing that `folder` states, or `family` (`--preprocessing`) where it states none.

    Args:
        folder: of the image encoder.
        family: a name in `preprocessing.FAMILIES`, or None.
        own_size: side of the pictures that the checkpoint was trained on, in px.
        size: side of the pictures to make, in px.
        label: the checkpoint, for messages.

    Raises:
        CheckpointError: nothing states it, two places disagree, or it is one that `PixelSpec` cannot say.
    """
    named = _of_family(family, size, label) if family is not None else None
    found = [_of_file(name, stated, own_size, size, label) for name, stated in _stated(folder, label)]
    if not found and named is None:
        raise CheckpointError(
            f"{label}: there is no {PREPROCESSOR}, so nothing states how pictures were prepared",
            fix=f"copy the file from the checkpoint's origin, or name the preprocessing with --preprocessing, one of "
            f"{', '.join(preprocessing.FAMILIES)}",
        )
    if len({_numbers(pictures.spec) for pictures in found}) > 1:
        raise CheckpointError(
            f"{label}: {PREPROCESSOR} and {PROCESSOR} state different preprocessings: {found[0].spec}, {found[1].spec}",
            fix="delete the one that is not the checkpoint's",
        )
    if found and named is not None and _numbers(found[0].spec) != _numbers(named.spec):
        raise CheckpointError(
            f"{label} states another preprocessing than {family!r}: {found[0].spec}", fix="drop --preprocessing"
        )
    return found[0] if found else named  # type: ignore[return-value]


def _stated(folder: Path, label: str) -> list[tuple[str, dict[str, Any]]]:
    """The files that state a picture processor, and what they state."""
    found = []
    for name in (PREPROCESSOR, PROCESSOR):
        if (folder / name).is_file():
            content = read_json(folder / name, label)
            part = content if name == PREPROCESSOR else content.get("image_processor")
            if isinstance(part, dict):
                found.append((name, part))
    return found


def _of_family(family: str, image_size: int, label: str) -> Pictures:
    spec = preprocessing.pixel_spec(preprocessing.family(family), image_size=image_size, label=label)
    transform = preprocessing.make_transform(spec, label=label)

    def crop(image: Image.Image) -> npt.NDArray[np.uint8]:
        for step in transform.transforms[:-2]:  # but for those that make a tensor and normalise
            image = step(image)
        return np.array(image, dtype=np.uint8)

    return Pictures(spec, crop, transform)


def _of_file(name: str, stated: dict[str, Any], own_size: int, size: int, label: str) -> Pictures:
    unknown = [key for key, value in stated.items() if key not in (*_KNOWN, *_HARMLESS) and value]
    if unknown:
        raise _bad(label, name, f"asks for {', '.join(unknown)}, which is not known", "remove it if it has no effect")
    processor = _processor(name, stated, label)
    spec = _spec(processor, name, own_size, label)
    if size != own_size:
        both = {"height": size, "width": size}
        sides = {"shortest_edge": size} if spec.resize == "shortest" else both
        processor = _processor(name, {**stated, "size": sides, "crop_size": both}, label)
        spec = _spec(processor, name, size, label)
    # Pictures of other modes are nothing an encoder of three channels takes, so they become RGB whatever the file says.
    settings = {"do_convert_rgb": True, "return_tensors": "np"}

    def crop(image: Image.Image) -> npt.NDArray[np.uint8]:
        pixels = processor(image, do_rescale=False, do_normalize=False, **settings)["pixel_values"][0]
        return np.ascontiguousarray(np.moveaxis(pixels, 0, -1), dtype=np.uint8)  # (H, W, 3)

    def transform(image: Image.Image) -> torch.Tensor:
        pixels = processor(image, **settings)["pixel_values"][0]
        return torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float32))  # (3, H, W)

    clear = crop(Image.new("RGBA", (size, size)))  # transformers 5 lays what is transparent on white
    return Pictures(replace(spec, rgb="on_white" if clear.all() else "before_resize"), crop, transform)


def _processor(name: str, stated: dict[str, Any], label: str) -> Any:
    """The library's own processor, with the file's settings and its own defaults for the others."""
    kind = str(stated.get("image_processor_type") or stated.get("feature_extractor_type"))
    base = next((kind[: -len(ending)] for ending in _ENDINGS if kind.endswith(ending)), "")
    if base not in _KINDS:
        raise _bad(
            label,
            name,
            f"is of a {kind}, which is not supported",
            f"set image_processor_type to one of {', '.join(f'{known}ImageProcessor' for known in _KINDS)} if that is "
            "what the checkpoint was trained with",
        )
    package = f"transformers.models.{_KINDS[base]}"
    settings = {key: value for key, value in stated.items() if key in _KNOWN and not key.endswith("_type")}
    try:
        with calm():
            try:
                module = importlib.import_module(f"{package}.image_processing_pil_{_KINDS[base]}")
                maker = getattr(module, f"{base}ImageProcessorPil")
            except ModuleNotFoundError:  # transformers 4
                module = importlib.import_module(f"{package}.image_processing_{_KINDS[base]}")
                maker = getattr(module, f"{base}ImageProcessor")
            return maker(**settings)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise _bad(label, name, f"is nothing that {kind} takes: {first_line(error)}") from error


def _spec(processor: Any, name: str, image_size: int, label: str) -> PixelSpec:
    """The record of a processor; raises CheckpointError where `PixelSpec` cannot say what it does."""

    def setting(key: str) -> Any:
        return getattr(processor, key, None)

    if not setting("do_resize"):
        raise _bad(label, name, "has do_resize false, but the image encoder takes one size only")
    factor = setting("rescale_factor")
    if not setting("do_rescale") or not math.isclose(factor, 1 / 255, rel_tol=1e-6):
        raise _bad(label, name, f"rescales by {factor if setting('do_rescale') else 1}, expected 1/255")
    if setting("resample") not in _FILTERS:
        raise _bad(label, name, f"has resample {setting('resample')}, expected 2 (bilinear) or 3 (bicubic)")
    height, width, resize = _resize(processor, name, label)
    if (height, width) != (image_size, image_size):
        raise _bad(label, name, f"makes pictures of {height}x{width} px, but the image encoder takes {image_size}")
    mean, std = (setting("image_mean"), setting("image_std")) if setting("do_normalize") else ((0.0,) * 3, (1.0,) * 3)
    try:
        return PixelSpec(
            height=height,
            width=width,
            resize=resize,
            interpolation=_FILTERS[setting("resample")],
            mean=_three(mean),
            std=_three(std),
            crop_rounding="floor",
        )
    except (InputError, TypeError, ValueError) as error:
        raise _bad(label, name, f"has a wrong image_mean or image_std: {error}") from error


def _resize(processor: Any, name: str, label: str) -> tuple[int, int, ResizeMode]:
    """Height and width of the pictures, and how they get it."""
    size = {key: value for key, value in dict(processor.size).items() if value is not None}
    cropped = getattr(processor, "do_center_crop", None)
    crop = {key: value for key, value in dict(processor.crop_size or {}).items() if value} if cropped else None
    if size.keys() == {"shortest_edge"}:
        side = int(size["shortest_edge"])
        if crop is None:
            raise _bad(
                label, name, "scales the shortest side and does not crop, so that every picture has its own size"
            )
        if crop != {"height": side, "width": side}:
            raise _bad(
                label,
                name,
                f"scales the shortest side to {side} px and crops {crop}; only a crop of the same size is implemented",
            )
        return side, side, "shortest"
    if size.keys() == {"height", "width"} and crop in (None, size):
        return int(size["height"]), int(size["width"]), "squash"
    raise _bad(label, name, f"has size {size} and crop {crop}, which is not implemented")


def _numbers(spec: PixelSpec) -> tuple[Any, ...]:
    """What a file states of a preprocessing; the rest is the habit of the library that does it."""
    return (spec.height, spec.width, spec.resize, spec.interpolation, spec.mean, spec.std)


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)


def _bad(label: str, name: str, what: str, how: str = "state what the checkpoint was trained with") -> CheckpointError:
    return CheckpointError(f"{label}: {name} {what}", fix=f"edit the checkpoint's {name}: {how}")
