"""Keeps open_clip's logging and warnings from the user's screen, and hands on what they say."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from clipdeploy.errors import CheckpointError

_PACKAGE = "/open_clip/"
# Said of every model that is made before its weights are read, which is how we make them all; which file to read of
# several is not left to open_clip.
_EXPECTED = (
    *("No pretrained weights loaded", "Local config loaded, but no CLIP weights"),
    "Multiple checkpoints found in",
)


class _Listener(logging.Handler):
    """Takes the records of open_clip and hands all others to the handlers it stands in for."""

    def __init__(self, instead_of: list[logging.Handler]) -> None:
        super().__init__()
        self.heard: list[str] = []
        self._others = instead_of

    def emit(self, record: logging.LogRecord) -> None:
        if _PACKAGE in record.pathname.replace("\\", "/"):
            if record.levelno >= logging.WARNING:
                self.heard.append(record.getMessage())
            return
        for handler in self._others:
            if record.levelno >= handler.level:
                handler.handle(record)


@contextmanager
def no_complaints(label: str) -> Iterator[None]:
    """Run the block in silence; raise CheckpointError for what open_clip only warns of.

    Args:
        label: what is being loaded, for the message.
    """
    root = logging.getLogger()
    before = root.handlers[:]
    listener = _Listener(before)
    # open_clip logs through the root logger; with no handler there, Python would add one that prints.
    root.handlers[:] = [listener]
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        root.handlers[:] = before
    said = [str(w.message) for w in caught if _PACKAGE in w.filename and issubclass(w.category, UserWarning)]
    complaints = [text for text in (*listener.heard, *said) if not text.startswith(_EXPECTED)]
    if complaints:
        raise CheckpointError(
            f"{label}: open_clip warns: {'; '.join(complaints)}",
            fix="put right what the warning names; a model that is loaded in spite of it may be silently wrong",
        )
