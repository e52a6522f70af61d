"""ONNX files: read, write whole or not at all, and say what is in them.

Weights are stored inside the file up to `INLINE_LIMIT_BYTES`, since a protobuf message cannot exceed 2 GB, and beyond
that in one file beside it, `NAME.onnx.data`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir

from clipdeploy.graphs.inline import write_inline

INLINE_LIMIT_BYTES = 1_900_000_000
"""Weights beyond this lie beside the graph: protobuf's limit of 2 GiB, less room for the graph itself."""

SMALL_TENSOR_BYTES = 1024
"""Constants up to this size (shapes, axes) always stay in the graph, so that every tool can fold them."""


def load_graph(path: Path) -> ir.Model:
    """A graph whose external weights are read from disk when they are asked for."""
    return ir.load(path)


def save_graph(model: ir.Model, path: Path, *, inline_limit_bytes: int = INLINE_LIMIT_BYTES) -> Path | None:
    """Write a graph under a temporary name and rename it; returns the file of weights beside it, or None."""
    weights = data_path(path) if weight_bytes(model) > inline_limit_bytes else None
    with scratch_folder(path.parent) as scratch:
        target = scratch / path.name
        if weights is None:
            write_inline(model, target, size_threshold_bytes=SMALL_TENSOR_BYTES)
        else:
            ir.save(model, target, external_data=weights.name, size_threshold_bytes=SMALL_TENSOR_BYTES)
        move_graph(target, path)
    return weights


def move_graph(source: Path, target: Path) -> None:
    """Rename a graph and the weights beside it, into a folder on the same disk; the file name stays the same."""
    if data_path(source).exists():
        data_path(source).replace(data_path(target))
    else:
        data_path(target).unlink(missing_ok=True)
    source.replace(target)


def data_path(path: Path) -> Path:
    """Where the weights of a graph lie when they do not fit into it."""
    return path.with_name(path.name + ".data")


def weight_bytes(model: ir.Model) -> int:
    """Size of all stored constants."""
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)


def tidy(model: ir.Model) -> None:
    """Remove what tools leave behind: documentation, stack traces and other notes, which name local files."""
    model.metadata_props.clear()
    model.doc_string = None
    for graph in (model.graph, *model.graph.subgraphs()):
        graph.doc_string = None
        graph.metadata_props.clear()
        for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
            _clear(value)
    for node in model.graph.all_nodes():
        node.doc_string = None
        node.metadata_props.clear()
        for value in node.outputs:
            _clear(value)


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A folder that is gone afterwards, on the same disk as `parent`, so that renaming out of it is atomic."""
    with tempfile.TemporaryDirectory(dir=parent, prefix=".export-") as folder:
        yield Path(folder)


def _clear(value: ir.Value) -> None:
    value.doc_string = None
    value.metadata_props.clear()
