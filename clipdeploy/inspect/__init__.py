"""What is in a bundle, an engine, an ONNX graph or a checkpoint, as records."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from clipdeploy.bundle import MANIFEST
from clipdeploy.errors import InputError
from clipdeploy.inspect.bundles import BundleInfo, EngineSummary, ParitySummary, inspect_bundle
from clipdeploy.inspect.checkpoints import CheckpointInfo, inspect_checkpoint
from clipdeploy.inspect.engines import EngineInfo, LayerKind, inspect_engine, is_engine
from clipdeploy.inspect.graphs import GraphInfo, inspect_graph

__all__ = [
    "BundleInfo",
    "CheckpointInfo",
    "EngineInfo",
    "EngineSummary",
    "GraphInfo",
    "Kind",
    "LayerKind",
    "ParitySummary",
    "inspect_bundle",
    "inspect_checkpoint",
    "inspect_engine",
    "inspect_graph",
    "inspect_path",
    "kind_of",
]

Kind = Literal["bundle", "engine", "graph", "checkpoint"]


def kind_of(name: str) -> Kind:
    """What a user names: a folder with a manifest is a bundle, one with an `engine.json` an engine, `*.onnx` a graph,
    all else a checkpoint.

    Raises:
        InputError: it is written as a path, and nothing is there.
    """
    path = Path(name).expanduser()
    if path.name == MANIFEST or (path / MANIFEST).is_file():
        return "bundle"
    if is_engine(path):
        return "engine"
    if path.suffix.lower() == ".onnx":
        return "graph"
    if name.startswith(("/", "./", "../", "~")) and not path.exists():
        raise InputError(f"{name} does not exist", fix="check the path; it is read relative to " + str(Path.cwd()))
    return "checkpoint"


def inspect_path(path: str | Path, *, check_hashes: bool = True) -> BundleInfo | EngineInfo | GraphInfo:
    """Read a bundle's manifest, an engine's record or a graph's structure.

    Args:
        path: a bundle's folder (or its `manifest.json`), an engine's folder (or a file in it), or an `.onnx` file.
        check_hashes: read all files of a bundle and compare their sha256.

    Raises:
        InputError: the path is none of them.
        BundleError: the bundle cannot be opened, or the engine is not whole.
        MissingExtraError: a graph is given and onnx is not installed.
    """
    path = Path(path)
    if is_engine(path):
        return inspect_engine(path)
    if path.is_dir():
        return inspect_bundle(path, check_hashes=check_hashes)
    if path.name == MANIFEST:
        return inspect_bundle(path.parent, check_hashes=check_hashes)
    if path.suffix.lower() == ".onnx":
        return inspect_graph(path)
    state = "is neither" if path.exists() else "does not exist"
    raise InputError(
        f"{path} {state}; expected a bundle's or an engine's folder, or an .onnx file",
        fix="name the folder that clipdeploy export wrote",
    )
