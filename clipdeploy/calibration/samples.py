"""Calibration data as batches, made by the runtime's own preprocessing: what calibrates is what ships.

Every picture is read once, and its crop is kept in a file on disk that vanishes with the process. So the pictures need
the same memory however many they are, and going through them again costs no decoding.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.calibration.coverage import Coverage
from clipdeploy.calibration.duplicates import Seen
from clipdeploy.calibration.sources import Candidate, find_sources, shares, spread
from clipdeploy.errors import CalibrationError, InputError, OutputError
from clipdeploy.progress import Progress, silent
from clipdeploy.runtime.image import ImageProcessor
from clipdeploy.spec import PixelSpec

MINIMUM = 16
"""Distinct pictures below which no range is taken."""

ADVISED = 500
"""Distinct pictures below which ranges may miss what is rare."""

_TURNS = 4
"""How often more candidates are drawn in place of the duplicates and the unreadable."""

_UNREADABLE = 0.5
"""The share of unreadable candidates beyond which the data is not what its owner thinks."""


class Samples:
    """A set of distinct pictures, ready for the image tower.

    Attributes:
        count: how many there are.
        sha256: over the crops' bytes, in order.
        coverage: figures for the manifest, for JSON.
        skipped: name of each candidate that could not be read, and why.
        duplicates: how many candidates were nearly the same as one before, and were left out.
        notes: what a user should know, such as that there are few pictures.
    """

    def __init__(self, processor: ImageProcessor, *, limit: int, batch: int) -> None:
        self._processor, self._batch = processor, batch
        self._spool = _Spool()
        self._seen, self._figures, self._digest = Seen(limit), Coverage(), hashlib.sha256()
        self._kinds: dict[str, int] = {}
        self._tried = 0
        self.skipped: tuple[tuple[str, str], ...] = ()
        self.duplicates = 0
        self.notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many pictures there are."""
        return self._spool.count

    @property
    def sha256(self) -> str:
        """Over the crops' bytes, in order."""
        return self._digest.hexdigest()

    @property
    def coverage(self) -> dict[str, Any]:
        """How many of which kind, and what they look like; for JSON."""
        return {
            "count": self.count,
            "sources": dict(self._kinds),
            "tried": self._tried,
            "duplicates": self.duplicates,
            "skipped": len(self.skipped),
            **self._figures.to_dict(),
        }

    def batches(self) -> Iterator[NDArray[np.float32]]:
        """`(n, 3, H, W)` float32, RGB, normalised; the same batches in the same order each time."""
        for start in range(0, self.count, self._batch):
            stop = min(start + self._batch, self.count)
            yield np.concatenate([self._pixels(index) for index in range(start, stop)])

    def feeds(self, name: str = "pixel_values") -> Feeds:
        """The batches as inputs of a graph, to be gone through as often as wanted."""
        return Feeds(self, name)

    def _pixels(self, index: int) -> NDArray[np.float32]:
        """(1, 3, H, W)"""
        stored = self._spool.read(index)[None]
        return self._processor.normalize(stored) if stored.dtype == np.uint8 else stored

    def add(self, candidate: Candidate, kind: str) -> None:
        """Take a candidate in, unless it could not be read or is nearly the same as one before."""
        self._tried += 1
        if candidate.pixels is None:
            self.skipped = (*self.skipped, (candidate.name, candidate.fault))
            return
        crop = candidate.pixels
        if crop.dtype != np.uint8:
            crop = _bytes_of(crop, self._processor.spec)
        if not self._seen.add(crop):
            self.duplicates += 1
            return
        self._figures.add(crop)
        self._kinds[kind] = self._kinds.get(kind, 0) + 1
        data = np.ascontiguousarray(candidate.pixels)
        self._digest.update(data.data)
        self._spool.append(data)

    def check_readable(self) -> None:
        """Raise CalibrationError when so many candidates are unreadable that the data must be something else."""
        if len(self.skipped) > self._tried * _UNREADABLE:
            raise CalibrationError(
                f"{len(self.skipped)} of {self._tried} pictures for calibration could not be read; the first: "
                f"{self.skipped[0][1]}",
                fix="check that the calibration data is pictures, a video or an array of pictures",
            )

    def check_enough(self) -> None:
        """Raise CalibrationError when there are too few pictures, and note when there are few."""
        left_out = f"{self.duplicates} near-duplicates and {len(self.skipped)} unreadable ones left out"
        left_out = "; ".join([left_out, *self.notes])
        if self.count < MINIMUM:
            raise CalibrationError(
                f"{self.count} distinct pictures for calibration, {left_out}; at least {MINIMUM} are needed",
                fix=f"give more pictures of what the camera will see, {ADVISED} or more",
            )
        if self.count < ADVISED:
            self.notes += (f"{self.count} distinct pictures: fewer than {ADVISED} may miss rare values",)


class Feeds:
    """Batches of samples under the name of a graph's input; may be gone through many times."""

    def __init__(self, samples: Samples, name: str) -> None:
        self._samples, self._name = samples, name

    def __iter__(self) -> Iterator[Mapping[str, NDArray[Any]]]:
        return ({self._name: batch} for batch in self._samples.batches())


def open_samples(
    data: Sequence[str | os.PathLike[str]],
    processor: ImageProcessor,
    *,
    limit: int = 512,
    seed: int = 0,
    batch: int = 8,
    progress: Progress = silent,
) -> Samples:
    """Read calibration data.

    Of more than `limit` candidates an even choice is taken: one of each of `limit` equal parts of the sorted files,
    and frames at even distances. The same files and seed give the same set, whatever the order they are named in.
    In place of near-duplicates and unreadable files others are drawn, as long as there are some.

    Args:
        data: folders (with the folders inside), picture files, patterns, videos, `.npz` or `.npy` files.
        processor: of the model.
        limit: how many pictures to use at most.
        seed: chooses among equally good subsets.
        batch: pictures per batch.
        progress: told of every candidate.

    Raises:
        InputError: no data, a path that does not exist, a folder or pattern without a picture, or an impossible limit.
        CalibrationError: too few distinct pictures; more than half of the candidates cannot be read; a video or an
            array that is damaged or of another kind than the model takes.
        MissingExtraError: there is a video and nothing that reads videos.
        OutputError: the disk is full.
    """
    if limit < MINIMUM or batch < 1:
        raise InputError(
            f"calibration needs {MINIMUM} pictures or more and batches of at least 1, got {limit} and {batch}",
            fix="leave --samples at 512",
        )
    sources = find_sources(data)
    samples = Samples(processor, limit=limit, batch=batch)
    left = [np.arange(source.count) for source in sources]
    for turn in range(_TURNS):
        taken = shares([len(rows) for rows in left], limit - samples.count)
        if not sum(taken):
            break
        for index, source in enumerate(sources):
            rng = np.random.default_rng([seed, turn, index])
            places = spread(len(left[index]), taken[index], rng, even=source.kind == "video")
            rows = left[index][places]
            left[index] = np.delete(left[index], places)
            for candidate in source.read(rows.tolist(), processor):
                samples.add(candidate, source.kind)
                progress("reading calibration data", samples.count, limit)
        samples.check_readable()
    samples.notes = tuple(note for source in sources for note in source.notes)
    samples.check_enough()
    return samples


def _bytes_of(pixels: NDArray[np.float32], spec: PixelSpec) -> NDArray[np.uint8]:
    """The picture `(H, W, 3)` that was normalised to `(3, H, W)`, for looking at."""
    mean, std = np.asarray(spec.mean, np.float32), np.asarray(spec.std, np.float32)
    levels = (pixels * std[:, None, None] + mean[:, None, None]) * 255.0
    return np.ascontiguousarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8).transpose(1, 2, 0))


class _Spool:
    """Arrays one after the other in an unnamed file, which the system removes when it is closed."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="clipdeploy-")  # noqa: SIM115 - closed with the owner
        self._places: list[tuple[int, np.dtype[Any], tuple[int, ...]]] = []
        self._end = 0
        weakref.finalize(self, self._file.close)

    @property
    def count(self) -> int:
        return len(self._places)

    def append(self, array: NDArray[Any]) -> None:
        try:
            self._file.seek(self._end)
            self._file.write(array.data)
            self._file.flush()
        except OSError as error:
            raise OutputError(
                f"the crops of the calibration pictures cannot be kept in {tempfile.gettempdir()}: {error.strerror}",
                fix="free some space there, or set TMPDIR to a folder on another disk",
            ) from error
        self._places.append((self._end, array.dtype, array.shape))
        self._end += array.nbytes

    def read(self, index: int) -> NDArray[Any]:
        start, dtype, shape = self._places[index]
        # By place and not by the file's position, so that two may read at once.
        data = os.pread(self._file.fileno(), int(np.prod(shape)) * dtype.itemsize, start)
        return np.frombuffer(data, dtype).reshape(shape)
