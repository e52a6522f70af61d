"""Pictures read ahead of the encoder: decoded and cropped on a few threads, a batch or two ahead, order kept.

    pictures --submit--> pool: decode, crop, normalise --take--> batches, in order

The thread that submits and takes is the only one that advances the source. Before it waits for a batch it hands the
pictures of the next one to the pool, so that these are ready when the encoder is; a source that is slower than that,
such as a camera, gets its batch answered at once. No more than two batches of pixels are held, however long the
source; what is not decoded yet is bounded too.

A picture must stay as it is until its result is there: a camera's frames need a buffer each.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sized
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipdeploy.errors import ImageError
from clipdeploy.runtime.batches import BATCH_SIZE, check_batch_size
from clipdeploy.runtime.image import ImageLike, ImageProcessor, check_color, named
from clipdeploy.runtime.pool import drop, results

PathOf: TypeAlias = "str | PathLike[str] | None"
"""The path of a picture as it was given; None for a picture that was in memory, which is not kept."""

# Pictures in memory that wait to be cropped hold at most this much, and one picture more.
_WAITING_BYTES = 256 << 20
# A source that takes this long for a picture, such as a camera, is not asked for the next one while a batch is whole.
SLOW_SOURCE_S = 0.02


@dataclass(frozen=True)
class Crops:
    """One batch, ready for the encoder but for the pictures that could not be read.

    Attributes:
        first: index of its first picture among all.
        sources: the path of every picture of the batch.
        rows: (n,) indices of the pictures that could be read, among all.
        pixels: of these, (n, 3, H, W) float32, normalised; or (n, H, W, 3) uint8, RGB, as was asked for.
        faults: index and error of each of the others.
    """

    first: int
    sources: tuple[PathOf, ...]
    rows: tuple[int, ...]
    pixels: NDArray[Any]
    faults: dict[int, ImageError]


class CropsAhead:
    """Pictures on their way to the encoder: submitted one by one, taken batch by batch in the same order.

    For one thread at a time; `crops_ahead` is the loop around it.

    Args:
        processor: of the model; its threads do the work.
        color: the order of an array's channels, `rgb` or `bgr`.
        batch_size: pictures in a batch.
        normalised: float32 pixels for the encoder; False gives the uint8 crops.
        expected: pictures to come in all, where that is known; more or fewer do no harm.
    """

    def __init__(
        self,
        processor: ImageProcessor,
        *,
        color: str = "rgb",
        batch_size: int = BATCH_SIZE,
        normalised: bool = True,
        expected: int | None = None,
    ) -> None:
        check_batch_size(batch_size)
        check_color(color)
        self._processor, self._color, self._normalised = processor, color, normalised
        self._batch_size, self._expected = batch_size, expected
        self._window = batch_size + max(batch_size, processor.workers)
        self._batches: deque[_Batch] = deque()
        self._waiting: deque[tuple[Future[ImageError | None], int, int]] = deque()
        self._submitted = 0

    @property
    def pending(self) -> int:
        """Pictures that were submitted and not taken."""
        return sum(len(batch.futures) for batch in self._batches)

    @property
    def due(self) -> bool:
        """Whether a batch and the next one are on their way, so that one is to be taken before more is submitted."""
        return self.pending >= self._window

    @property
    def whole(self) -> bool:
        """Whether all pictures of a batch are here, ready or not; worth taking where the source is slow."""
        return bool(self._batches) and len(self._batches[0].futures) == len(self._batches[0].pixels)

    def submit(self, image: ImageLike) -> None:
        """Hand over the next picture. Waits where what is in memory and not cropped yet has grown too large."""
        self._make_room(image)
        if not self._batches or len(self._batches[-1].futures) == len(self._batches[-1].pixels):
            self._batches.append(_Batch(self._submitted, self._empty_pixels()))
        batch = self._batches[-1]
        target = batch.pixels[len(batch.futures)]
        future = self._processor.pool.submit(self._place, image, target, self._submitted)
        batch.futures.append(future)
        batch.sources.append(image if isinstance(image, (str, PathLike)) else None)
        if size := _size_bytes(image):
            self._waiting.append((future, size, id(image)))
        self._submitted += 1

    def take(self) -> Crops:
        """The oldest batch, once it is ready; at the end of the source it may be a short one.

        Raises:
            BackendError: the Clip was closed meanwhile.
            IndexError: nothing is pending.
        """
        batch = self._batches.popleft()
        errors = results(batch.futures)
        faults = {row: error for row, error in enumerate(errors) if error is not None}
        good = [row for row, error in enumerate(errors) if error is None]
        return Crops(
            first=batch.first,
            sources=tuple(batch.sources),
            rows=tuple(batch.first + row for row in good),
            pixels=batch.pixels[good] if faults else batch.pixels[: len(good)],
            faults={batch.first + row: error for row, error in faults.items()},
        )

    def rest(self) -> Iterator[Crops]:
        """All batches that are pending, when no more pictures come."""
        while self._batches:
            yield self.take()

    def close(self) -> None:
        """Drop what is pending, and wait for what a thread is at."""
        batches = list(self._batches)
        self._batches.clear()
        self._waiting.clear()
        drop([future for batch in batches for future in batch.futures])

    def _empty_pixels(self) -> NDArray[Any]:
        count = self._batch_size
        if self._expected is not None:
            count = min(count, max(self._expected - self._submitted, 1))
        height, width = self._processor.spec.height, self._processor.spec.width
        if self._normalised:
            return np.empty((count, 3, height, width), np.float32)
        return np.empty((count, height, width, 3), np.uint8)

    def _place(self, image: ImageLike, target: NDArray[Any], index: int) -> ImageError | None:
        """Crop a picture into its row of a batch; the error, when it cannot be read."""
        try:
            crop = self._processor.crop(image, color=self._color)
        except ImageError as error:
            return _without_frames(named(error, image, index))
        if self._normalised:
            self._processor.normalize_into(crop, target)
        else:
            target[...] = crop
        return None

    def _make_room(self, image: ImageLike) -> None:
        """Wait until the pictures in memory that are not cropped yet are few enough, and this one is none of them."""
        while self._waiting and self._waiting[0][0].done():
            self._waiting.popleft()
        if not _size_bytes(image):
            return
        # Pillow reads a file at the first use of its picture, and not for two threads at once.
        while self._waiting and (
            sum(size for _, size, _ in self._waiting) > _WAITING_BYTES
            or any(known == id(image) for _, _, known in self._waiting)
        ):
            _until_done(self._waiting.popleft()[0])


@dataclass
class _Batch:
    """A batch that is being filled: `pixels` row by row, one future a row."""

    first: int
    pixels: NDArray[Any]
    futures: list[Future[ImageError | None]] = field(default_factory=list)
    sources: list[PathOf] = field(default_factory=list)


def crops_ahead(
    processor: ImageProcessor,
    images: Iterable[ImageLike],
    *,
    color: str = "rgb",
    batch_size: int = BATCH_SIZE,
    normalised: bool = True,
) -> Generator[Crops, None, None]:
    """Any number of pictures, batch by batch, the next batch being made while the caller works on this one.

    Args:
        processor: of the model, as in `Clip.images`.
        images: any iterable of pictures; taken lazily, so that it may be endless.
        color, batch_size, normalised: as for `CropsAhead`.

    Yields:
        Every picture in order. What `images` raises comes after the pictures before it.
    """
    ahead = CropsAhead(
        processor,
        color=color,
        batch_size=batch_size,
        normalised=normalised,
        expected=len(images) if isinstance(images, Sized) else None,
    )
    return _crops(ahead, images)


def _crops(ahead: CropsAhead, images: Iterable[ImageLike]) -> Generator[Crops, None, None]:
    source = iter(images)
    try:
        while True:
            asked = time.perf_counter()
            try:
                ahead.submit(next(source))
            except StopIteration:
                break
            except Exception:  # the source's own, at its place: after the pictures before it
                yield from ahead.rest()
                raise
            slow = time.perf_counter() - asked > SLOW_SOURCE_S
            while ahead.due or (slow and ahead.whole):
                yield ahead.take()
        yield from ahead.rest()
    finally:
        ahead.close()


def _until_done(future: Future[Any]) -> None:
    with suppress(CancelledError):
        future.exception()


def _without_frames(error: ImageError) -> ImageError:
    """The error and what caused it, without the frames of their tracebacks: these would keep the picture in memory."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


def _size_bytes(image: object) -> int:
    """Memory of a picture that is in memory; 0 for a path."""
    if isinstance(image, np.ndarray):
        return image.nbytes
    if isinstance(image, Image.Image):
        return image.width * image.height * 4
    return len(image) if isinstance(image, (bytes, bytearray, memoryview)) else 0
