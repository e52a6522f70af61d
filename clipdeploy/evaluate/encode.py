"""Pictures and texts of a dataset to embeddings: by the bundle on one backend in one precision, or by PyTorch."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from clipdeploy.errors import ImageError
from clipdeploy.evaluate.metrics import Rows
from clipdeploy.evaluate.records import Dataset, Item
from clipdeploy.progress import Progress
from clipdeploy.runtime.clip import Clip
from clipdeploy.runtime.labels import check_labels
from clipdeploy.runtime.text_bank import check_lengths, embed_labels
from clipdeploy.spec import Tower

if TYPE_CHECKING:
    from clipdeploy.evaluate.crops import Crops
    from clipdeploy.export.checkpoint import Checkpoint

PYTORCH = "PyTorch"
_TEXTS_AT_ONCE = 256

Encode = Callable[[Sequence[str]], Rows]


@dataclass(frozen=True, eq=False)
class Encoded:
    """A dataset as one pair sees it.

    Attributes:
        backend, precision: what ran.
        reason: what the runtime says of it.
        images: (N, D) float32, L2-normalised, a row an item.
        texts: (K, D) float32, L2-normalised, a row a class or a caption.
        seconds: of both.
    """

    backend: str
    precision: str
    reason: str
    images: Rows
    texts: Rows
    seconds: float

    @property
    def name(self) -> str:
        """Such as `openvino int8`."""
        return f"{self.backend} {self.precision}"


def encode_pair(
    clip: Clip,
    crops: Crops,
    dataset: Dataset,
    templates: tuple[str, ...],
    *,
    batch_size: int,
    instead: Encoded | None,
    progress: Progress,
) -> Encoded:
    """A dataset as a loaded bundle sees it.

    Args:
        clip: loaded with the backend and precision.
        crops: of the dataset's pictures.
        dataset: its classes or captions.
        templates: of classes.
        batch_size: pictures, and texts, of one run.
        instead: whose texts are taken where the backend has no text encoder; None for nobody's.
        progress: told of texts and pictures.
    """
    name = f"{clip.backend.name} {clip.precision.value}"
    progress(f"{name}: texts", 0, 0)
    started = time.perf_counter()
    texts, told = _texts(clip, dataset, templates, batch_size, instead)
    images = np.empty((len(dataset.items), clip.spec.embed_dim), np.float32)
    for rows, pixels in crops.batches(batch_size):
        images[rows] = clip.encode_pixels(pixels, batch_size=batch_size)
        progress(f"{name}: pictures", int(np.max(rows)) + 1, len(images))
    seconds = time.perf_counter() - started
    reason = "; ".join([clip.backend.reason, *told])
    return Encoded(clip.backend.name, clip.precision.value, reason, images, texts, seconds)


def encode_checkpoint(
    checkpoint: Checkpoint, dataset: Dataset, templates: tuple[str, ...], *, batch_size: int, progress: Progress
) -> Encoded:
    """A dataset as the checkpoint's own library sees it: its transform, its tokenizer, its encoders, in float32."""
    progress(f"{PYTORCH}: texts", 0, 0)
    started = time.perf_counter()

    def encode(texts: Sequence[str]) -> Rows:
        return checkpoint.reference_text_embeds(checkpoint.reference_tokens(texts))

    texts = _class_rows(dataset, templates, encode) if dataset.classes else _in_parts(dataset.captions, encode)
    images = np.empty((len(dataset.items), checkpoint.spec.embed_dim), np.float32)
    for first in range(0, len(images), batch_size):
        items = dataset.items[first : first + batch_size]
        pixels = np.stack([checkpoint.reference_pixels(_opened(item)) for item in items])
        images[first : first + len(items)] = checkpoint.reference_image_embeds(pixels)
        progress(f"{PYTORCH}: pictures", first + len(items), len(images))
    seconds = time.perf_counter() - started
    return Encoded(PYTORCH, "fp32", f"{checkpoint.source} on the CPU", images, texts, seconds)


def _texts(
    clip: Clip, dataset: Dataset, templates: tuple[str, ...], batch_size: int, instead: Encoded | None
) -> tuple[Rows, tuple[str, ...]]:
    """The rows of classes or captions, and what is not plain about them.

    A bundle's banks are asked only where it has no text encoder: their rows may be of another precision.
    """
    if Tower.TEXT in clip.unbuilt and instead is not None:
        return instead.texts, (f"texts by {instead.name}: no engine of the text encoder is built",)
    if Tower.TEXT not in clip.graphs:
        if not dataset.classes:
            return clip.encode_text(dataset.captions), ("texts from the bundle's bank",)
        unique = check_labels(tuple(dict.fromkeys(dataset.classes)))
        return _spread(dataset.classes, unique, clip.encode_labels(unique, templates)), (
            "texts from the bundle's bank",
        )

    def encode(texts: Sequence[str]) -> Rows:
        return clip.encode_text(texts, batch_size=batch_size)

    if not dataset.classes:
        return _in_parts(dataset.captions, encode), ()

    def check(texts: Sequence[str]) -> None:
        check_lengths(texts, lambda: clip.tokenizer, clip.spec.tokens.context_length)

    return _class_rows(dataset, templates, encode, check), ()


def _class_rows(
    dataset: Dataset, templates: tuple[str, ...], encode: Encode, check: Callable[[Sequence[str]], None] | None = None
) -> Rows:
    """(K, D) float32: the mean over the templates, normalised. Classes of one name share a row."""
    unique = check_labels(tuple(dict.fromkeys(dataset.classes)))
    return _spread(dataset.classes, unique, embed_labels(unique, templates, encode, check))


def _spread(classes: Sequence[str], unique: Sequence[str], rows: Rows) -> Rows:
    index = {name: row for row, name in enumerate(unique)}
    return rows[[index[name] for name in classes]]


def _in_parts(texts: Sequence[str], encode: Encode) -> Rows:
    parts = [encode(texts[first : first + _TEXTS_AT_ONCE]) for first in range(0, len(texts), _TEXTS_AT_ONCE)]
    return np.concatenate(parts)


def _opened(item: Item) -> Image.Image:
    """The picture in its own mode, as the checkpoint's transform takes it; raises ImageError."""
    source = item.open()
    try:
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"PyTorch cannot read picture {item.name}: {error}", fix="repair or remove it") from error
    return image
