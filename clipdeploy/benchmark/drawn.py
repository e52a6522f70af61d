"""Pictures to measure with: those given, or some that are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from clipdeploy.errors import InputError
from clipdeploy.runtime.image import open_image

DRAWN = 4
SIZE_PX = (1920, 1080)
_QUALITY = 90
_GRAIN = 3.0
_MOST = 256


def pictures_for(given: Sequence[Path], folder: Path) -> tuple[list[Path], str]:
    """The files to measure with, and what they are in words.

    Args:
        given: picture files; of very many, some spread evenly. Empty draws some.
        folder: where to draw.

    Raises:
        ImageError: one of those given cannot be read.
    """
    if not given:
        width, height = SIZE_PX
        return [draw(folder / f"{seed}.jpg", seed) for seed in range(DRAWN)], f"{DRAWN} drawn JPEGs, {width}x{height}"
    spread = np.linspace(0, len(given) - 1, min(_MOST, len(given))).round().astype(int)
    taken = [Path(given[index]).resolve() for index in spread]
    sizes = {open_image(picture).size for picture in taken}
    of = "" if len(taken) == len(given) else f" of {len(given)}"
    what = "x".join(map(str, next(iter(sizes)))) if len(sizes) == 1 else f"of {len(sizes)} sizes"
    return taken, f"{len(taken)}{of} given files, {what}"


def draw(path: Path, seed: int) -> Path:
    """A JPEG of 1920x1080: clouds with a camera's grain, which takes about as long to open as a photograph."""
    rng = np.random.default_rng(seed)
    width, height = SIZE_PX
    clouds = Image.fromarray(rng.integers(0, 256, (height // 60, width // 60, 3), dtype=np.uint8))
    smooth = np.asarray(clouds.resize(SIZE_PX, Image.Resampling.BICUBIC), dtype=np.float32)
    grain = rng.standard_normal((height, width, 1), dtype=np.float32) * _GRAIN
    try:
        Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(path, quality=_QUALITY)
    except OSError as error:
        raise InputError(
            f"no pictures can be drawn: {error.strerror or error}",
            fix="free space for temporary files, or name pictures",
        ) from error
    return path


def repeated(pictures: Sequence[Path], count: int) -> list[str]:
    """Their names, as often as it takes to have `count` of them."""
    return [str(pictures[index % len(pictures)]) for index in range(max(count, len(pictures)))]
