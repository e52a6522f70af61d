"""The folder of a bundle: where it may be made, how it takes its place, and whether its files are what the manifest
says."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from clipdeploy.errors import BundleCorruptError, OutputError
from clipdeploy.locks import locked
from clipdeploy.manifest import COPY_AGAIN, MANIFEST, Manifest
from clipdeploy.writing import inside

LOCK = ".lock"
"""Of the bundle, while files are added; not part of it."""


def path_inside(folder: Path, name: str) -> Path:
    """The path of a bundle's file, which must stay inside the folder; raises BundleCorruptError."""
    path = inside(folder, name)
    if path is None:
        raise BundleCorruptError(
            f"bundle {folder}: file name {name!r} leaves the bundle's folder",
            fix="do not use this bundle; export the checkpoint again",
        )
    return path


def check_files(folder: Path, manifest: Manifest, sha256: Callable[[Path], str] | None) -> None:
    """Raise BundleCorruptError unless every file is there as the manifest says; with `sha256` of its content."""
    for name in manifest.files:
        _check_size(folder, manifest, name)
    if sha256 is not None:
        from concurrent.futures import ThreadPoolExecutor  # a third of this module's import time

        with ThreadPoolExecutor() as pool:
            list(pool.map(partial(_check_hash, folder, manifest, sha256), manifest.files))


def check_target(folder: Path, *, overwrite: bool) -> None:
    """Raise OutputError when a bundle must not be written to `folder`."""
    if not os.path.lexists(folder):
        return
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if not (folder / MANIFEST).is_file():
        raise OutputError(f"{folder} exists and is not a bundle", fix="choose another folder with -o")
    if not overwrite:
        raise OutputError(f"{folder} exists already", fix="choose another folder with -o, or pass --overwrite")


def take_place(work: Path, folder: Path) -> None:
    """Put the finished `work` where `folder` is, keeping the old one until the new one stands."""
    if not folder.exists():
        work.rename(folder)
        return
    with locked(folder / LOCK):  # nobody is adding to it
        _replace(work, folder)


def stamp(folder: Path) -> tuple[int, ...]:
    """Tells one manifest from the next, which is another file; empty where there is none."""
    try:
        facts = (folder / MANIFEST).stat()
    except OSError:
        return ()
    return facts.st_ino, facts.st_mtime_ns, facts.st_size


def _check_size(folder: Path, manifest: Manifest, name: str) -> None:
    path, entry = path_inside(folder, name), manifest.files[name]
    if not path.is_file():
        raise BundleCorruptError(f"bundle {folder}: {name} is missing", fix=COPY_AGAIN)
    size = path.stat().st_size
    if size != entry.size_bytes:
        state = "truncated" if size < entry.size_bytes else "altered"
        raise BundleCorruptError(
            f"bundle {folder}: {name} is {state}: {size} bytes, expected {entry.size_bytes}", fix=COPY_AGAIN
        )


def _check_hash(folder: Path, manifest: Manifest, sha256: Callable[[Path], str], name: str) -> None:
    try:
        actual, expected = sha256(path_inside(folder, name)), manifest.files[name].sha256
    except OSError as error:
        raise BundleCorruptError(f"bundle {folder}: {name} cannot be read: {error}", fix=COPY_AGAIN) from error
    if actual != expected:
        raise BundleCorruptError(
            f"bundle {folder}: {name} is altered: sha256 {actual[:12]}..., expected {expected[:12]}...",
            fix=COPY_AGAIN,
        )


def _replace(work: Path, folder: Path) -> None:
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
    folder.rename(old)
    try:
        work.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
