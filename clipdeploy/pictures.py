"""Which picture files are meant by a list of paths, folders and patterns, and reading them past the broken ones."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import ImageError, InputError
from clipdeploy.runtime import suffixes

if TYPE_CHECKING:
    from clipdeploy.runtime.image import ImageProcessor

SUFFIXES = suffixes.PICTURES
"""Endings by which a file in a folder counts as a picture; a file that is named itself may have any."""

_SUPPORTED = "supported: " + " ".join(SUFFIXES)


def find_pictures(places: Sequence[str | os.PathLike[str]], *, recursive: bool = False) -> tuple[Path, ...]:
    """The picture files that `places` mean, in that order, each once; a folder's files sorted by name.

    Args:
        places: files, folders, or glob patterns (`photos/*.jpg`, `photos/**/*.jpg`).
        recursive: take the folders inside a folder too.

    Raises:
        InputError: no places; a file or folder that does not exist; a folder or pattern without a picture.
    """
    if not places:
        raise InputError("no pictures given", fix="name picture files, folders or patterns such as 'photos/*.jpg'")
    found: dict[Path, None] = {}
    for place in places:
        found.update(dict.fromkeys(_find(os.fspath(place), recursive=recursive)))
    return tuple(found)


def _find(place: str, *, recursive: bool) -> list[Path]:
    path = Path(place)
    if path.is_dir():
        return _in_folder(path, recursive=recursive)
    if os.path.lexists(path):
        return [path]
    if glob.has_magic(place):
        return _matches(place)
    raise InputError(f"{place} does not exist", fix="check the path of the picture, folder or pattern")


def _in_folder(folder: Path, *, recursive: bool) -> list[Path]:
    try:
        files = sorted(_pictures(folder.rglob("*") if recursive else folder.iterdir()))
        deeper = not files and not recursive and next(iter(_pictures(folder.rglob("*"))), None) is not None
    except OSError as error:
        raise InputError(f"folder {folder} cannot be read: {error.strerror}", fix="check its permissions") from error
    if files:
        return files
    fix = "pass --recursive: there are pictures in the folders inside it" if deeper else _SUPPORTED
    raise InputError(f"folder {folder} holds no picture", fix=fix)


def _matches(pattern: str) -> list[Path]:
    matches = [Path(name) for name in glob.iglob(pattern, recursive=True)]  # noqa: PTH207 - Path.glob refuses absolute ones
    files = sorted(_pictures(matches))
    if files:
        return files
    if matches:
        raise InputError(f"pattern {pattern!r} matches no picture among {len(matches)} names", fix=_SUPPORTED)
    raise InputError(f"pattern {pattern!r} matches nothing", fix="check the pattern and the folder it starts in")


def _pictures(paths: Iterable[Path]) -> Iterable[Path]:
    """Those of `paths` that are picture files by their ending, hidden ones left out."""
    return (p for p in paths if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file())


def read_lines(path: str | os.PathLike[str], *, what: str) -> tuple[str, ...]:
    """The lines of a UTF-8 text file, stripped, empty ones left out.

    Args:
        path: the file.
        what: what a line is, for the error, such as `labels`.

    Raises:
        InputError: the file is missing, is no UTF-8 text, or has no line with something in it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text: {error.reason} at byte {error.start}", fix="save it as UTF-8"
        ) from error
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}", fix=f"name a text file with {what}, one a line"
        ) from error
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not lines:
        raise InputError(f"{path} holds no {what}", fix=f"put {what} into it, one a line")
    return lines


@dataclass(frozen=True)
class Skipped:
    """A picture that could not be read, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class PictureBatch:
    """Those pictures of a batch that could be read, and those that could not.

    Attributes:
        rows: (n,) places in the list of all pictures.
        crops: (n, H, W, 3) uint8, RGB: resized and cropped for the model, not normalised.
        skipped: place and reason of each of the others.
    """

    rows: tuple[int, ...]
    crops: NDArray[np.uint8]
    skipped: tuple[tuple[int, str], ...]


def read_pictures(processor: ImageProcessor, pictures: Sequence[Path], *, batch_size: int) -> Iterator[PictureBatch]:
    """Read picture files batch by batch; a broken one is named in its batch instead of ending the work.

    Args:
        processor: of the model, as in `Clip.images`.
        pictures: picture files.
        batch_size: files per batch.

    Yields:
        Batches in the order of `pictures`. The next one is read while the caller works on this one.
    """
    from clipdeploy.runtime.ahead import crops_ahead

    with closing(crops_ahead(processor, pictures, batch_size=batch_size, normalised=False)) as batches:
        for batch in batches:
            skipped = tuple((row, error.message) for row, error in batch.faults.items())
            yield PictureBatch(batch.rows, batch.pixels, skipped)


def none_could_be_read(skipped: Sequence[tuple[int, str]]) -> ImageError:
    """The error for a list of pictures of which not one can be read."""
    count, (_, reason) = len(skipped), skipped[0]
    message = reason if count == 1 else f"not one of {count} pictures could be read; the first: {reason}"
    return ImageError(message, fix="check that the files are whole pictures")
