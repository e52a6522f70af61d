"""The timing cache: how fast each kernel was on this GPU, so that a second build need not try them again.

The file holds what TensorRT writes, as `trtexec --timingCacheFile` does, and a note beside it, `FILE.json`, says which
version and GPU it is of. TensorRT for RTX times nothing and has no use for one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipdeploy.engine.product import Product
from clipdeploy.errors import EngineError, OutputError
from clipdeploy.writing import replacing, write_text

_OTHER = "name another file with --timing-cache; one is written where none is"


@dataclass(frozen=True)
class CacheOrigin:
    """What a timing cache is of; kernels of another version or GPU take other times."""

    backend: str
    version: str
    compute_capability: str


def note_path(path: Path) -> Path:
    """The note beside a timing cache."""
    return path.with_name(path.name + ".json")


def check_cache(path: Path, origin: CacheOrigin) -> None:
    """Raise before a long build where its cache is of another origin or could not be written."""
    if not path.parent.is_dir():
        raise OutputError(f"cannot write the timing cache {path}: there is no folder {path.parent}", fix=_OTHER)
    if path.is_dir():
        raise OutputError(f"cannot write the timing cache {path}: it is a folder", fix=_OTHER)
    written = _read_note(path)
    if written is not None and path.exists() and written != origin:
        differs = ", ".join(
            f"{name.replace('_', ' ')} {getattr(written, name)}, here {getattr(origin, name)}"
            for name in ("backend", "version", "compute_capability")
            if getattr(written, name) != getattr(origin, name)
        )
        raise EngineError(f"the timing cache {path} is of another machine: {differs}", fix=_OTHER)


def open_cache(config: Any, path: Path, product: Product) -> Any:
    """The cache to build with: what the file holds, or an empty one where there is none."""
    content = _read(path)
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        raise EngineError(f"{product} refuses the timing cache {path}: it is of another version or GPU", fix=_OTHER)
    return cache


def save_cache(config: Any, cache: Any, path: Path, origin: CacheOrigin) -> None:
    """Write what was learnt, and what another build has written meanwhile; raises OutputError."""
    content = _read(path)
    if content:
        meanwhile = config.create_timing_cache(content)
        if meanwhile is not None:
            cache.combine(meanwhile, False)
    serialised = cache.serialize()
    note = json.dumps(vars(origin), indent=2) + "\n"
    try:
        with replacing(path) as beside:
            beside.write_bytes(memoryview(serialised).cast("B"))
        write_text(note_path(path), note)
    except OSError as error:
        raise OutputError(f"cannot write the timing cache {path}: {error.strerror}", fix=_OTHER) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise EngineError(f"cannot read the timing cache {path}: {error.strerror}", fix=_OTHER) from error


def _read_note(path: Path) -> CacheOrigin | None:
    """What the note says, None where there is none or it is not one of ours."""
    try:
        data = json.loads(note_path(path).read_text(encoding="utf-8"))
        return CacheOrigin(data["backend"], data["version"], data["compute_capability"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
