"""What was found out about this machine and need not be found out again: verdicts of self-tests, times of backends.

It lies in a file of the user's cache folder, and is nothing but a saving of time: where the file cannot be read or
written, things are remembered for as long as the process lives, and nobody is told.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from threading import RLock
from typing import Any

from clipdeploy.errors import OutputError
from clipdeploy.locks import locked_if_free
from clipdeploy.writing import write_text

FILE = "remembered.json"
_FORMAT = 1
_MOST = 500
_WAIT_S, _POLL_S = 2.0, 0.02
"""How long a write waits for another process; a write takes some milliseconds."""

Key = Mapping[str, object]
"""Everything that the thing depends on, of what JSON holds."""


def cache_folder() -> Path:
    """Where this machine keeps what can be made again: CLIPDEPLOY_CACHE, or clipdeploy's place in the user's cache.

    The folder may not be there yet. A user without a home gets one that goes when the process ends.
    """
    environment = os.environ
    if own := environment.get("CLIPDEPLOY_CACHE"):
        return Path(own).absolute()
    shared = environment.get("XDG_CACHE_HOME", "")
    if shared and Path(shared).is_absolute():  # what is not is to be ignored, as the XDG specification says
        return Path(shared) / "clipdeploy"
    try:
        return Path.home() / ".cache" / "clipdeploy"
    except RuntimeError:
        return Path(_short_lived().name)


class Remembered:
    """A file of things to remember. Safe to share between threads, and between processes.

    Args:
        path: of the file; None takes the one of the user's cache folder.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or cache_folder() / FILE
        self._own: dict[str, Any] = {}
        self._lock = RLock()

    def get(self, kind: str, key: Key) -> Any | None:
        """What was put under a key, None where nothing was or it is forgotten.

        Args:
            kind: what it is, such as `self-test`.
            key: everything that it depends on.
        """
        name = _name(kind, key)
        with self._lock:
            if name in self._own:
                return self._own[name]["value"]
        entry = _read(self.path).get(name)
        return None if entry is None else entry["value"]

    def put(self, kind: str, key: Key, value: object) -> None:
        """Remember something that JSON holds; the oldest is forgotten where there is too much."""
        name, entry = _name(kind, key), {"kind": kind, "key": dict(key), "value": value, "when": time.time()}
        with self._lock:
            self._own[name] = entry
            _bounded(self._own)
            self._change(name, entry)

    def forget(self, kind: str, key: Key) -> None:
        """Remove what was put under a key."""
        name = _name(kind, key)
        with self._lock:
            self._own.pop(name, None)
            self._change(name, None)

    def _change(self, name: str, entry: dict[str, Any] | None) -> None:
        """Put one entry into the file, or take it out; what others have put there stays."""
        with contextlib.suppress(OSError, OutputError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            ends = time.monotonic() + _WAIT_S
            while time.monotonic() < ends:
                with locked_if_free(self.path.with_suffix(".lock")) as held:
                    if held:
                        entries = _read(self.path)
                        entries.pop(name, None)
                        if entry is not None:
                            entries[name] = entry
                        write_text(self.path, json.dumps({"format": _FORMAT, "entries": _bounded(entries)}, indent=1))
                        return
                time.sleep(_POLL_S)


def this_machines() -> Remembered:
    """What everything in this process remembers together."""
    return _of(cache_folder() / FILE)


@cache
def _of(path: Path) -> Remembered:
    return Remembered(path)


def _name(kind: str, key: Key) -> str:
    return hashlib.sha256(json.dumps([kind, dict(key)], sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    """The entries of a file; none where it is not there, or not what was written."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != _FORMAT:
            return {}
        return {
            str(name): entry
            for name, entry in data["entries"].items()
            if "value" in entry and isinstance(entry.get("when"), (int, float))
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _bounded(entries: dict[str, Any]) -> dict[str, Any]:
    """The same, in place, without the oldest beyond what is kept."""
    for name in sorted(entries, key=lambda name: entries[name]["when"])[: max(0, len(entries) - _MOST)]:
        del entries[name]
    return entries


@cache
def _short_lived() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="clipdeploy-")
