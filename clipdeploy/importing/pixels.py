"""How a folder wants its pictures, read from what open_clip or transformers wrote beside the graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clipdeploy.errors import CheckpointError, InputError
from clipdeploy.importing.records import PixelFacts
from clipdeploy.spec import PixelSpec

_OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_UNIT = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
_FLAG = "say it with --preprocessing FAMILY, and --image-size where the graph leaves it open"

FAMILIES = {
    "openai": PixelFacts("--preprocessing openai", None, "shortest", "bicubic", *_OPENAI),
    "siglip": PixelFacts("--preprocessing siglip", None, "squash", "bicubic", *_HALF),
    "clipa": PixelFacts("--preprocessing clipa", None, "squash", "bilinear", *_IMAGENET),
    "mobileclip": PixelFacts("--preprocessing mobileclip", None, "shortest", "bilinear", *_UNIT),
    "pe": PixelFacts("--preprocessing pe", None, "squash", "bilinear", *_HALF),
}
"""The preprocessings that published CLIPs use, as open_clip does them."""

# Pillow's numbers of its filters, which transformers writes.
_RESAMPLE = {2: "bilinear", 3: "bicubic"}


def of_family(name: str) -> PixelFacts:
    """The preprocessing of that name; raises CheckpointError with the names there are."""
    if name not in FAMILIES:
        raise CheckpointError(f"unknown preprocessing {name!r}", fix=f"choose one of {', '.join(FAMILIES)}")
    return FAMILIES[name]


def of_open_clip(config: Mapping[str, Any], where: Path) -> PixelFacts | None:
    """open_clip's `preprocess_cfg`; None for an empty one. Older files state no filter and no resize rule: theirs
    are bicubic and the shortest side, by the format."""
    if not config:
        return None
    _refuse_bgr(config.get("mode", "RGB") != "RGB", f"mode {config.get('mode')!r}", where)
    resize: Any = config.get("resize_mode") or "shortest"
    interpolation: Any = config.get("interpolation") or "bicubic"
    _one_of(resize, ("shortest", "squash"), "resize_mode", where)
    _one_of(interpolation, ("bicubic", "bilinear"), "interpolation", where)
    return PixelFacts(
        str(where),
        None if config.get("size") is None else _pair(config["size"], where),
        resize,
        interpolation,
        _three(config, "mean", where),
        _three(config, "std", where),
    )


def of_transformers(config: Mapping[str, Any], where: Path) -> PixelFacts | None:
    """transformers' `preprocessor_config.json`; None for an empty one.

    Its crop floors where an odd margin is cut, and its pictures become RGB before they are resized.
    """
    if not config:
        return None
    _refuse_bgr(bool(config.get("do_flip_channel_order")), "do_flip_channel_order", where)
    if config.get("do_resize", True) is not True:
        raise _bad(where, "does not resize pictures", "set do_resize to true, or " + _FLAG)
    if config.get("do_rescale", True) is not True or abs(config.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        raise _bad(where, "does not scale bytes to 0..1", "set do_rescale to true and rescale_factor to 1/255")
    interpolation: Any = _RESAMPLE.get(config.get("resample", -1))
    if interpolation is None:
        raise _bad(where, f"has resample {config.get('resample')!r}, expected 3 (bicubic) or 2 (bilinear)", _FLAG)
    size, squash = _transformers_size(config, where)
    normalised = config.get("do_normalize", True)
    return PixelFacts(
        str(where),
        size,
        "squash" if squash else "shortest",
        interpolation,
        _three(config, "image_mean", where) if normalised else _UNIT[0],
        _three(config, "image_std", where) if normalised else _UNIT[1],
        crop_rounding="floor",
        rgb="before_resize",
    )


def pixel_spec(
    facts: PixelFacts | None, graph: tuple[int | None, int | None], given: tuple[int, int] | None
) -> PixelSpec:
    """The record of a preprocessing.

    Args:
        facts: what was stated.
        graph: height and width in px of the graph's input, None where it leaves them open.
        given: (height, width) of the user's.

    Raises:
        CheckpointError: nothing states it, or graph and configuration disagree.
    """
    if facts is None:
        raise CheckpointError("nothing states how pictures were prepared", fix=_FLAG)
    fixed = (graph[0], graph[1]) if graph[0] and graph[1] else None
    sizes = {"--image-size": given, facts.where: facts.size, "the image graph": fixed}
    known = {where: size for where, size in sizes.items() if size is not None}
    if not known:
        raise CheckpointError("nothing states the picture size: the graph takes any", fix="say it with --image-size")
    if fixed is not None and any(size != fixed for size in known.values()):
        said = ", ".join(f"{where} {size[0]}x{size[1]}" for where, size in known.items())
        raise CheckpointError(f"the picture size is not one: {said} px", fix="use the preprocessing of these graphs")
    height, width = next(iter(known.values()))
    if facts.resize == "shortest" and height != width and facts.crop_rounding == "floor":
        raise CheckpointError(
            f"{facts.where} scales the shortest side to a picture of {height}x{width} px; only squares are known",
            fix="use --preprocessing of a family that squashes, if that is how it was trained",
        )
    try:
        return PixelSpec(
            height, width, facts.resize, facts.interpolation, facts.mean, facts.std, facts.crop_rounding, facts.rgb
        )
    except InputError as error:
        raise CheckpointError(f"{facts.where}: {error.message}", fix=_FLAG) from error


def _transformers_size(config: Mapping[str, Any], where: Path) -> tuple[tuple[int, int], bool]:
    """Height and width in px, and whether both sides are scaled."""
    size, crop = config.get("size"), config.get("crop_size")
    cropped = _pair(crop, where) if config.get("do_center_crop") and crop is not None else None
    if isinstance(size, Mapping) and "height" in size:
        both = _pair(size, where)
        if cropped not in (None, both):
            raise _bad(where, f"scales to {both} px and then crops to {cropped}, which is not known", _FLAG)
        return both, True
    short = size.get("shortest_edge") if isinstance(size, Mapping) else size
    if not isinstance(short, int):
        raise _bad(where, f"has size {size!r}, expected shortest_edge, or height and width", _FLAG)
    if cropped is None:
        raise _bad(where, f"scales the shortest side to {short} px but does not crop the centre", _FLAG)
    if cropped != (short, short):
        raise _bad(where, f"scales the shortest side to {short} px and crops {cropped[0]}x{cropped[1]}", _FLAG)
    return cropped, False


def _refuse_bgr(wrong: bool, what: str, where: Path) -> None:
    if wrong:
        raise _bad(where, f"asks for {what}: channels in another order than RGB", "export graphs that take RGB")


def _one_of(value: Any, known: tuple[str, ...], key: str, where: Path) -> None:
    if value not in known:
        raise _bad(where, f"has {key} {value!r}, expected {' or '.join(known)}", _FLAG)


def _three(config: Mapping[str, Any], key: str, where: Path) -> tuple[float, float, float]:
    try:
        red, green, blue = config[key]
        return float(red), float(green), float(blue)
    except (KeyError, TypeError, ValueError):
        raise _bad(where, f"has {key} {config.get(key)!r}, expected three numbers", _FLAG) from None


def _pair(size: Any, where: Path) -> tuple[int, int]:
    if isinstance(size, Mapping):
        size = (size.get("height"), size.get("width"))
    both = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, Sequence) else ()
    if len(both) != 2 or not all(isinstance(side, int) for side in both):
        raise _bad(where, f"has size {size!r}, expected one number or height and width", _FLAG)
    return both[0], both[1]


def _bad(where: Path, what: str, how: str) -> CheckpointError:
    return CheckpointError(f"{where} {what}", fix=how)
