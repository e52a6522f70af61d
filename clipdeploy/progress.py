"""How long work tells how far it is. The library calls back; only the command line prints."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as `progress(what, done, total)`; `total` is 0 while it is not known."""


def silent(what: str, done: int, total: int) -> None:
    """The progress that says nothing."""
