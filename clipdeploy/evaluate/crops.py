"""The pictures of a dataset decoded and cropped once, for every backend and precision to run on the same pixels.

The crops lie in a file without a name: the system removes it with the process, however that ends. So any number of
pictures needs the same memory, and room on the disk: 150 kB for each at 224x224 px.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import closing
from types import TracebackType
from typing import IO

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import ImageError, InputError, OutputError
from clipdeploy.evaluate.records import Item
from clipdeploy.pictures import none_could_be_read
from clipdeploy.progress import Progress, silent
from clipdeploy.runtime.ahead import crops_ahead
from clipdeploy.runtime.batches import check_batch_size
from clipdeploy.runtime.image import ImageLike, ImageProcessor

_SPARE_BYTES = 64 << 20  # left free on the disk, for whatever else is written there


class Crops:
    """n pictures, cropped for a model; close it, or use it as a context manager.

    Attributes:
        rows: of each, its place in the items that were given: the others could not be read.
        skipped: name of each of these -> why.
    """

    def __init__(
        self, processor: ImageProcessor, file: IO[bytes], rows: tuple[int, ...], skipped: dict[str, str]
    ) -> None:
        self.rows, self.skipped = rows, skipped
        self._processor = processor
        self._pixels: NDArray[np.uint8] | None = np.memmap(file, np.uint8, "r", shape=(len(rows), *_shape(processor)))
        self._end = weakref.finalize(self, file.close)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.rows)

    def crop(self, row: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8, RGB, of picture `row` of those here."""
        return np.array(self._opened()[row])

    def batches(self, size: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """All pictures in order, the same each time; the batch before it may be dropped, so that memory is bounded.

        Args:
            size: pictures of a batch.

        Yields:
            (m,) places among those here, 0 to n - 1, and (m, 3, H, W) float32, RGB, normalised.
        """
        check_batch_size(size)
        for first in range(0, self.count, size):
            rows = np.arange(first, min(first + size, self.count))
            yield rows, self._processor.normalize(np.asarray(self._opened()[first : first + size]))

    def close(self) -> None:
        """Give the file back; may be called again."""
        self._end()
        self._pixels = None

    def _opened(self) -> NDArray[np.uint8]:
        if self._pixels is None:
            raise InputError("the crops are closed", fix="read the pictures again")
        return self._pixels

    def __enter__(self) -> Crops:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_crops(
    processor: ImageProcessor, items: Sequence[Item], *, batch_size: int = 32, progress: Progress = silent
) -> Crops:
    """Every picture decoded, resized and cropped as the model wants it; broken ones are left out, and told.

    Args:
        processor: of the model, as in `Clip.images`; its threads do the work.
        items: of a dataset.
        batch_size: pictures that are held in memory at once, twice.
        progress: told of each batch.

    Raises:
        ImageError: not one picture could be read.
        OutputError: the disk has no room for the crops.
    """
    _check_room(len(items) * int(np.prod(_shape(processor))))
    # Without a buffer, which would be written once more when a full disk is closed.
    file = tempfile.TemporaryFile(prefix="clipdeploy-", buffering=0)  # noqa: SIM115 - closed with the crops
    try:
        rows, faults = _write(processor, items, file, batch_size, progress)
        if not rows:
            raise none_could_be_read(sorted(faults.items()))
        return Crops(processor, file, tuple(rows), {items[row].name: why for row, why in sorted(faults.items())})
    except BaseException:
        file.close()
        raise


def _write(
    processor: ImageProcessor, items: Sequence[Item], file: IO[bytes], batch_size: int, progress: Progress
) -> tuple[list[int], dict[int, str]]:
    """The crops into the file, one after the other: the rows of those, and why the others are not there."""
    given: list[int] = []
    rows: list[int] = []
    faults: dict[int, str] = {}

    def opened() -> Iterator[ImageLike]:
        for row, item in enumerate(items):
            try:
                image = item.open()
            except (ImageError, OSError) as error:
                faults[row] = error.message if isinstance(error, ImageError) else f"{item.name}: {error}"
                continue
            given.append(row)
            yield image

    progress("reading pictures", 0, len(items))
    with closing(crops_ahead(processor, opened(), batch_size=batch_size, normalised=False)) as batches:
        for batch in batches:
            rows += [given[place] for place in batch.rows]
            faults |= {given[place]: _without_place(error, place) for place, error in batch.faults.items()}
            _append(file, batch.pixels)
            progress("reading pictures", min(given[batch.first + len(batch.sources) - 1] + 1, len(items)), len(items))
    progress("reading pictures", len(items), len(items))
    return rows, faults


def _append(file: IO[bytes], crops: NDArray[np.uint8]) -> None:
    try:
        left = np.ascontiguousarray(crops).data.cast("B") if len(crops) else b""
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        raise _no_room(error.strerror or str(error)) from error


def _check_room(needed_bytes: int) -> None:
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if needed_bytes > free - _SPARE_BYTES:
        raise _no_room(f"{needed_bytes / 1e6:.0f} MB are needed, and {free / 1e6:.0f} MB are free")


def _no_room(why: str) -> OutputError:
    return OutputError(
        f"the crops of the pictures cannot be kept in {tempfile.gettempdir()}: {why}",
        fix="free some space there, set TMPDIR to a folder on another disk, or take fewer pictures: --limit",
    )


def _without_place(error: ImageError, place: int) -> str:
    """The reason alone: the picture is named beside it."""
    return error.message.removeprefix(f"picture {place}: ")


def _shape(processor: ImageProcessor) -> tuple[int, int, int]:
    return (processor.spec.height, processor.spec.width, 3)
