"""Golden samples: a few pictures and texts in the bundle, with what the checkpoint itself made of them.

`clipdeploy.runtime.selftest.golden` says which files they are and reads them; here they are made. With them a device
without PyTorch can verify its bundle. The normalised pixels are not stored: they follow from the crops, and their hash
tells that they follow exactly.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipdeploy.bundle import Bundle
from clipdeploy.errors import ExportError, ImageError
from clipdeploy.progress import Progress, silent
from clipdeploy.runtime.image import open_image
from clipdeploy.runtime.selftest.golden import (
    FORMAT,
    GoldenIndex,
    GoldenPicture,
    GoldenText,
    array_sha256,
    check_same,
    read_samples,
)
from clipdeploy.spec import ModelSpec, PixelSpec, to_dict
from clipdeploy.verify.measure import normalise
from clipdeploy.verify.pictures import paint_pictures
from clipdeploy.verify.reference import CheckpointReference, Original, Picture

GOLDEN_TEXTS: tuple[str, ...] = (
    "a photo of a cat",
    "two dogs running on a beach at sunset",
    "A PHOTO OF A RED DOUBLE-DECKER BUS",
    "rock 'n' roll: 50% off!!! (today only) — don't miss it...",
    "fish &amp; chips &lt;to go&gt;",
    "ein Café in Zürich, größer als früher",
    "東京タワーの夜景 🗼✨",
    "  tabs\tand\nlines   between  ",
    "",
    "7",
    "3.14159 and 1,000,000",
    "a red circle to the left of a blue square",
    "counter-electrophoretically hyper-parametrised antidisestablishmentarianism",
    "an oil painting of ships in a storm",
    "a very long caption that goes on and on " * 12 + "and has to be cut",
    "красный круг слева от синего квадрата",
    "ภาพถ่ายของแมวบนชายหาด กำ",
    "صورة قطة على الشاطئ",
    "समुद्र तट पर एक बिल्ली",
    "Μια γάτα στον ΉΛΙΟΣ, cafe\u0301",
    "snake_case <|endoftext|> </s> [SEP] <end_of_text>",
)
"""Plain, upper case, punctuation, entities, accents, white space, empty, one token, one too long; other scripts, with
letters that lower case and composition change; and special tokens spelled out."""


@dataclass(frozen=True, eq=False)
class Golden:
    """Golden samples, read and checked.

    Attributes:
        pictures: K pictures, where they lie in the bundle.
        texts: T texts.
        crops: (K, H, W, 3) uint8 RGB.
        pixels: (K, 3, H, W) float32 RGB, normalised.
        input_ids: (T, L) int64.
        image_embeds: (K, D) float32, L2-normalised.
        text_embeds: (T, D) float32, L2-normalised.
        tools: versions of the libraries that made them.
    """

    pictures: tuple[Picture, ...]
    texts: tuple[str, ...]
    crops: NDArray[np.uint8]
    pixels: NDArray[np.float32]
    input_ids: NDArray[np.int64]
    image_embeds: NDArray[np.float32]
    text_embeds: NDArray[np.float32]
    tools: dict[str, str]


def write_golden(
    checkpoint: Original,
    bundle: Bundle,
    *,
    images: Sequence[str | Path] | None = None,
    texts: Sequence[str] | None = None,
    seed: int = 0,
    tools: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> None:
    """Paint the golden pictures, run the checkpoint on them, and add all of it to the bundle.

    Args:
        images: pictures of the user's, added (copied as they are) to the painted ones.
        texts: texts of the user's, added to `GOLDEN_TEXTS`.
        seed: of the painted pictures.
        tools: what made the samples, where it is not PyTorch.

    Raises:
        ImageError: a picture of the user's cannot be read.
        ExportError: the checkpoint's normalised pixels do not follow from its crops as the ModelSpec says.
    """
    wanted = tuple(dict.fromkeys((*GOLDEN_TEXTS, *(texts or ()))))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = [*_save_painted(checkpoint.spec.pixels, folder, seed), *_copy_users(images or (), folder)]
        reference = CheckpointReference(checkpoint, pictures, wanted)
        progress("golden samples", 0, 2)
        index = _index(reference, checkpoint.spec, tools or reference.tools)
        progress("golden samples", 1, 2)
        np.savez_compressed(
            folder / "golden.npz",
            crops=reference.crops,
            input_ids=reference.tokens,
            image_embeds=reference.image_embeds,
            text_embeds=reference.text_embeds,
        )
        dump = json.dumps(to_dict(index), indent=2, ensure_ascii=False) + "\n"
        (folder / "golden.json").write_text(dump, encoding="utf-8")
        origin = f"golden samples of {checkpoint.source}"
        for file in (*(picture.name for picture in pictures), "golden.npz", "golden.json"):
            bundle.add(f"golden/{file}", folder / file, kind="golden", origin=origin)
        progress("golden samples", 2, 2)


def read_golden(bundle: Bundle) -> Golden:
    """The bundle's golden samples; every hash, shape and dtype is checked.

    The pixels are normalised here, apart from the runtime, whose own normalisation is held against them.

    Raises:
        BundleCorruptError: there are none, or what is there is not what was written.
    """
    samples = read_samples(bundle)
    index = samples.index
    pixels = normalise(samples.crops, bundle.model.pixels)
    check_same(bundle, "the normalised pixels", array_sha256(pixels), index.pixels_sha256)
    return Golden(
        pictures=tuple(Picture(note.name, bundle.path(f"golden/{note.name}")) for note in index.pictures),
        texts=tuple(note.text for note in index.texts),
        crops=samples.crops,
        pixels=pixels,
        input_ids=samples.input_ids,
        image_embeds=samples.image_embeds,
        text_embeds=samples.text_embeds,
        tools=index.tools,
    )


def load_pictures(paths: Sequence[str | Path]) -> tuple[Picture, ...]:
    """Picture files of the user's as samples to verify with; each keeps its file name, made unique by its folder.

    Raises:
        ImageError: a file that the runtime cannot read; it is named.
    """
    files = [Path(path) for path in paths]
    for file in files:
        open_image(file, color="rgb")
    names = [file.name for file in files]
    return tuple(Picture(f.name if names.count(f.name) == 1 else str(f), f) for f in files)


def _index(reference: CheckpointReference, spec: ModelSpec, tools: Mapping[str, str]) -> GoldenIndex:
    """What golden.json says of the reference's samples."""
    if not np.array_equal(normalise(reference.crops, spec.pixels), reference.pixels):
        raise ExportError(
            f"the normalised pixels of {spec.name} are not its crops less mean {spec.pixels.mean} over std "
            f"{spec.pixels.std}: the checkpoint's own transform does something that the bundle cannot describe",
            fix="use a checkpoint whose transform is resize, crop, scale to 0..1, normalise",
        )
    notes = []
    for picture, crop in zip(reference.pictures, reference.crops, strict=True):
        with picture.open() as image:
            notes.append(GoldenPicture(picture.name, image.width, image.height, image.mode, array_sha256(crop)))
    return GoldenIndex(
        format=FORMAT,
        pictures=tuple(notes),
        texts=tuple(GoldenText(t, array_sha256(i)) for t, i in zip(reference.texts, reference.tokens, strict=True)),
        pixels_sha256=array_sha256(reference.pixels),
        embeds_sha256=array_sha256(reference.image_embeds, reference.text_embeds),
        tools=dict(tools),
    )


def _save_painted(spec: PixelSpec, folder: Path, seed: int) -> list[Picture]:
    pictures = []
    for painting in paint_pictures(spec, seed=seed):
        picture = Picture(painting.name, folder / painting.name)
        painting.image.save(picture.path, optimize=True, quality=88)  # PNG takes no note of quality
        pictures.append(picture)
    return pictures


def _copy_users(images: Sequence[str | Path], folder: Path) -> list[Picture]:
    pictures = []
    for number, path in enumerate(picture.path for picture in load_pictures(images)):
        stem = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in path.stem)[:40]
        suffix = "".join(c for c in path.suffix.lower() if c.isascii() and (c.isalnum() or c == "."))
        name = f"user-{number:02d}-{stem}{suffix}"
        try:
            (folder / name).write_bytes(path.read_bytes())
        except OSError as error:
            raise ImageError(f"cannot read {path}: {error}", fix="name a picture file that exists") from error
        pictures.append(Picture(name, folder / name))
    return pictures
