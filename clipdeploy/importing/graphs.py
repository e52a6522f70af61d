"""ONNX files of others: read and checked, cut down to one output, hashed, written."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clipdeploy.errors import CheckpointError, MissingExtraError, OutputError

INLINE_LIMIT_BYTES = 1_900_000_000
"""Weights beyond this lie beside the graph: protobuf's limit of 2 GiB, less room for the graph itself."""

STANDARD = ("", "ai.onnx")
_FUSED = "com.microsoft"
_MIN_IR = 8  # weights need not stand among the inputs, and every ONNX Runtime of this package reads it


def load_graph(path: Path) -> Any:
    """The ModelProto of a file with its weights, checked; functions inlined, operators all ONNX Runtime's.

    Raises:
        CheckpointError: it is no ONNX graph, breaks ONNX's rules, or uses operators that nobody here has.
        MissingExtraError: onnx is not installed.
    """
    onnx = import_onnx()
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = _checked(path)
    except (DecodeError, onnx.checker.ValidationError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{path} is no graph that ONNX takes: {reason}",
            fix="copy it again with the files of weights beside it, or export it again",
        ) from error
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    unknown = sorted({f"{n.domain}.{n.op_type}" for n in nodes(model.graph) if n.domain not in (*STANDARD, _FUSED)})
    if unknown:
        raise CheckpointError(
            f"{path} uses operators outside ONNX: {', '.join(unknown)}",
            fix="export it again with standard operators only",
        )
    if model.ir_version < _MIN_IR:
        model.ir_version = _MIN_IR
    constants = {tensor.name for tensor in model.graph.initializer}
    real = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(real)
    return model


def _checked(path: Path) -> Any:
    """The file's model. Some converters write nodes in no order, which ONNX Runtime forgives: those are sorted."""
    onnx = import_onnx()
    try:
        onnx.checker.check_model(str(path))
        return onnx.load(str(path))
    except onnx.checker.ValidationError as error:
        if "topologically sorted" not in str(error):
            raise
    model = onnx.load(str(path))
    _sort(model.graph)
    if model.ByteSize() <= INLINE_LIMIT_BYTES:
        onnx.checker.check_model(model)
    return model


def _sort(graph: Any) -> None:
    """Put every node behind those that it reads, in place; otherwise they keep their order."""
    waiting = [type(node).FromString(node.SerializeToString()) for node in graph.node]
    made = {name for node in waiting for name in node.output}
    del graph.node[:]
    while waiting:
        ready = [node for node in waiting if not made.intersection(_reads(node))]
        if not ready:
            raise ValueError("its nodes read each other in a circle")
        graph.node.extend(ready)
        made.difference_update(name for node in ready for name in node.output)
        waiting = [node for node in waiting if made.intersection(node.output)]


def import_onnx() -> Any:
    """The module `onnx`; raises MissingExtraError."""
    try:
        import onnx
        import onnx.inliner
    except ImportError as error:
        raise MissingExtraError("onnx", extra="import", needed_for="importing graphs") from error
    return onnx


def save_graph(model: Any, path: Path, *, inline_limit_bytes: int = INLINE_LIMIT_BYTES) -> Path | None:
    """Write a graph; returns the file of weights beside it, None where they are inside."""
    onnx = import_onnx()
    beside = None
    try:
        if sum(len(tensor.raw_data) for tensor in model.graph.initializer) > inline_limit_bytes:
            beside = path.with_name(path.name + ".data")
            onnx.save(model, str(path), save_as_external_data=True, location=beside.name)
        else:
            onnx.save(model, str(path))
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error}", fix="free space or choose another folder") from error
    return beside


def opset(model: Any) -> int:
    """The version of the standard operator set."""
    return next((int(entry.version) for entry in model.opset_import if entry.domain in STANDARD), 1)


def nodes(graph: Any) -> Iterator[Any]:
    """All nodes, those of graphs inside nodes included."""
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from nodes(inner)


def subgraphs(node: Any) -> Iterator[Any]:
    """The graphs that a node holds, of If, Loop and Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def fused(model: Any) -> dict[str, int]:
    """Operators of ONNX Runtime's own domain, and how often each occurs."""
    counts: dict[str, int] = {}
    for node in nodes(model.graph):
        if node.domain == _FUSED:
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts


def cut(model: Any, output: str) -> None:
    """Keep one output and what it needs, in place."""
    graph = model.graph
    made_by = {name: node for node in graph.node for name in node.output}
    needed, todo = {output}, [output]
    while todo:
        node = made_by.get(todo.pop())
        for name in _reads(node) if node is not None else ():
            if name not in needed:
                needed.add(name)
                todo.append(name)
    _keep(graph.node, [node for node in graph.node if any(name in needed for name in node.output)])
    _keep(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in needed])
    _keep(graph.sparse_initializer, [t for t in graph.sparse_initializer if t.values.name in needed])
    _keep(graph.input, [value for value in graph.input if value.name in needed])
    _keep(graph.output, [value for value in graph.output if value.name == output])


def rename(model: Any, old: str, new: str) -> None:
    """Call a value otherwise, wherever it is named, in place."""

    def swap(names: Any) -> None:
        for i, name in enumerate(names):
            if name == old:
                names[i] = new

    def walk(graph: Any) -> None:
        for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
            if value.name == old:
                value.name = new
        for node in graph.node:
            swap(node.input)
            swap(node.output)
            for inner in subgraphs(node):
                walk(inner)

    walk(model.graph)


def names(model: Any) -> set[str]:
    """Every name that a value has."""
    found: set[str] = {value.name for value in (*model.graph.input, *model.graph.initializer)}
    for node in nodes(model.graph):
        found.update(node.output)
    return found


def tidy(model: Any) -> None:
    """Remove what exporters leave behind: documentation and stack traces, which name local files."""
    model.doc_string = ""
    del model.metadata_props[:]
    model.graph.doc_string = ""
    del model.graph.value_info[:]
    for node in nodes(model.graph):
        node.doc_string = ""
        if hasattr(node, "metadata_props"):
            del node.metadata_props[:]


def weights(model: Any) -> Iterator[Any]:
    """All constant tensors: initializers, and what Constant nodes hold."""
    yield from model.graph.initializer
    for node in nodes(model.graph):
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    yield attribute.t


def parameters(model: Any) -> int:
    """How many numbers the weights have; shapes, axes and positions are integers and do not count."""
    integers = {import_onnx().TensorProto.DataType.Value(name) for name in ("INT32", "INT64", "BOOL", "STRING")}
    return sum(math.prod(t.dims) for t in model.graph.initializer if t.data_type not in integers and t.dims)


def weights_sha256(*models: Any) -> str:
    """Over types, shapes and values of all weights, in an order that names and files have no part in."""
    onnx = import_onnx()
    whole = hashlib.sha256()
    for model in models:
        digests = []
        for tensor in weights(model):
            head = f"{tensor.data_type} {list(tensor.dims)} ".encode()
            digests.append(hashlib.sha256(head + onnx.numpy_helper.to_array(tensor).tobytes()).digest())
        whole.update(len(digests).to_bytes(8, "little") + b"".join(sorted(digests)))
    return whole.hexdigest()


def _reads(node: Any) -> Iterator[str]:
    """What a node reads, the graphs inside it included."""
    yield from (name for name in node.input if name)
    for inner in subgraphs(node):
        for one in inner.node:
            yield from _reads(one)
        yield from (value.name for value in inner.output)


def _keep(field: Any, kept: list[Any]) -> None:
    copies = [type(item).FromString(item.SerializeToString()) for item in kept] if len(kept) < len(field) else None
    if copies is not None:
        del field[:]
        field.extend(copies)
