"""Any number of pictures to embeddings, one result a picture, in order.

`ahead.py` reads the pictures on a few threads while the encoder runs, which it does in the thread that asks for the
results.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import ImageError, InputError
from clipdeploy.runtime.ahead import Crops, PathOf, crops_ahead
from clipdeploy.runtime.batches import BATCH_SIZE, check_batch_size, many_images
from clipdeploy.runtime.image import ImageLike, ImageProcessor, is_single

Errors: TypeAlias = Literal["raise", "report"]
"""What becomes of a picture that cannot be read: an ImageError, or a result that says so."""

Encode: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""(N, 3, H, W) float32 pixels -> (N, D) float32 embeddings."""

T = TypeVar("T")


@dataclass(frozen=True)
class EmbeddedBatch:
    """One batch of results; as `Crops`, with (n, D) float32 embeddings of `rows` in place of their pixels."""

    first: int
    sources: tuple[PathOf, ...]
    rows: tuple[int, ...]
    embeddings: NDArray[np.float32]
    faults: dict[int, ImageError]

    def in_order(self, values: Iterable[T]) -> Iterator[tuple[int, PathOf, T | None, ImageError | None]]:
        """Index, source, value and error of every picture of the batch; `values` has one for each of `rows`."""
        value_of = dict(zip(self.rows, values, strict=True))
        for index in sorted((*self.rows, *self.faults)):
            yield index, self.sources[index - self.first], value_of.get(index), self.faults.get(index)


@dataclass(frozen=True)
class Embedded:
    """What became of one picture of many.

    Attributes:
        index: its place among all, from 0.
        source: its path, as given; None for a picture that was in memory.
        embedding: (D,) float32, L2-normalised; None when the picture could not be read.
        error: why it could not.
    """

    index: int
    source: PathOf
    embedding: NDArray[np.float32] | None
    error: ImageError | None = None


def embed_batches(
    encode: Encode,
    processor: ImageProcessor,
    images: Iterable[ImageLike],
    *,
    color: str = "rgb",
    batch_size: int = BATCH_SIZE,
    errors: Errors = "raise",
) -> Generator[EmbeddedBatch, None, None]:
    """`embed_many` by whole batches, for those who go on with arrays."""
    check_errors(errors)
    if is_single(images):
        raise ImageError("expected any number of pictures, got one", fix="put it into a list, or use encode_image")
    return _embedded(encode, crops_ahead(processor, many_images(images), color=color, batch_size=batch_size), errors)


def embed_many(
    encode: Encode,
    processor: ImageProcessor,
    images: Iterable[ImageLike],
    *,
    color: str = "rgb",
    batch_size: int = BATCH_SIZE,
    errors: Errors = "raise",
) -> Generator[Embedded, None, None]:
    """Any number of pictures to embeddings, one result a picture, in order.

    Args:
        encode: the encoder; called in the caller's thread, with `batch_size` pictures at most.
        processor: of the model, as in `Clip.images`.
        images: any iterable of pictures; taken lazily, so that it may be endless.
        color: the order of an array's channels, `rgb` or `bgr`.
        batch_size: pictures in one run of the encoder.
        errors: what becomes of a picture that cannot be read. `raise`: an ImageError that names it, after the results
            of those before it. `report`: a result with the error, and on with the next.

    Raises:
        ImageError: at once, when `images` is one picture or none.
        InputError: at once, when another argument is wrong.
    """
    batches = embed_batches(encode, processor, images, color=color, batch_size=batch_size, errors=errors)
    return one_by_one(batches)


def embed_all(
    encode: Encode,
    processor: ImageProcessor,
    images: ImageLike | Iterable[ImageLike],
    *,
    color: str = "rgb",
    batch_size: int = BATCH_SIZE,
) -> NDArray[np.float32]:
    """One picture or many -> (N, D) float32, in order; (1, D) for one, which no other thread is woken for
    unless it is large.

    Raises:
        ImageError: a picture cannot be read; it is named.
    """
    check_batch_size(batch_size)
    if is_single(images):
        return encode(processor([cast(ImageLike, images)], color=color))
    many = many_images(images)
    with closing(embed_batches(encode, processor, many, color=color, batch_size=batch_size)) as batches:
        rows = [batch.embeddings for batch in batches]
    if not rows:
        return encode(processor([], color=color))
    return rows[0] if len(rows) == 1 else np.concatenate(rows)


def _embedded(
    encode: Encode, crops: Generator[Crops, None, None], errors: Errors
) -> Generator[EmbeddedBatch, None, None]:
    with closing(crops):
        for batch, broken in map(partial(embed_crops, encode, errors), crops):  # which holds no pixels on to the next
            if batch.rows or batch.faults:
                yield batch
            if broken is not None:
                raise broken


def embed_crops(encode: Encode, errors: Errors, crops: Crops) -> tuple[EmbeddedBatch, ImageError | None]:
    """A batch through the encoder; with errors="raise" only what comes before the first fault, and that fault."""
    rows, faults, broken = crops.rows, crops.faults, None
    if faults and errors == "raise":
        place = min(faults)
        rows, broken, faults = tuple(row for row in rows if row < place), faults[place], {}
    embeddings = encode(crops.pixels[: len(rows)])
    return EmbeddedBatch(crops.first, crops.sources, rows, embeddings, faults), broken


def one_by_one(batches: Generator[EmbeddedBatch, None, None]) -> Generator[Embedded, None, None]:
    with closing(batches):
        for batch in batches:
            for result in batch.in_order(batch.embeddings):
                yield Embedded(*result)


def check_errors(errors: str) -> None:
    """Raise InputError unless `errors` says what becomes of a picture that cannot be read."""
    if errors not in ("raise", "report"):
        raise InputError(f'unknown errors={errors!r}; expected "raise" or "report"')
