"""Events to a file, one line of JSON each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TextIO

from clipdeploy.errors import OutputError
from clipdeploy.runtime.stream.records import Event
from clipdeploy.runtime.stream.sinks.base import event_as_json


class JsonLines:
    """Appends to a file, or writes to an open text stream.

    Each line is handed to the system at once. A file that was moved or deleted, as log rotation does, is made anew. On
    a full disk a line that went in half is completed as soon as there is room, so no line is ever torn. A stream that
    was given is left open at the end.

    Args:
        target: where to; the folder must exist.

    Raises:
        OutputError: the file cannot be opened.
    """

    def __init__(self, target: str | os.PathLike[str] | TextIO) -> None:
        self._stream: TextIO | None = None
        self._file: int | None = None
        self._rest = b""  # of a line that went in half
        self._half: Event | None = None  # whose line that is
        if isinstance(target, (str, os.PathLike)):
            self._path = Path(target)
            self.name = str(self._path)
            self._file = self._open()
        else:
            self._stream = target
            self.name = str(getattr(target, "name", "text stream"))

    def write(self, event: Event) -> None:
        """Append one line.

        Raises:
            OutputError: the disk is full, the folder is gone or the like; the line stays to be completed.
        """
        try:
            if self._stream is not None:
                self._stream.write(event_as_json(event) + "\n")
                self._stream.flush()
            else:
                self._append(event)
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            raise OutputError(f"cannot write to {self.name}: {error}") from error

    def _append(self, event: Event) -> None:
        if self._rest:
            self._drain()
            if self._half is event:
                return
        if self._file is None or not self._is_there(self._file):
            self._shut()
            self._file = self._open()
        # a lone surrogate, as from an odd file name, becomes the JSON escape that it is
        self._rest = (event_as_json(event) + "\n").encode("utf-8", "backslashreplace")
        whole, self._half = self._rest, event
        try:
            self._drain()
        except OSError:
            if self._rest == whole:  # nothing went in: nothing to complete
                self._rest, self._half = b"", None
            raise

    def _drain(self) -> None:
        """Write what is left of a line; a full disk takes a part, then refuses."""
        assert self._file is not None
        while self._rest:
            self._rest = self._rest[os.write(self._file, self._rest) :]

    def _is_there(self, file: int) -> bool:
        """Whether the path still leads to the file that is open."""
        try:
            return os.path.samestat(os.fstat(file), self._path.stat())
        except OSError:
            return False

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise OutputError(f"cannot open {self._path}: {error}", fix="choose a writable path") from error

    def _shut(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def close(self) -> None:
        """Close the file; a stream that was given stays open."""
        self._shut()
