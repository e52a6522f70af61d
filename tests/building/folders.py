"""What a bundle's folder holds, to see whether a failed build left a trace."""

from __future__ import annotations

import hashlib
from pathlib import Path

from clipdeploy.bundle import Bundle


def content(folder: Path) -> dict[str, str]:
    """Name -> hash of every file that is not hidden; the bundle must open."""
    Bundle.open(folder)
    names = (path for path in sorted(folder.rglob("*")) if path.is_file())
    shown = (path for path in names if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in shown}


def hidden(folder: Path) -> list[str]:
    """Names in the folder that begin with a dot: what is left of work in progress."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))
