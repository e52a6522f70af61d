"""Golden samples: a few pictures and texts in the bundle, with what the checkpoint itself made of them.

    golden/golden.json      what there is: names, sizes, hashes, the libraries that made it (`GoldenIndex`)
    golden/golden.npz       crops (K, H, W, 3) uint8; input_ids (T, L) int64;
                            image_embeds (K, D), text_embeds (T, D) float32
    golden/*.png, *.jpg     the pictures

With them a device without PyTorch can verify its bundle. The normalised pixels are not stored: they follow from
the crops, and their hash tells that they follow exactly.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.bundle import Bundle
from clipdeploy.errors import BundleCorruptError, ExportError, ImageError
from clipdeploy.progress import Progress, silent
from clipdeploy.runtime.image import open_image
from clipdeploy.spec import ModelSpec, PixelSpec, from_dict, to_dict
from clipdeploy.verify.measure import normalise
from clipdeploy.verify.pictures import paint_pictures
from clipdeploy.verify.reference import CheckpointReference, Original, Picture

FORMAT = 1
INDEX = "golden/golden.json"
ARRAYS = "golden/golden.npz"

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

_EXPORT_AGAIN = "copy the bundle again, whole, from where it was made, or export the checkpoint again"


@dataclass(frozen=True)
class GoldenPicture:
    """A golden picture: file `name` in golden/, its own size and mode, and the hash of the reference's crop."""

    name: str
    width_px: int
    height_px: int
    mode: str
    crop_sha256: str


@dataclass(frozen=True)
class GoldenText:
    """A golden text and the hash of its (L,) int64 little-endian token ids."""

    text: str
    ids_sha256: str


@dataclass(frozen=True)
class GoldenIndex:
    """The content of golden.json.

    Attributes:
        pixels_sha256: of all (K, 3, H, W) float32 little-endian normalised pixels, as the reference made them.
        embeds_sha256: of the image embeddings' bytes followed by the text embeddings'.
        tools: versions of the libraries that made the samples.
    """

    format: int
    pictures: tuple[GoldenPicture, ...]
    texts: tuple[GoldenText, ...]
    pixels_sha256: str
    embeds_sha256: str
    tools: dict[str, str]


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

    Raises:
        BundleCorruptError: there are none, or what is there is not what was written.
    """
    if INDEX not in bundle.manifest.files:
        raise BundleCorruptError(f"bundle {bundle.folder} holds no golden samples", fix="export the checkpoint again")
    index = _read_index(bundle)
    arrays = _read_arrays(bundle, index)
    pictures = tuple(Picture(note.name, bundle.path(f"golden/{note.name}")) for note in index.pictures)
    pixels = normalise(arrays["crops"], bundle.model.pixels)
    _same(bundle, "the normalised pixels", _sha256(pixels), index.pixels_sha256)
    for note, crop in zip(index.pictures, arrays["crops"], strict=True):
        _same(bundle, f"the crop of {note.name}", _sha256(crop), note.crop_sha256)
    for text, ids in zip(index.texts, arrays["input_ids"], strict=True):
        _same(bundle, f"the token ids of {text.text!r}", _sha256(ids), text.ids_sha256)
    _same(bundle, "the embeddings", _sha256(arrays["image_embeds"], arrays["text_embeds"]), index.embeds_sha256)
    return Golden(
        pictures=pictures, texts=tuple(t.text for t in index.texts), pixels=pixels, tools=index.tools, **arrays
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
            notes.append(GoldenPicture(picture.name, image.width, image.height, image.mode, _sha256(crop)))
    return GoldenIndex(
        format=FORMAT,
        pictures=tuple(notes),
        texts=tuple(GoldenText(t, _sha256(i)) for t, i in zip(reference.texts, reference.tokens, strict=True)),
        pixels_sha256=_sha256(reference.pixels),
        embeds_sha256=_sha256(reference.image_embeds, reference.text_embeds),
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


def _read_index(bundle: Bundle) -> GoldenIndex:
    try:
        index = from_dict(GoldenIndex, json.loads(bundle.path(INDEX).read_text(encoding="utf-8")), where=INDEX)
    except (OSError, ValueError) as error:  # InputError is a ValueError
        raise BundleCorruptError(
            f"bundle {bundle.folder}: {INDEX} cannot be read: {error}", fix=_EXPORT_AGAIN
        ) from error
    if index.format != FORMAT:
        raise BundleCorruptError(
            f"bundle {bundle.folder}: {INDEX} has format {index.format}, expected {FORMAT}",
            fix="export the checkpoint again, or use the clipdeploy that wrote this bundle",
        )
    return index


def _read_arrays(bundle: Bundle, index: GoldenIndex) -> dict[str, NDArray[Any]]:
    """The arrays of golden.npz, of the shapes and dtypes that index and manifest ask for."""
    spec, k, t = bundle.model, len(index.pictures), len(index.texts)
    expected: dict[str, tuple[tuple[int, ...], type]] = {
        "crops": ((k, spec.pixels.height, spec.pixels.width, 3), np.uint8),
        "input_ids": ((t, spec.tokens.context_length), np.int64),
        "image_embeds": ((k, spec.embed_dim), np.float32),
        "text_embeds": ((t, spec.embed_dim), np.float32),
    }
    try:
        with bundle.path(ARRAYS).open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in expected}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BundleCorruptError(
            f"bundle {bundle.folder}: {ARRAYS} cannot be read: {error}", fix=_EXPORT_AGAIN
        ) from error
    for name, (shape, dtype) in expected.items():
        if arrays[name].shape != shape or arrays[name].dtype != dtype:
            raise BundleCorruptError(
                f"bundle {bundle.folder}: {name} in {ARRAYS} is {arrays[name].shape} {arrays[name].dtype}, "
                f"expected {shape} {np.dtype(dtype)}",
                fix=_EXPORT_AGAIN,
            )
    return arrays


def _same(bundle: Bundle, what: str, actual: str, expected: str) -> None:
    if actual != expected:
        raise BundleCorruptError(
            f"bundle {bundle.folder}: golden sample altered: {what} has sha256 {actual[:12]}..., "
            f"expected {expected[:12]}...",
            fix=_EXPORT_AGAIN,
        )


def _sha256(*arrays: NDArray[Any]) -> str:
    """Over the arrays' values in C order, little-endian, so that every machine gets the same."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
