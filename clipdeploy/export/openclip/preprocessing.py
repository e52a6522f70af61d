"""How a checkpoint wants its pictures: from its own configuration, checked against the transform open_clip makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import open_clip
import torch
from open_clip.transform import MaybeConvertMode, MaybeToTensor, PreprocessCfg, ResizeKeepRatio, image_transform_v2
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, Normalize, Resize

from clipdeploy.errors import CheckpointError, InputError
from clipdeploy.spec import PixelSpec

Transform = Callable[[Image.Image], torch.Tensor]

_STATED = ("mean", "std", "interpolation", "resize_mode")
_KNOWN = (*_STATED, "size", "mode", "fill_color")

FAMILIES: dict[str, dict[str, Any]] = {
    "openai": {
        "mean": open_clip.OPENAI_DATASET_MEAN,
        "std": open_clip.OPENAI_DATASET_STD,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
    "siglip": {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic", "resize_mode": "squash"},
    "clipa": {
        "mean": open_clip.constants.IMAGENET_MEAN,
        "std": open_clip.constants.IMAGENET_STD,
        "interpolation": "bilinear",
        "resize_mode": "squash",
    },
    "mobileclip": {"mean": (0.0,) * 3, "std": (1.0,) * 3, "interpolation": "bilinear", "resize_mode": "shortest"},
    "pe": {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear", "resize_mode": "squash"},
}
"""The preprocessings that published CLIPs use, for weights that come without a configuration."""


def family(name: str) -> dict[str, Any]:
    """The preprocessing of that name in FAMILIES; raises CheckpointError with the names there are."""
    if name not in FAMILIES:
        raise CheckpointError(f"unknown preprocessing {name!r}", fix=f"choose one of {', '.join(FAMILIES)}")
    return dict(FAMILIES[name])


def of_architecture(architecture: str) -> dict[str, Any] | None:
    """The preprocessing that all published weights of an architecture share; None when there is no such one."""
    base = architecture.removesuffix("-quickgelu")
    configs = [
        open_clip.get_pretrained_cfg(name, tag)
        for name in (base, f"{base}-quickgelu")
        for tag in open_clip.list_pretrained_tags_by_model(name)
    ]
    found = {tuple(_stated(config).items()) for config in configs}
    return dict(found.pop()) if len(found) == 1 else None


def of_config(stated: object, *, label: str) -> dict[str, Any] | None:
    """`preprocess_cfg` of an open_clip_config.json, checked; None when the file has none.

    Files written before open_clip had a choice of `interpolation` and `resize_mode` state neither: theirs is
    bicubic on the shortest side, by the format. Mean and std have no such default here.
    """
    if stated is None:
        return None
    if not isinstance(stated, Mapping):
        raise _bad(label, f"is {type(stated).__name__}, expected an object")
    unknown = sorted(set(stated) - set(_KNOWN))
    if unknown:
        raise _bad(label, f"asks for {', '.join(unknown)}, which is not known", "remove it if it has no effect")
    lacking = [key for key in ("mean", "std") if stated.get(key) is None]
    if lacking:
        raise _bad(
            label,
            f"does not state {' and '.join(lacking)}",
            f"state what the checkpoint was trained with, or remove preprocess_cfg and name the family with "
            f"--preprocessing, one of {', '.join(FAMILIES)}",
        )
    return {"interpolation": "bicubic", "resize_mode": "shortest", **{k: v for k, v in stated.items() if v is not None}}


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two preprocessings make the same pixels."""
    return _stated(one) == _stated(other)


def pixel_spec(config: Mapping[str, Any], *, image_size: Any, label: str) -> PixelSpec:
    """The checked record of a preprocessing.

    Args:
        config: as `family`, `of_architecture` or `of_config` give it.
        image_size: of the image tower, in px: a number or (height, width).
        label: the checkpoint, for messages.

    Raises:
        CheckpointError: something is not implemented, or two places disagree.
    """
    height, width = _pair(image_size, label)
    if config.get("size") is not None and _pair(config["size"], label) != (height, width):
        raise _bad(label, f"has size {config['size']}, but the image tower takes {height}x{width} px")
    if config.get("mode", "RGB") != "RGB":
        raise _bad(label, f"has mode {config['mode']!r}, expected RGB")
    resize, interpolation = config["resize_mode"], config["interpolation"]
    if resize not in ("shortest", "squash"):
        raise _bad(label, f"has resize_mode {resize!r}, which is not implemented; there are shortest and squash")
    if interpolation not in ("bicubic", "bilinear"):
        hint = "; open_clip itself answers random with bicubic" if interpolation == "random" else ""
        raise _bad(label, f"has interpolation {interpolation!r}, expected bicubic or bilinear{hint}")
    if resize == "shortest" and height != width and interpolation != "bicubic":
        raise _bad(
            label,
            f"crops {height}x{width} px with interpolation {interpolation!r}, where open_clip itself takes bicubic",
            'set "interpolation": "bicubic", or "resize_mode": "squash" if that is how it was trained',
        )
    try:
        return PixelSpec(height, width, resize, interpolation, _three(config["mean"]), _three(config["std"]))
    except (InputError, TypeError, ValueError) as error:
        raise _bad(label, f"has a wrong mean or std: {error}") from error


def make_transform(spec: PixelSpec, *, label: str) -> Any:
    """open_clip's own transform for `spec`, checked step by step to do what the record says.

    Returns:
        A torchvision Compose: PIL picture to `(3, height, width) float32`, RGB, normalised.
    """
    config = PreprocessCfg(
        size=(spec.height, spec.width),
        mean=spec.mean,
        std=spec.std,
        interpolation=spec.interpolation,
        resize_mode=spec.resize,
    )
    transform = image_transform_v2(config, is_train=False)
    if _steps(transform) != _expected_steps(spec):
        raise CheckpointError(
            f"{label}: open_clip {open_clip.__version__} prepares pictures in other steps than known: {transform}",
            fix="install a version of open-clip-torch that this clipdeploy was tested with (3.x)",
        )
    return transform


def _steps(transform: Any) -> list[tuple[Any, ...]]:
    """Type and settings of every step of a Compose."""
    settings: dict[type, Callable[[Any], tuple[Any, ...]]] = {
        Resize: lambda s: (s.size, s.interpolation, s.max_size, s.antialias),
        ResizeKeepRatio: lambda s: (
            tuple(s.size),
            s.interpolation,
            s.longest,
            s.random_scale_prob,
            s.random_aspect_prob,
        ),
        CenterCrop: lambda s: (tuple(s.size),),
        MaybeConvertMode: lambda s: (s.mode,),
        MaybeToTensor: lambda s: (),
        Normalize: lambda s: (tuple(s.mean), tuple(s.std)),
    }
    return [(type(s), *settings.get(type(s), lambda s: (repr(s),))(s)) for s in transform.transforms]


def _expected_steps(spec: PixelSpec) -> list[tuple[Any, ...]]:
    size = (spec.height, spec.width)
    mode = InterpolationMode(spec.interpolation)
    resize: list[tuple[Any, ...]] = [(Resize, size, mode, None, True)]
    if spec.resize == "shortest" and spec.height == spec.width:
        resize = [(Resize, spec.height, mode, None, True), (CenterCrop, size)]
    elif spec.resize == "shortest":
        resize = [(ResizeKeepRatio, size, mode, 0.0, 0.0, 0.0), (CenterCrop, size)]
    return [*resize, (MaybeConvertMode, "RGB"), (MaybeToTensor,), (Normalize, spec.mean, spec.std)]


def _stated(config: Mapping[str, Any]) -> dict[str, Any]:
    plain = {key: config[key] for key in _STATED}
    return {key: tuple(value) if isinstance(value, (list, tuple)) else value for key, value in plain.items()}


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)


def _pair(size: Any, label: str) -> tuple[int, int]:
    both = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, Sequence) else ()
    if len(both) != 2 or not all(isinstance(side, int) for side in both):
        raise _bad(label, f"has size {size!r}, expected one number or [height, width]")
    return both[0], both[1]


def _bad(label: str, what: str, how: str = "state what the checkpoint was trained with") -> CheckpointError:
    return CheckpointError(
        f"{label}: preprocess_cfg {what}", fix=f"edit preprocess_cfg in the checkpoint's open_clip_config.json: {how}"
    )
