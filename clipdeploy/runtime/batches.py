"""One or many, taken a batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar, cast

import numpy as np

from clipdeploy.errors import ImageError, InputError, TextError
from clipdeploy.runtime.image import ImageLike, is_single
from clipdeploy.runtime.session import Embeddings

T = TypeVar("T")

BATCH_SIZE = 32


def many_images(images: ImageLike | Iterable[ImageLike]) -> Iterable[ImageLike]:
    """One picture as many; raises ImageError for what is neither."""
    if is_single(images):
        return (cast(ImageLike, images),)
    if isinstance(images, Iterable):
        return cast("Iterable[ImageLike]", images)
    raise ImageError(f"expected a picture or several, got {type(images).__name__}", fix="pass a path, or a list")


def many_texts(texts: str | Sequence[str]) -> Sequence[str]:
    """One text as many; raises TextError for what is neither."""
    if isinstance(texts, str):
        return [texts]
    if isinstance(texts, (bytes, bytearray)) or not isinstance(texts, Sequence):
        raise TextError(f"expected a text or a list of texts, got {type(texts).__name__}", fix="pass a list of texts")
    return texts


def check_texts(texts: Sequence[object]) -> list[str]:
    """The texts as a list; raises TextError where one of them is none."""
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TextError(f"text {index} must be a text, got {type(text).__name__}: {text!r:.60}")
    return cast("list[str]", list(texts))


def batches(items: Iterable[T], size: int) -> Iterator[tuple[int, list[T]]]:
    """Lists of at most `size` items, each with the index of its first; no more is taken than the list holds."""
    check_batch_size(size)
    iterator, start = iter(items), 0
    while batch := list(islice(iterator, size)):
        yield start, batch
        start += len(batch)


def joined(rows: Sequence[Embeddings], columns: int) -> Embeddings:
    """Batches of embeddings as one, (N, columns) float32; none of them make (0, columns)."""
    if len(rows) == 1:
        return rows[0]
    return np.concatenate(rows) if rows else np.empty((0, columns), dtype=np.float32)


def check_batch_size(size: int) -> None:
    """Raise InputError unless `size` is a positive whole number."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise InputError(f"batch_size must be a positive whole number, got {size!r}", fix="pass batch_size=32")


def usual_batch(count: int, batch_size: int) -> int:
    """What engines are to prepare for where `count` inputs come `batch_size` at a time: a full batch, if there is one.

    Any smaller number counts as 1, so that `auto` measures for two sizes, and not for each number of inputs anew.
    """
    check_batch_size(batch_size)
    return batch_size if count >= batch_size else 1
