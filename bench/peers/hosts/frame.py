"""What all hosts share: a process that loads a peer once and answers how long its work took.

Stand-alone: the standard library, and `clipdeploy/benchmark/serving.py` by its path, whatever the environment holds.
Heavy imports belong into a host's class, so that they count when import and first answer are measured.
"""

from __future__ import annotations

import array
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

Rows = Iterable[Sequence[float]]
"""Embeddings, one a row: anything that can be gone through, numbers and all."""


class Encoder(Protocol):
    """A peer in one of its modes."""

    def files(self, paths: list[str], batch: int) -> Rows:
        """Embeddings of files, as the peer reads many."""

    def file(self, path: str) -> Rows:
        """One row: the embedding of one file."""

    def texts(self, texts: list[str], batch: int) -> Rows:
        """Embeddings of texts."""


def serve(make: Callable[..., Any]) -> None:
    """Answer the parent. `make(checkpoint, threads)` loads the peer and returns what `mode(**settings)` is asked of."""
    asked = json.loads(sys.argv[1])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: asked["threads"]])
    serving = _serving(asked["serving"])
    process = _Process(make, Path(asked["checkpoint"]), asked["threads"], serving)
    serving.serve(
        {
            "first": process.first,
            "folder": process.folder,
            "single": process.single,
            "texts": process.texts,
            "vectors": process.vectors,
            "memory": serving.memory,
        }
    )


class _Process:
    def __init__(self, make: Callable[..., Any], checkpoint: Path, threads: int, serving: Any) -> None:
        self._make, self._checkpoint, self._threads, self._serving = make, checkpoint, threads, serving
        self._peer: Any = None
        self._modes: dict[str, Encoder] = {}

    def first(self, settings: dict[str, Any], path: str) -> dict[str, int]:
        """Import, load, embed one file; what memory that took. The parent looks at the clock."""
        _rows(self._mode(settings).file(path))
        return self._serving.memory()  # type: ignore[no-any-return]

    def folder(self, settings: dict[str, Any], paths: list[str], batch: int) -> float:
        """Wall time of all files, in ms."""
        mode = self._mode(settings)
        return _timed(lambda: mode.files(paths, batch))

    def single(self, settings: dict[str, Any], paths: list[str]) -> list[float]:
        """Wall time of each file by itself, in ms."""
        mode = self._mode(settings)
        return [_timed(lambda path=path: mode.file(path)) for path in paths]  # type: ignore[misc]

    def texts(self, settings: dict[str, Any], texts: list[str], batch: int) -> float:
        """Wall time of all texts, in ms."""
        mode = self._mode(settings)
        return _timed(lambda: mode.texts(texts, batch))

    def vectors(self, settings: dict[str, Any], to: str, paths: list[str], texts: list[str], batch: int) -> list[int]:
        """Write embeddings to a file as float32, of the files and then of the texts; how many numbers each has."""
        mode = self._mode(settings)
        rows = _rows(mode.files(paths, batch)) if paths else []
        rows += _rows(mode.texts(texts, batch)) if texts else []
        with open(to, "wb") as file:  # noqa: PTH123
            for row in rows:
                array.array("f", [float(value) for value in row]).tofile(file)
        return [len(row) for row in rows]

    def _mode(self, settings: dict[str, Any]) -> Encoder:
        if self._peer is None:
            self._peer = self._make(self._checkpoint, self._threads)
        key = json.dumps(settings, sort_keys=True)
        if key not in self._modes:
            self._modes[key] = self._peer.mode(**settings)
        return self._modes[key]


def _timed(call: Callable[[], Rows]) -> float:
    started = time.perf_counter()
    _rows(call())
    return (time.perf_counter() - started) * 1e3


def _rows(rows: Rows) -> list[Sequence[float]]:
    """All of them, here and now: some peers answer as they are asked."""
    return rows if isinstance(rows, list) else list(rows)


def in_batches(items: list[Any], batch: int) -> list[list[Any]]:
    """The items, `batch` at a time; the last may be fewer."""
    return [items[start : start + batch] for start in range(0, len(items), batch)]


def threads_of_torch(threads: int) -> None:
    """Let PyTorch have that many."""
    import torch

    torch.set_num_threads(threads)
    with suppress(RuntimeError):  # once only
        torch.set_num_interop_threads(1)


def _serving(path: str) -> Any:
    spec = importlib.util.spec_from_file_location("serving", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
