"""The golden samples of a bundle, read: a few pictures and texts, and what the checkpoint itself made of them.

golden/golden.json      what there is: names, sizes, hashes, the libraries that made it (`GoldenIndex`)
golden/golden.npz       crops (K, H, W, 3) uint8; input_ids (T, L) int64;
                        image_embeds (K, D), text_embeds (T, D) float32
golden/*.png, *.jpg     the pictures
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.bundle import Bundle
from clipdeploy.errors import BundleCorruptError
from clipdeploy.spec import from_dict

FORMAT = 1
INDEX = "golden/golden.json"
ARRAYS = "golden/golden.npz"
BAKED_INDEX, BAKED_ARRAYS = "golden/baked.json", "golden/baked.npz"
"""Those of a baked bundle; see `clipdeploy.runtime.selftest.baked`."""
GOLDEN = (INDEX, ARRAYS, BAKED_INDEX, BAKED_ARRAYS)

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
class GoldenSamples:
    """Golden samples, read and checked.

    Attributes:
        index: what they are.
        crops: (K, H, W, 3) uint8 RGB.
        input_ids: (T, L) int64.
        image_embeds: (K, D) float32, L2-normalised.
        text_embeds: (T, D) float32, L2-normalised.
    """

    index: GoldenIndex
    crops: NDArray[np.uint8]
    input_ids: NDArray[np.int64]
    image_embeds: NDArray[np.float32]
    text_embeds: NDArray[np.float32]


def has_samples(bundle: Bundle) -> bool:
    """Whether the bundle holds golden samples."""
    return (INDEX if bundle.manifest.baked is None else BAKED_INDEX) in bundle.manifest.files


def read_samples(bundle: Bundle) -> GoldenSamples:
    """The bundle's golden samples; every hash, shape and dtype of what is stored is checked.

    Raises:
        BundleCorruptError: there are none, or what is there is not what was written.
    """
    if INDEX not in bundle.manifest.files:
        raise BundleCorruptError(f"bundle {bundle.folder} holds no golden samples", fix="export the checkpoint again")
    index = _read_index(bundle)
    arrays = _read_arrays(bundle, index)
    for note, crop in zip(index.pictures, arrays["crops"], strict=True):
        check_same(bundle, f"the crop of {note.name}", array_sha256(crop), note.crop_sha256)
    for text, ids in zip(index.texts, arrays["input_ids"], strict=True):
        check_same(bundle, f"the token ids of {text.text!r}", array_sha256(ids), text.ids_sha256)
    embeds = array_sha256(arrays["image_embeds"], arrays["text_embeds"])
    check_same(bundle, "the embeddings", embeds, index.embeds_sha256)
    return GoldenSamples(index=index, **arrays)


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


def check_same(bundle: Bundle, what: str, actual: str, expected: str) -> None:
    """Raise BundleCorruptError unless what is there has the hash of what was written."""
    if actual != expected:
        raise BundleCorruptError(
            f"bundle {bundle.folder}: golden sample altered: {what} has sha256 {actual[:12]}..., "
            f"expected {expected[:12]}...",
            fix=_EXPORT_AGAIN,
        )


def array_sha256(*arrays: NDArray[Any]) -> str:
    """Over the arrays' values in C order, little-endian, so that every machine gets the same."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
