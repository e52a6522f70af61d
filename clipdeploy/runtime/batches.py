"""One or many, taken a batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar, cast

from clipdeploy.errors import ImageError, InputError, TextError
from clipdeploy.runtime.image import ImageLike, is_single

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


def batches(items: Iterable[T], size: int) -> Iterator[tuple[int, list[T]]]:
    """Lists of at most `size` items, each with the index of its first; no more is taken than the list holds."""
    check_batch_size(size)
    iterator, start = iter(items), 0
    while batch := list(islice(iterator, size)):
        yield start, batch
        start += len(batch)


def check_batch_size(size: int) -> None:
    """Raise InputError unless `size` is a positive whole number."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise InputError(f"batch_size must be a positive whole number, got {size!r}", fix="pass batch_size=32")
