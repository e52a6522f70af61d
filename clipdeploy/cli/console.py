"""Where a verb's words go: the result to stdout; progress, notes and errors to stderr."""

from __future__ import annotations

import json
import math
import os
import sys
import traceback
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any, TextIO

import click

from clipdeploy.cli.exit_codes import ExitCode
from clipdeploy.cli.progress import ProgressLine
from clipdeploy.text import encodable


class Console:
    """The streams of one run of a verb.

    Args:
        as_json: the result is one JSON document.
        quiet: no progress and no notes; results, warnings and errors stay.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.out: TextIO = sys.stdout
        self.err: TextIO = sys.stderr
        self.as_json = as_json
        self.quiet = quiet
        self.resume_hint: str | None = None
        self.progress = ProgressLine(self.err, terminal=is_terminal(self.err), enabled=not quiet)

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *args: object) -> None:
        self.progress.close()

    @property
    def unicode(self) -> bool:
        """Whether stdout can show block characters."""
        return encodable("█▏─", self.out)

    def style(self, text: str, **style: Any) -> str:
        """`text` in a colour, where stdout shows colours."""
        return click.style(text, **style) if colours(self.out) else text

    def result(self, document: Mapping[str, Any], text: str) -> None:
        """Print the result: `document` under --json, `text` otherwise."""
        self.progress.close()
        self._write(self.out, to_json(document, self.out) if self.as_json else text)

    def note(self, text: str) -> None:
        """Say something that is good to know; --quiet leaves it out."""
        if not self.quiet:
            self.progress.erase()
            self._write(self.err, text)

    def warn(self, text: str) -> None:
        """Say something that the user must know."""
        self.progress.erase()
        self._write(self.err, f"{self._paint('warning:', 'yellow')} {text}")

    def failure(self, message: str, fix: str | None, *, kind: str) -> ExitCode:
        """Say what is wrong and how to fix it; the exit code for that."""
        self.progress.close()
        if self.as_json:
            document = {"error": {"kind": kind, "message": message, "fix": fix}}
            self._write(self.out, to_json(document, self.out))
        self._write(self.err, f"{self._paint('error:', 'red')} {message}")
        if fix:
            self._write(self.err, f"  {self._paint('fix:', 'green')} {fix}")
        return ExitCode.FAILED

    def interrupted(self) -> None:
        """Say that the user ended the work."""
        self.progress.close()
        self._write(self.err, "interrupted" + (f"; {self.resume_hint}" if self.resume_hint else ""))

    def traceback(self, error: Exception) -> None:
        """Show where an error comes from."""
        self.progress.close()
        self._write(self.err, "".join(traceback.format_exception(error)).rstrip())

    def _paint(self, text: str, colour: str) -> str:
        return click.style(text, fg=colour, bold=True) if colours(self.err) else text

    def _write(self, stream: TextIO, text: str) -> None:
        encoding = stream.encoding or "utf-8"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()


def is_terminal(stream: TextIO) -> bool:
    """Whether a line on `stream` can be drawn over."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def colours(stream: TextIO) -> bool:
    """Whether to colour: only on a terminal, and never where NO_COLOR is set (https://no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def to_json(document: Mapping[str, Any], stream: TextIO) -> str:
    """The document as JSON that `stream` can carry; numbers that JSON lacks (NaN, infinity) become null."""
    text = json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False)
    return text if encodable(text, stream) else json.dumps(_plain(document), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
