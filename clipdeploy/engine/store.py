"""Engines in a bundle: where they lie, who may build one, how one is found and taken in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from clipdeploy.bundle import Bundle, NewFile
from clipdeploy.engine.records import EngineRecord
from clipdeploy.engine_key import ENGINE_FILE, ENGINES, RECORD_FILE, EngineKey
from clipdeploy.errors import BundleCorruptError, EngineError, InputError, OutputError
from clipdeploy.locks import locked, locked_if_free
from clipdeploy.progress import Progress, silent
from clipdeploy.runtime.engines import (
    engine_graph,
    engines_of,
    graph_files,
    graph_now,
    graph_sha256,
    stale_engines,
)
from clipdeploy.spec import from_dict, to_dict

__all__ = [
    "TIMING_FILE",
    "add_engine",
    "building",
    "engine_folder",
    "engine_graph",
    "find",
    "graph_sha256",
    "read_record",
    "record_text",
    "remove_engines",
    "remove_stale",
    "stale_engines",
]

TIMING_FILE = "timing.cache"
"""Beside an engine: what the builder measured, which makes the next build on such a machine shorter."""
_RECORD_VERSION = 1


def engine_folder(bundle: Bundle, key: EngineKey) -> Path:
    """Where the engine of a key lies, or would."""
    return bundle.folder / ENGINES / key.name


@contextmanager
def building(bundle: Bundle, key: EngineKey, *, progress: Progress = silent) -> Iterator[Path]:
    """Be the only process that builds this engine; waits while another does, and says so.

    Gives an empty folder on the bundle's disk for what the build writes, which is gone afterwards. Ask `find` again
    inside the block: the process that was waited for may have built it. A process that is killed lets go at once, and
    what it wrote goes with the next build.

    Args:
        bundle: takes over what was added to it while this one waited.
        key: of the engine.
        progress: told of the waiting.

    Raises:
        OutputError: the bundle cannot be written to.
    """

    def waiting(holder: str) -> None:
        progress(f"waiting for {holder}, which builds the same engine", 0, 0)

    lock, work = _lock_and_work(bundle.folder, key.name)
    with locked(lock, waiting=waiting):
        bundle.refresh()
        _sweep(bundle.folder)
        shutil.rmtree(work, ignore_errors=True)
        try:
            work.mkdir()
        except OSError as error:
            raise OutputError(f"cannot write to {bundle.folder}: {error}", fix="choose another bundle") from error
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def find(bundle: Bundle, key: EngineKey) -> EngineRecord | None:
    """The record of exactly this engine; None where the bundle has none, or its graph is another one by now.

    Raises:
        BundleCorruptError: there is a record and it cannot be read.
    """
    record, plan = _names(key)
    if not {record, plan} <= bundle.manifest.files.keys():
        return None
    if key.graph_sha256 != graph_now(bundle, key.tower, key.precision, key.frame):
        return None
    found = read_record(bundle.path(record))
    return found if found.key == key else None


def add_engine(
    bundle: Bundle,
    record: EngineRecord,
    plan: Path,
    *,
    timing_cache: Path | None = None,
    progress: Progress = silent,
) -> Path:
    """Take an engine into the bundle, in place of one of the same key; all of it or nothing.

    Args:
        bundle: whose graph the engine was built from.
        record: how it was made.
        plan: the engine file; it is copied.
        timing_cache: what the builder measured, kept beside the engine; None keeps none.
        progress: told when another process is writing to the bundle.

    Returns:
        the engine's folder.

    Raises:
        EngineError: the record does not go with the engine file, or with the graph.
        OutputError: no room, or the bundle cannot be written to, or its graph was replaced while the engine was built.
    """
    key = record.key
    made_from = graph_files(bundle, record.graph, key.frame)
    if graph_sha256(bundle, record.graph, key.frame) != key.graph_sha256:
        raise EngineError(
            f"{' behind '.join(_sources(record))} of bundle {bundle.folder} is not the graph that engine {key.name} "
            "was built from",
            fix="run the command again",
        )
    size = plan.stat().st_size if plan.is_file() else 0
    if size != record.size_bytes or size == 0:
        raise EngineError(f"{plan} is no whole engine: {size} bytes, expected {record.size_bytes}", fix="build it anew")
    origin = f"build-engine of {' behind '.join(_sources(record))} with {key.backend} {key.version}"
    told: dict[str, Any] = {"origin": origin, "tower": key.tower, "precision": key.precision}
    record_name, plan_name = _names(key)
    timing_name = f"{ENGINES}/{key.name}/{TIMING_FILE}"
    _sweep(bundle.folder)
    with TemporaryDirectory(prefix="clipdeploy-") as scratch:
        about = Path(scratch) / RECORD_FILE
        about.write_text(record_text(record), encoding="utf-8")
        files = [NewFile(plan_name, plan, "engine", **told), NewFile(record_name, about, "report", **told)]
        files += [NewFile(timing_name, timing_cache, "report", **told)] if timing_cache is not None else []
        without = [timing_name] if timing_cache is None else []
        bundle.add_all(files, without=without, unchanged=made_from, progress=progress)
    return engine_folder(bundle, key)


def remove_engines(bundle: Bundle, names: Collection[str], *, progress: Progress = silent) -> None:
    """Take engines out of the bundle, by the names of their folders.

    Raises:
        InputError: there is no engine of that name.
        OutputError: the bundle cannot be written to.
    """
    have = engines_of(bundle)
    for name in names:
        if name not in have:
            raise InputError(f"bundle {bundle.folder} has no engine {name!r}; it has {', '.join(have) or 'none'}")
    leaving = [file for file in bundle.manifest.files if file.startswith(tuple(f"{ENGINES}/{name}/" for name in names))]
    if leaving:
        bundle.add_all([], without=leaving, progress=progress)


def remove_stale(bundle: Bundle, *, progress: Progress = silent) -> tuple[str, ...]:
    """Take the engines out whose graph is no longer in the bundle; returns the names of their folders."""
    names = tuple(stale_engines(bundle))
    remove_engines(bundle, names, progress=progress)
    return names


def record_text(record: EngineRecord) -> str:
    """The content of `engine.json`."""
    return json.dumps({"record_version": _RECORD_VERSION, **to_dict(record)}, indent=2, ensure_ascii=False) + "\n"


def read_record(path: Path) -> EngineRecord:
    """Read an `engine.json`.

    Raises:
        BundleCorruptError: it is missing, no record of an engine, or written by a newer version.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        version = data.pop("record_version")
        if version != _RECORD_VERSION:
            raise BundleCorruptError(
                f"{path} is an engine's record of version {version}; this clipdeploy reads {_RECORD_VERSION}",
                fix="pip install --upgrade clipdeploy",
            )
        return from_dict(EngineRecord, data, where=path.name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # InputError is a ValueError
        raise BundleCorruptError(
            f"{path} is no record of an engine: {error}",
            fix="copy the bundle again, whole, or build the engine anew: clipdeploy build-engine --overwrite",
        ) from error


def _sources(record: EngineRecord) -> tuple[str, ...]:
    """The graphs that an engine is made from, the last one first."""
    frame = record.key.frame
    return (record.graph,) if frame is None else (record.graph, frame.graph_name)


def _names(key: EngineKey) -> tuple[str, str]:
    """Of the record and the engine file, inside the bundle."""
    return f"{ENGINES}/{key.name}/{RECORD_FILE}", f"{ENGINES}/{key.name}/{ENGINE_FILE}"


def _lock_and_work(folder: Path, name: str) -> tuple[Path, Path]:
    """Both hidden in the bundle's folder, and named by no manifest."""
    return folder / f".{name}.lock", folder / f".{name}.work"


def _sweep(folder: Path) -> None:
    """Remove what killed builds of other engines left."""
    with suppress(OutputError):  # a bundle that nobody can write to says so where it matters
        for work in folder.glob(".*.work"):
            with locked_if_free(work.with_suffix(".lock")) as free:
                if free:
                    shutil.rmtree(work, ignore_errors=True)
