"""How pictures are prepared: the family, the crop, the colours, the statistics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from clipdeploy.errors import ImageError
from clipdeploy.export.openclip import preprocessing
from clipdeploy.export.preflight.probe import Probe
from clipdeploy.findings import Finding
from clipdeploy.runtime.image import ImageProcessor
from clipdeploy.spec import PixelSpec

RESIZE, CROP, COLOURS, STATISTICS = "resize", "crop rounding", "colour modes", "channel statistics"

_NEAR = 2e-3
_MODES = ("RGBA", "LA", "P", "CMYK", "1")
_NEWER = "install the versions of Pillow, torchvision and transformers that pip install 'clipdeploy[export]' asks for"


def resize(probe: Probe) -> Finding:
    """Squash or crop, filter and statistics: compared with what the published models of the family were trained on."""
    pixels = probe.spec.pixels
    doubt = _doubt(probe, pixels)
    if doubt is not None:
        what, family = doubt
        return Finding(
            RESIZE,
            "note",
            f"{_say(pixels)}, as stated; but {what}",
            f"if it was trained so: --preprocessing {family}, or edit {probe.pixel_file}"
            if not probe.transformers
            else f"if it was trained so, edit {probe.pixel_file}",
        )
    family = next((name for name in preprocessing.FAMILIES if _is(pixels, name)), "no family's")
    return Finding(RESIZE, "good", f"{_say(pixels)} ({family} preprocessing)")


def _doubt(probe: Probe, pixels: PixelSpec) -> tuple[str, str] | None:
    """What speaks against the stated preprocessing, and the family that would be expected."""
    half = _close(pixels.mean, (0.5,) * 3)
    if probe.spec.probability == "sigmoid" and (pixels.resize != "squash" or not half):
        return "models with a sigmoid (SigLIP) are trained on squashed pictures with mean and std 0.5", "siglip"
    if probe.spec.image.architecture == "FastViT" and _is(pixels, "openai"):
        return "MobileCLIP's FastViT is trained on mean 0 and std 1, bilinear", "mobileclip"
    openai = preprocessing.FAMILIES["openai"]
    plain = probe.spec.text.architecture == "Transformer" and _close(pixels.mean, openai["mean"])
    if plain and pixels.resize == "squash":
        return "models with OpenAI's mean and std are trained on cropped pictures", "openai"
    return None


def crop_rounding(probe: Probe) -> Finding:
    """Which way an odd margin falls: the runtime's crop is compared with the checkpoint's own, pixel by pixel."""
    pixels = probe.spec.pixels
    if pixels.resize == "squash":
        return Finding(CROP, "good", "nothing is cropped")
    w, h = pixels.width, pixels.height
    pictures = [_noise(w + 3, h), _noise(w, h + 3), _noise(3 * w + 7, 2 * h + 1), _noise(w // 2 + 1, w)]
    other = replace(pixels, crop_rounding="floor" if pixels.crop_rounding == "round" else "round")
    if _agree(probe, pixels, pictures):
        rule = "rounded to the even pixel, as torchvision does" if pixels.crop_rounding == "round" else "floored"
        return Finding(CROP, "good", f"odd margins are {rule}; the runtime's crop is the checkpoint's own")
    turned = _agree(probe, other, pictures)
    why = f"its own transform cuts odd margins by {other.crop_rounding}" if turned else "the crops differ"
    return Finding(CROP, "bad", f"the runtime would cut by {pixels.crop_rounding}, but {why}", _NEWER)


def colour_modes(probe: Probe) -> Finding:
    """Transparency, palettes, CMYK: the runtime's pixels are compared with the checkpoint's own."""
    side = max(probe.spec.pixels.width, probe.spec.pixels.height) + 8
    rule = {
        "after_resize": "converted behind the resize, alpha dropped",
        "before_resize": "converted before the resize, alpha dropped",
        "on_white": "converted before the resize, transparency laid on white",
    }[probe.spec.pixels.rgb]
    wrong = [
        mode for mode in _MODES if not _agree(probe, probe.spec.pixels, [_noise(side, side + 8, alpha=True, mode=mode)])
    ]
    if wrong:
        return Finding(
            COLOURS,
            "bad",
            f"pictures of mode {', '.join(wrong)} become other pixels in the runtime ({rule}) than in the checkpoint's "
            "own transform",
            _NEWER,
        )
    return Finding(COLOURS, "good", f'{rule}; frames of OpenCV are BGR: give the runtime color="bgr"')


def channel_statistics(probe: Probe) -> Finding:
    """Mean and std in the order BGR, or of values 0..255."""
    mean, std = probe.spec.pixels.mean, probe.spec.pixels.std
    stated = f"mean {_numbers(mean)}, std {_numbers(std)}"
    if max(mean) > 1.0 or max(std) > 1.0:
        scaled = f"{_numbers(tuple(m / 255 for m in mean))} and {_numbers(tuple(s / 255 for s in std))}"
        return Finding(
            STATISTICS,
            "bad",
            f"{stated} are of values 0..255; the pixels they apply to lie in 0..1",
            f"divide them by 255 in {probe.pixel_file}: {scaled}",
        )
    for family in ("openai", "clipa"):
        known = preprocessing.FAMILIES[family]
        for name, ours, right in (("mean", mean, known["mean"]), ("std", std, known["std"])):
            if _close(ours, right[::-1]) and not _close(ours, right):
                return Finding(
                    STATISTICS,
                    "bad",
                    f"{stated}: the {name} is that of {'OpenAI' if family == 'openai' else 'ImageNet'} in the order "
                    "BGR; pictures here are RGB",
                    f"turn the order round in {probe.pixel_file}: {name} {_numbers(tuple(right))}",
                )
    if min(mean) < 0.0:
        return Finding(
            STATISTICS,
            "note",
            f"{stated}: means below 0 are of no picture",
            f"check {probe.pixel_file}: values of 0..1",
        )
    return Finding(STATISTICS, "good", f"{stated}, RGB, of values 0..1")


def _agree(probe: Probe, pixels: PixelSpec, pictures: list[Image.Image]) -> bool:
    processor = ImageProcessor(pixels, workers=1)
    try:
        return all(np.array_equal(processor.crop(one), probe.checkpoint.reference_crop(one)) for one in pictures)
    except ImageError:
        return False


def _noise(width: int, height: int, *, alpha: bool = False, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 4 if alpha else 3), dtype=np.uint8)
    picture = Image.fromarray(values)
    if mode in ("P", "CMYK", "1"):
        picture = picture.convert("RGB")
    return picture if mode == picture.mode else picture.convert(mode)


def _is(pixels: PixelSpec, family: str) -> bool:
    known = preprocessing.FAMILIES[family]
    return (
        (pixels.resize, pixels.interpolation) == (known["resize_mode"], known["interpolation"])
        and _close(pixels.mean, known["mean"])
        and _close(pixels.std, known["std"])
    )


def _close(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(abs(a - b) < _NEAR for a, b in zip(one, other, strict=True))


def _say(pixels: PixelSpec) -> str:
    how = "shortest side scaled, centre cropped" if pixels.resize == "shortest" else "squashed"
    return f"{how}, {pixels.interpolation}, mean {_numbers(pixels.mean)}"


def _numbers(values: tuple[float, ...]) -> str:
    return "/".join(f"{value:.3g}" for value in values)
