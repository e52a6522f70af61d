"""Files written whole or not at all: beside their place first, then renamed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from clipdeploy.errors import OutputError

STAGING = ".adding"
"""Folder inside the folder that files are exchanged in; it is there while they are, and after a process was killed."""
_RENAMING_S = 10.0
"""How long files may take to change places, on the slowest disk; they have been copied by then."""
_NEW, _OLD, _UNDO = "new", "old", "undo.json"
_BEFORE, _BETWEEN, _AFTER = "before", "between", "after"


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A temporary path beside `target`, which replaces it when the block ends well and is removed otherwise."""
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        beside.chmod(0o644)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(target) as beside:
        beside.write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class Index:
    """The file that names all others of a folder, as the text it holds while they are exchanged.

    Attributes:
        name: of the file.
        between: names none of the files that are replaced or leave.
        after: names all as they shall be.
    """

    name: str
    between: str
    after: str


def inside(folder: Path, name: str) -> Path | None:
    """The path of `name` in `folder`; None where it leaves the folder, by itself or through a link."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or not pure.parts:
        return None
    path = folder / pure
    return path if path.resolve().is_relative_to(folder.resolve()) else None


def exchange(
    folder: Path, new: Mapping[str, Path], leaving: Sequence[str], index: Index, *, durable: bool = True
) -> None:
    """Copy files into a folder, and take others away, all or none, even if the process is killed at any time.

    All contents are copied to a hidden folder first, with a list of what to undo. Then the index stops naming what
    changes, the files take their places, and the index names them: at every moment what it names is there, whole.
    One process at a time may do this, and calls `settle` first, which puts right what a killed one left.

    Args:
        folder: where.
        new: name inside the folder -> its content.
        leaving: names.
        index: as above.
        durable: also after a power cut; False where the whole folder is still in the making.

    Raises:
        OSError: they cannot be written; all is as it was.
    """
    try:
        _stage(folder, new, leaving, index, to_disk=_to_disk if durable else _leave)
        _place(folder, list(new), index, to_disk=_to_disk if durable else _leave)
    finally:
        settle(folder, index.name)


def settle(folder: Path, index: str) -> None:
    """Bring an exchange to its end: put the folder back to what it was, or, behind the last step, clean up.

    Raises:
        OutputError: what lies there was not written by an exchange.
    """
    stage = folder / STAGING
    if not os.path.lexists(stage):
        return
    if (stage / _UNDO).exists():  # without a list nothing has moved yet
        new, old = _read_undo(folder)
        if (stage / _AFTER).exists():  # without the last index all has
            _put_back(folder, new, old, index)
        _remove_empty(folder, [*new, *old])
    shutil.rmtree(stage, ignore_errors=True)


def _put_back(folder: Path, new: Sequence[Path], old: Sequence[Path], index: str) -> None:
    stage = folder / STAGING
    for number, path in enumerate(new):
        if path not in old and not (stage / _NEW / str(number)).exists():
            path.unlink(missing_ok=True)
    for number, path in enumerate(old):
        if (stage / _OLD / str(number)).exists():
            (stage / _OLD / str(number)).replace(path)
    if (stage / _BEFORE).exists():
        (stage / _BEFORE).replace(folder / index)


def wait_for_exchange(folder: Path, *, busy: Callable[[], bool]) -> None:
    """Wait while files are replaced, since they are missing for that moment, unless their process was killed.

    Args:
        folder: where.
        busy: whether that process lives.
    """
    until = time.monotonic() + _RENAMING_S
    while (folder / STAGING / _OLD).is_dir() and busy() and time.monotonic() < until:
        time.sleep(0.005)


def check_space(folder: Path, needed_bytes: int) -> None:
    """Raise OutputError when the folder's disk has not this much room."""
    if needed_bytes > shutil.disk_usage(folder).free:
        raise full_disk(folder, needed_bytes)


def full_disk(folder: Path, needed_bytes: int, error: OSError | None = None) -> OutputError:
    """The error that says how much room a folder's disk lacks."""
    free = shutil.disk_usage(folder).free
    missing = max(needed_bytes - free, 0)
    why = f" ({error.strerror})" if error and not missing else ""  # a quota, or no room for names
    return OutputError(
        f"the disk of {folder} is full{why}: {needed_bytes / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free; "
        "nothing was changed",
        fix=f"free {missing / 1e6:.1f} MB there" if missing else "free some space there",
    )


def _stage(
    folder: Path, new: Mapping[str, Path], leaving: Sequence[str], index: Index, *, to_disk: Callable[[Path], None]
) -> None:
    """Everything that takes space, before anything moves."""
    stage = folder / STAGING
    (stage / _NEW).mkdir(parents=True)
    texts = {_AFTER: index.after}
    copies = {f"{_NEW}/{number}": source for number, source in enumerate(new.values())}
    old = [name for name in dict.fromkeys((*new, *leaving)) if (folder / name).exists()]
    if old:
        texts[_BETWEEN] = index.between
        copies[_BEFORE] = folder / index.name
    for name, source in copies.items():
        shutil.copyfile(source, stage / name)
    texts[f"{_UNDO}.part"] = json.dumps({_NEW: list(new), _OLD: old})
    for name, text in texts.items():
        (stage / name).write_text(text, encoding="utf-8")
    for name in (*copies, *texts):
        (stage / name).chmod(0o644)
        to_disk(stage / name)
    (stage / f"{_UNDO}.part").replace(stage / _UNDO)
    to_disk(stage)


def _place(folder: Path, new: Sequence[str], index: Index, *, to_disk: Callable[[Path], None]) -> None:
    """Renames only."""
    stage = folder / STAGING
    _, old = _read_undo(folder)
    if old:
        (stage / _OLD).mkdir()
        (stage / _BETWEEN).replace(folder / index.name)
        to_disk(folder)
        for number, path in enumerate(old):
            path.replace(stage / _OLD / str(number))
    for number, name in enumerate(new):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (stage / _NEW / str(number)).rename(folder / name)
    for parent in {(folder / name).parent for name in new}:
        to_disk(parent)
    # In one step: before it what was there can be had back, behind it the new stands.
    (stage / _AFTER).replace(folder / index.name)
    to_disk(folder)


def _read_undo(folder: Path) -> tuple[list[Path], list[Path]]:
    """Which files are placed, and which make room. A bundle may come from anywhere, and with it this list."""
    stage = folder / STAGING
    strange = OutputError(f"{stage} does not come from clipdeploy", fix=f"look at it, then remove it: rm -r {stage}")
    try:
        told = json.loads((stage / _UNDO).read_text(encoding="utf-8"))
        new, old = ([inside(folder, str(name)) for name in told[what]] for what in (_NEW, _OLD))
    except (ValueError, KeyError, TypeError) as error:
        raise strange from error
    if stage.is_symlink() or None in (*new, *old):
        raise strange
    return [path for path in new if path], [path for path in old if path]


def _to_disk(path: Path) -> None:
    """What was written to a file, or renamed in a folder, safe from a power cut."""
    if path.is_dir() and sys.platform == "win32":
        return
    handle = os.open(path, os.O_RDONLY if sys.platform != "win32" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _leave(_: Path) -> None:
    """Leave it to the system when to write."""


def _remove_empty(folder: Path, paths: Sequence[Path]) -> None:
    """Remove the folders that held these files, where nothing else is in them."""
    for path in paths:
        for parent in path.parents:
            if parent == folder:
                break
            with contextlib.suppress(OSError):  # not empty, or never made
                parent.rmdir()
