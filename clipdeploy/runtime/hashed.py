"""Bundles opened without reading again what this machine has read before.

A file's sha256 is remembered with its size, its inode, and the times of its last change, in what the machine remembers
(`remembered.py`). As long as these are the same it is not read again: whoever writes to a file, replaces it, or sets
its time back, changes at least the time at which the system noted that (ctime), and no program sets that one. On
Windows, which keeps no such time, a file whose time is set back is not seen. Nowhere is a disk that decays by itself:
to read everything there are `check_hashes="again"` and `clipdeploy verify`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Literal

from clipdeploy.bundle import Bundle
from clipdeploy.errors import InputError
from clipdeploy.manifest import sha256_file
from clipdeploy.runtime.remembered import Remembered, this_machines

CheckHashes = bool | Literal["again"]
"""True compares the sha256 of every file, and reads those only that changed since this machine last read them; `again`
reads all; False compares sizes."""

KIND = "sha256 1"
_SETTLED_NS = 3_000_000_000
"""A file must have lain still for so long before it was read: two changes within one tick of a file system's clock, 2 s
at most, leave the same time behind."""


def open_bundle(bundle: str | Path | Bundle, check_hashes: CheckHashes = True) -> Bundle:
    """An opened bundle as it is; a folder opened, and its files checked.

    Raises:
        BundleError: as `Bundle.open`.
        InputError: another word than `again`.
    """
    if check_hashes not in (True, False, "again"):
        raise InputError(f'check_hashes must be True, False or "again", got {check_hashes!r}')
    if isinstance(bundle, Bundle):
        return bundle
    if check_hashes is not True:
        return Bundle.open(bundle, check_hashes=bool(check_hashes))
    hashes = RememberedHashes(Path(bundle), this_machines())
    opened = Bundle.open(bundle, sha256=hashes.sha256)
    hashes.keep()
    return opened


class RememberedHashes:
    """The sha256 of files in one folder. Safe to share between threads.

    Args:
        folder: they are remembered together under its place.
        store: what this machine remembers.
    """

    def __init__(self, folder: Path, store: Remembered) -> None:
        self._folder, self._key, self._store = folder, {"folder": os.path.realpath(folder)}, store
        known = store.get(KIND, self._key)
        self._known: dict[str, list[object]] = known if isinstance(known, dict) else {}
        self._now: dict[str, list[object]] = {}

    def sha256(self, path: Path) -> str:
        """Of the content of a file in the folder, hexadecimal; raises OSError where it cannot be read."""
        name, facts, began = path.relative_to(self._folder).as_posix(), _facts(path), time.time_ns()
        known = self._known.get(name)
        if isinstance(known, list) and known[1:] == facts and isinstance(known[0], str):
            self._now[name] = known
            return known[0]
        sha256 = sha256_file(path)
        if _facts(path) == facts and max(facts[2:]) < began - _SETTLED_NS:
            self._now[name] = [sha256, *facts]
        return sha256

    def keep(self) -> None:
        """Remember what was found, where it is something new."""
        if self._now != self._known:
            self._store.put(KIND, self._key, self._now)


def _facts(path: Path) -> list[int]:
    """What changes when the file does: size, inode, and in ns when its content and when anything of it was changed."""
    told = path.stat()
    return [told.st_size, told.st_ino, told.st_mtime_ns, told.st_ctime_ns]
