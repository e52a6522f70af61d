"""A bundle at work on a device, without PyTorch. The public face is `clipdeploy` itself, and `Stream` here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipdeploy.runtime.stream.stream import Stream

__all__ = ["Stream"]


def __getattr__(name: str) -> Any:
    """The stream, imported when first asked for, with all that it stands on."""
    if name == "Stream":
        from clipdeploy.runtime.stream.stream import Stream

        return Stream
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
