"""What an engine is: how it was made, its layers, and whether it is what was asked for."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from clipdeploy.engine.records import EngineRecord, EngineTensor
from clipdeploy.engine_key import ENGINE_FILE, ENGINES, RECORD_FILE
from clipdeploy.errors import BundleCorruptError, InputError

_BUILD_AGAIN = "build it again: clipdeploy build-engine --overwrite"


@dataclass(frozen=True)
class LayerKind:
    """Layers of one kind that read and write the same types.

    Attributes:
        kind: as the engine names it; empty where it does not tell.
        reads: types of the activations, such as `Half`.
        constants: types of weights and scales.
        writes: types of the results.
        count: how many layers.
    """

    kind: str
    reads: tuple[str, ...]
    constants: tuple[str, ...]
    writes: tuple[str, ...]
    count: int


@dataclass(frozen=True)
class EngineInfo:
    """What an engine is.

    Attributes:
        path: of the engine file.
        record: how it was made.
        kinds: its layers by kind and types, most frequent first.
    """

    path: Path
    record: EngineRecord
    kinds: tuple[LayerKind, ...]


def is_engine(path: Path) -> bool:
    """Whether a path names an engine: its folder, the engine file, or the record beside it."""
    return path.name in (ENGINE_FILE, RECORD_FILE) or path.suffix == ".plan" or (path / RECORD_FILE).is_file()


def inspect_engine(path: Path) -> EngineInfo:
    """What the engine is that `path` names; the engine file itself is not read, for only a GPU can.

    Args:
        path: the engine's folder, its `engine.plan` or its `engine.json`.

    Raises:
        InputError: there is nothing, or an engine without its record.
        BundleCorruptError: the record cannot be read, or the engine file is missing or of another size.
    """
    from clipdeploy.engine.store import read_record

    folder = path if path.is_dir() else path.parent
    plan, about = folder / ENGINE_FILE, folder / RECORD_FILE
    if not about.is_file():
        state = f"has no {RECORD_FILE} beside it" if path.exists() else "does not exist"
        raise InputError(
            f"{path} {state}; TensorRT's files do not say what they are without a GPU",
            fix=f"name a folder of BUNDLE/{ENGINES} that clipdeploy build-engine made",
        )
    record = read_record(about)
    if not plan.is_file():
        raise BundleCorruptError(f"the engine file {plan} is missing", fix=_BUILD_AGAIN)
    if plan.stat().st_size != record.size_bytes:
        raise BundleCorruptError(
            f"{plan} has {plan.stat().st_size} bytes, and {RECORD_FILE} says {record.size_bytes}", fix=_BUILD_AGAIN
        )
    return EngineInfo(plan, record, count_kinds(record))


def count_kinds(record: EngineRecord) -> tuple[LayerKind, ...]:
    """The layers of an engine by kind and types, most frequent first."""
    counts = Counter(
        (layer.kind, _types(layer.inputs), _types(layer.constants), _types(layer.outputs))
        for layer in record.report.layers
    )
    return tuple(LayerKind(*kind, count) for kind, count in counts.most_common())


def _types(tensors: tuple[EngineTensor, ...]) -> tuple[str, ...]:
    return tuple(sorted({tensor.dtype for tensor in tensors if tensor.dtype}))
