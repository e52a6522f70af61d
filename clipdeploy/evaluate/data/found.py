"""What all layouts share: pictures where they lie, text files, and lists of names in a message."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipdeploy.errors import InputError
from clipdeploy.runtime import suffixes

SPLITS = ("test", "val", "valid", "validation", "train", "training", "dev", "eval")
"""Names that part a dataset rather than name a class."""

_SHOWN = 4


@dataclass(frozen=True)
class OnDisk:
    """A picture file; called, it gives its path."""

    path: Path

    def __call__(self) -> Path:
        return self.path


def is_picture(name: str) -> bool:
    """Whether a file counts as a picture by its ending; hidden ones do not."""
    return not name.startswith(".") and name.lower().endswith(suffixes.PICTURES)


def folders_in(folder: Path) -> list[Path]:
    """Its folders by name, without hidden ones and those that systems leave behind."""
    with _readable(folder) as entries:
        return sorted(Path(e.path) for e in entries if e.is_dir() and not e.name.startswith((".", "__", "@")))


def pictures_in(folder: Path, *, deep: bool = True) -> Iterator[Path]:
    """Its pictures by name, and behind them those of its folders; links are followed, but no circles."""
    yield from _pictures(folder, {_identity(folder)}, deep=deep)


def _pictures(folder: Path, seen: set[tuple[int, int]], *, deep: bool) -> Iterator[Path]:
    with _readable(folder) as entries:
        yield from sorted(Path(e.path) for e in entries if is_picture(e.name) and e.is_file())
    for inner in folders_in(folder) if deep else ():
        if (identity := _identity(inner)) not in seen:
            yield from _pictures(inner, {*seen, identity}, deep=True)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _readable(folder: Path) -> os._ScandirIterator[str]:
    try:
        return os.scandir(folder)
    except OSError as error:
        raise InputError(f"folder {folder} cannot be read: {error.strerror}", fix="check its permissions") from error


def printable(name: str) -> str:
    """A file's name as text, also where the system has it in bytes that are not UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def name_of(folder: Path) -> str:
    """What a dataset is called: its folder, and for a split's also the one it is in."""
    resolved = folder.resolve()
    return printable(f"{resolved.parent.name}/{resolved.name}" if resolved.name.lower() in SPLITS else resolved.name)


def read_text(path: Path, *, what: str) -> str:
    """A UTF-8 text file, whole, without its byte order mark.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text: {error.reason} at byte {error.start}", fix="save it as UTF-8"
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", fix=f"name a text file with {what}") from error


def listed(names: Sequence[str]) -> str:
    """The first few of them, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(map(repr, names[:_SHOWN])) + (f" and {more} more" if more > 0 else "")
