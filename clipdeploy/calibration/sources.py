"""What calibration data may be: picture files, videos, arrays; each a list of candidates, read when asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import InputError
from clipdeploy.pictures import find_pictures, read_pictures
from clipdeploy.runtime.image import ImageProcessor

_READ_AHEAD = 16  # picture files opened at once


@dataclass(frozen=True)
class Candidate:
    """One picture that was read, or why it was not.

    Attributes:
        name: of the file, frame or row.
        pixels: `(H, W, 3)` uint8, RGB: resized and cropped for the model; or `(3, H, W)` float32, normalised, from an
            array that holds these; None when it could not be read.
        fault: why it could not be read.
    """

    name: str
    pixels: NDArray[Any] | None
    fault: str = ""


class Source(Protocol):
    """Some of the calibration data."""

    @property
    def kind(self) -> str:
        """`pictures`, `video` or `array`."""

    @property
    def count(self) -> int:
        """How many candidates there are."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of it, such as a video that ends early."""

    def read(self, rows: Sequence[int], processor: ImageProcessor) -> Iterator[Candidate]:
        """The candidates of these places, in rising order.

        Raises:
            CalibrationError: the source is damaged, or of another kind than the model takes.
        """


class PictureFiles:
    """Picture files, in an order that does not depend on how they were named."""

    kind = "pictures"
    notes: tuple[str, ...] = ()

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = sorted({file.resolve(): file for file in files}.items())

    @property
    def count(self) -> int:
        """How many files there are."""
        return len(self._files)

    def read(self, rows: Sequence[int], processor: ImageProcessor) -> Iterator[Candidate]:
        """See `Source.read`; a file that is no picture is a fault of its own."""
        paths = [self._files[row][1] for row in rows]
        start = 0
        for batch in read_pictures(processor, paths, batch_size=_READ_AHEAD):
            faults = dict(batch.skipped)
            crops = dict(zip(batch.rows, batch.crops, strict=True))
            stop = start + len(faults) + len(crops)
            for place in range(start, stop):
                yield Candidate(str(paths[place]), crops.get(place), faults.get(place, ""))
            start = stop


def find_sources(data: Sequence[str | os.PathLike[str]]) -> tuple[Source, ...]:
    """What `data` means: folders (with the folders inside), picture files, patterns, videos, `.npz` and `.npy` files.

    Raises:
        InputError: nothing was given; a path does not exist, or holds no picture.
        CalibrationError: a video or an array is damaged or of another kind.
        MissingExtraError: there is a video and no library that reads videos.
    """
    from clipdeploy.calibration.arrays import SUFFIXES as ARRAYS
    from clipdeploy.calibration.arrays import ArrayFile
    from clipdeploy.calibration.video import SUFFIXES as VIDEOS
    from clipdeploy.calibration.video import VideoFile

    if not data:
        raise InputError("no calibration data given", fix="name a folder, picture files, a video or an .npz file")
    places = [os.fspath(place) for place in data]
    arrays, videos, pictures = list[Path](), list[Path](), list[str]()
    for place in places:
        ending = Path(place).suffix.lower()
        if Path(place).is_dir() or ending not in (*ARRAYS, *VIDEOS):
            pictures.append(place)
        elif not Path(place).exists():
            raise InputError(f"{place} does not exist", fix="check the path of the calibration data")
        else:
            (arrays if ending in ARRAYS else videos).append(Path(place))
    sources: list[Source] = []
    if pictures:
        sources.append(PictureFiles(_find(pictures, VIDEOS)))
    sources += [VideoFile(path) for path in _unique(videos)]
    sources += [ArrayFile(path) for path in _unique(arrays)]
    return tuple(sources)


def spread(count: int, wanted: int, rng: np.random.Generator, *, even: bool) -> NDArray[np.int64]:
    """`wanted` of `0 .. count - 1` in rising order, one from each of as many equal parts.

    Args:
        count: how many there are.
        wanted: how many to take, at most `count`.
        rng: chooses the place within a part.
        even: take the same place within every part, so that the distances are even.
    """
    edges = np.arange(wanted + 1, dtype=np.int64) * count // max(wanted, 1)
    place = rng.random(1 if even else wanted)
    return edges[:-1] + np.floor(place * np.diff(edges)).astype(np.int64)


def shares(counts: Sequence[int], wanted: int) -> list[int]:
    """How many to take of each source: alike, and more of the others where one has too few."""
    taken = [0] * len(counts)
    for turn, index in enumerate(sorted(range(len(counts)), key=lambda i: counts[i])):
        taken[index] = min(counts[index], (wanted - sum(taken)) // (len(counts) - turn))
    return taken


def _find(places: Sequence[str], videos: Sequence[str]) -> tuple[Path, ...]:
    try:
        return find_pictures(places, recursive=True)
    except InputError as error:
        folders = [Path(place) for place in places if Path(place).is_dir()]
        found = next((p for folder in folders for p in folder.rglob("*") if p.suffix.lower() in videos), None)
        fix = f"name the video itself: {found}" if found else error.fix
        raise InputError(f"calibration data: {error.message}", fix=fix) from error


def _unique(paths: Sequence[Path]) -> list[Path]:
    return [path for _, path in sorted({path.resolve(): path for path in paths}.items())]
