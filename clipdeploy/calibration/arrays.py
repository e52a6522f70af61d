"""Calibration data from NumPy files, row by row: the array is never in memory.

Accepted, as the only array of an `.npz` or in an `.npy`:

- uint8 `(N, H, W, 3)`: pictures, RGB, of any size; they go through the model's own preprocessing.
- float32 `(N, 3, H, W)`: `pixel_values` of the model's size, normalised as the model takes them.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from clipdeploy.calibration.sources import Candidate
from clipdeploy.errors import CalibrationError
from clipdeploy.runtime.image import ImageProcessor
from clipdeploy.spec import PixelSpec

SUFFIXES = (".npz", ".npy")

_ACCEPTED = "store uint8 pictures (N, H, W, 3), RGB: np.savez(path, pictures); or float32 pixel_values (N, 3, H, W)"
_MANY = 8
_SLACK = 1e-3  # of a normalised value: what rounding may add


class ArrayFile:
    """The rows of the one array in a file.

    Raises:
        CalibrationError: the file is damaged, holds other than one array, or one of another kind.
    """

    kind = "array"
    notes: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._open() as (stream, size):
            self._shape, self._dtype, self._start = _header(stream, path)
        needed = self._start + prod(self._shape) * self._dtype.itemsize
        if size < needed:
            raise CalibrationError(
                f"{path} is truncated: {size} bytes of an array that has {needed}", fix="write or copy it again"
            )
        self._row_bytes = prod(self._shape[1:]) * self._dtype.itemsize

    @property
    def count(self) -> int:
        """How many rows there are."""
        return self._shape[0]

    def read(self, rows: Sequence[int], processor: ImageProcessor) -> Iterator[Candidate]:
        """See `Source.read`.

        Raises:
            CalibrationError: pixels of another size than the model's, or not normalised as it takes them.
        """
        if self._dtype == np.float32:
            self._check_size(processor.spec)
        smallest, largest = np.inf, -np.inf
        with self._open() as (stream, _):
            for row in rows:
                name = f"{self._path}[{row}]"
                values = self._row(stream, row)
                if self._dtype == np.uint8:
                    yield Candidate(name, processor.crop(values))
                else:
                    _check_normalised(values, processor.spec, name)
                    smallest, largest = min(smallest, values.min()), max(largest, values.max())
                    yield Candidate(name, values)
        # Many pictures without one value below the mean are pictures scaled to 0 .. 1.
        if len(rows) >= _MANY and 0.0 <= smallest <= largest <= 1.0 and min(processor.spec.mean) > 0.0:
            raise _not_normalised(f"all of {self._path}", smallest, largest, processor.spec)

    def _row(self, stream: IO[bytes], row: int) -> NDArray[Any]:
        try:
            stream.seek(self._start + row * self._row_bytes)
            data = stream.read(self._row_bytes)
        except (OSError, EOFError, zipfile.BadZipFile) as error:
            raise CalibrationError(
                f"{self._path} is damaged at row {row}: {error}", fix="write or copy it again"
            ) from error
        return np.frombuffer(data, self._dtype).reshape(self._shape[1:])

    def _check_size(self, spec: PixelSpec) -> None:
        if self._shape[1:] != (3, spec.height, spec.width):
            raise CalibrationError(
                f"{self._path} holds pixel_values {self._shape}; the model takes (N, 3, {spec.height}, {spec.width})",
                fix=_ACCEPTED,
            )

    @contextmanager
    def _open(self) -> Iterator[tuple[IO[bytes], int]]:
        """The array's bytes, header first, and how many there are."""
        try:
            if self._path.suffix.lower() == ".npy":
                with self._path.open("rb") as file:
                    yield file, self._path.stat().st_size
                return
            with zipfile.ZipFile(self._path) as archive:
                members = archive.infolist()
                if len(members) != 1:
                    names = ", ".join(m.filename.removesuffix(".npy") for m in members[:8]) or "none"
                    raise CalibrationError(f"{self._path} must hold one array, it holds: {names}", fix=_ACCEPTED)
                with archive.open(members[0]) as member:
                    yield member, members[0].file_size
        except zipfile.BadZipFile as error:
            raise CalibrationError(f"{self._path} is no .npz file: {error}", fix=_ACCEPTED) from error
        except OSError as error:
            raise CalibrationError(f"{self._path} cannot be read: {error.strerror or error}") from error


def _header(stream: IO[bytes], path: Path) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape and dtype of an array, and where its values begin."""
    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except (ValueError, EOFError) as error:
        raise CalibrationError(f"{path} is no NumPy array: {error}", fix=_ACCEPTED) from error
    pictures = dtype == np.uint8 and len(shape) == 4 and shape[3] == 3
    pixels = dtype == np.dtype("<f4") and len(shape) == 4 and shape[1] == 3
    if not (pictures or pixels) or 0 in shape:
        raise CalibrationError(f"{path} holds {dtype} {shape}: neither pictures nor pixel_values", fix=_ACCEPTED)
    if fortran:
        raise CalibrationError(
            f"{path} is stored column by column", fix="np.ascontiguousarray(pictures) before saving it"
        )
    return shape, dtype, stream.tell()


def _check_normalised(values: NDArray[np.float32], spec: PixelSpec, name: str) -> None:
    """Raise CalibrationError unless the values are ones that this preprocessing can make of bytes."""
    low, high = _bounds(spec)
    smallest, largest = values.min(axis=(1, 2)), values.max(axis=(1, 2))  # nan wherever a value is
    if not (np.all(smallest >= low - _SLACK) and np.all(largest <= high + _SLACK)):
        raise _not_normalised(name, smallest.min(), largest.max(), spec)


def _bounds(spec: PixelSpec) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What black and white become, per channel."""
    mean, std = np.asarray(spec.mean, np.float64), np.asarray(spec.std, np.float64)
    return (0.0 - mean) / std, (1.0 - mean) / std


def _not_normalised(name: str, smallest: float, largest: float, spec: PixelSpec) -> CalibrationError:
    low, high = _bounds(spec)
    return CalibrationError(
        f"{name}: not normalised as the model takes it, values {smallest:.4g} .. {largest:.4g}; black and white are "
        f"{low.min():.4g} and {high.max():.4g}",
        fix=f"(pictures / 255 - {spec.mean}) / {spec.std}; or store the pictures as uint8 (N, H, W, 3)",
    )
