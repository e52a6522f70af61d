"""What an ONNX file says of itself, without its weights: an 8 GB device may hold one copy of them, not three.

A file is a sequence of protobuf fields, each a key, a length and its content. Weights are stepped over, so that this
costs no memory, and a file that was cut off is known from its lengths before an engine builder sees it.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx

from clipdeploy.errors import EngineError
from clipdeploy.spec import LENGTH_AXIS, LONGEST_NOTE, TensorSpec

_EXPORT_AGAIN = "copy the file again, or export the checkpoint again with clipdeploy export"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Wire types of protobuf."""
_OPSET_IMPORT, _GRAPH, _METADATA = 8, 7, 14
_NODE, _INITIALIZER, _INPUT = 1, 5, 11
_DATA_TYPE, _TENSOR_NAME, _EXTERNAL_DATA = 2, 8, 13
"""Numbers of the fields of ModelProto, GraphProto and TensorProto that are read, in onnx.proto."""
_TYPED_ATTRIBUTES = ("to", "output_dtype")


@dataclass(frozen=True)
class NodeOutline:
    """One node; `domain` is empty for ONNX's own operators."""

    name: str
    operator: str
    domain: str

    def __str__(self) -> str:
        operator = f"{self.operator} of {self.domain}" if self.domain else self.operator
        return f"node {self.name!r} ({operator})" if self.name else f"a node without a name ({operator})"


@dataclass(frozen=True)
class Outline:
    """An ONNX file without its weights.

    Attributes:
        path: of the file.
        opset: version of ONNX's own operators.
        nodes: of the graph itself, in its order.
        inputs: those that a caller feeds; a string in a shape is a dynamic axis. Where texts may have any length, the
            longest: an engine is built for that.
        dtypes: of stored constants and casts, as ONNX names them, such as `FLOAT16` or `FLOAT8E4M3FN`.
        bytes_on_disk: of the file and the weights beside it.
    """

    path: Path
    opset: int
    nodes: tuple[NodeOutline, ...]
    inputs: tuple[TensorSpec, ...]
    dtypes: frozenset[str]
    bytes_on_disk: int

    @property
    def fp8(self) -> bool:
        """Whether anything in it has 8-bit floats."""
        return any(name.startswith("FLOAT8") for name in self.dtypes)


def read_outline(path: Path) -> Outline:
    """Read a graph's outline; raises EngineError for a file that is missing, cut off or no ONNX, or lacks weights."""
    try:
        size = path.stat().st_size
        if not size:
            raise EngineError(f"{path} is empty", fix=_EXPORT_AGAIN)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = _Found()
            _read_model(content, found)
    except OSError as error:
        raise EngineError(f"cannot read the graph {path}: {error.strerror}", fix=_EXPORT_AGAIN) from error
    except _CutOffError as error:
        raise EngineError(f"{path} is cut off, or no ONNX file: {error} of {size} bytes", fix=_EXPORT_AGAIN) from None
    if not found.nodes or not found.opset:
        raise EngineError(f"{path} is no ONNX file: it holds no graph", fix=_EXPORT_AGAIN)
    beside = sum(_check_weights(path.parent / name, path, end) for name, end in found.external.items())
    return Outline(
        path=path,
        opset=found.opset,
        nodes=tuple(found.nodes),
        inputs=tuple(_of_full_length(i, found.longest) for i in found.inputs if i.name not in found.stored),
        dtypes=frozenset(map(_dtype, found.dtypes)),
        bytes_on_disk=size + beside,
    )


class _CutOffError(Exception):
    """A field that ends behind the end."""


@dataclass
class _Found:
    """What was met so far; `external` maps a file of weights to the length that it must have at least."""

    opset: int = 0
    longest: int | None = None
    nodes: list[NodeOutline] = field(default_factory=list)
    inputs: list[TensorSpec] = field(default_factory=list)
    stored: set[str] = field(default_factory=set)
    dtypes: set[int] = field(default_factory=set)
    external: dict[str, int] = field(default_factory=dict)


def _read_model(content: mmap.mmap, found: _Found) -> None:
    for number, start, end in _fields(content, 0, len(content)):
        if number == _OPSET_IMPORT:
            opset = _parse(onnx.OperatorSetIdProto, content, start, end)
            if opset.domain in ("", "ai.onnx"):
                found.opset = opset.version
        elif number == _METADATA:
            note = _parse(onnx.StringStringEntryProto, content, start, end)
            if note.key == LONGEST_NOTE:
                found.longest = int(note.value)
        elif number == _GRAPH:
            for inner, at, to in _fields(content, start, end):
                if inner == _NODE:
                    _read_node(_parse(onnx.NodeProto, content, at, to), found)
                elif inner == _INPUT:
                    found.inputs.append(_tensor_spec(_parse(onnx.ValueInfoProto, content, at, to)))
                elif inner == _INITIALIZER:
                    _read_weight(content, at, to, found)


def _read_node(node: Any, found: _Found) -> None:
    domain = "" if node.domain == "ai.onnx" else node.domain
    found.nodes.append(NodeOutline(node.name, node.op_type, domain))
    for attribute in node.attribute:
        if attribute.name in _TYPED_ATTRIBUTES and attribute.i:
            found.dtypes.add(attribute.i)
        elif attribute.type == onnx.AttributeProto.TENSOR:
            found.dtypes.add(attribute.t.data_type)


def _read_weight(content: mmap.mmap, start: int, end: int, found: _Found) -> None:
    place: dict[str, str] = {}
    for number, at, to in _fields(content, start, end):
        if number == _DATA_TYPE:
            found.dtypes.add(_varint(content, at, to)[0])
        elif number == _TENSOR_NAME:
            found.stored.add(content[at:to].decode("utf-8", "replace"))
        elif number == _EXTERNAL_DATA:
            entry = _parse(onnx.StringStringEntryProto, content, at, to)
            place[entry.key] = entry.value
    if "location" in place:
        last = int(place.get("offset", "0")) + int(place.get("length", "0"))
        found.external[place["location"]] = max(last, found.external.get(place["location"], 0))


def _check_weights(beside: Path, graph: Path, expected: int) -> int:
    """Size of a file of weights, which must reach as far as the graph reads."""
    if not beside.is_file():
        raise EngineError(
            f"the weights of {graph.name} are missing: {beside} is not there",
            fix=f"copy {beside.name} into the folder of {graph.name}, or export the checkpoint again",
        )
    size = beside.stat().st_size
    if size < expected:
        raise EngineError(f"{beside} is cut off: it has {size} bytes, {graph.name} reads {expected}", fix=_EXPORT_AGAIN)
    return size


def _tensor_spec(value: Any) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or f"axis {index}")
        for index, dim in enumerate(tensor.shape.dim)
    )
    return TensorSpec(value.name, _dtype(tensor.elem_type).lower(), shape)


def _of_full_length(tensor: TensorSpec, longest: int | None) -> TensorSpec:
    """A tensor whose length, where it is free, is the longest."""
    if longest is None:
        return tensor
    return replace(tensor, shape=tuple(longest if size == LENGTH_AXIS else size for size in tensor.shape))


def _dtype(number: int) -> str:
    """ONNX's name of a type; a later onnx than this one may know more."""
    names: dict[int, str] = {value: name for name, value in onnx.TensorProto.DataType.items()}
    return names.get(number, f"type {number}")


def _parse(kind: Any, content: mmap.mmap, start: int, end: int) -> Any:
    try:
        return kind.FromString(content[start:end])
    except Exception as error:  # protobuf's DecodeError, whose home differs between its versions
        if type(error).__name__ != "DecodeError":
            raise
        raise _CutOffError(f"what stands at byte {start} is not readable") from None


def _fields(content: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The fields of a message as `(number, start, end)` of their content."""
    at = start
    while at < end:
        key, at = _varint(content, at, end)
        kind = key & 7
        if kind == _VARINT:
            begin, stop = at, _varint(content, at, end)[1]
        elif kind == _BYTES:
            length, begin = _varint(content, at, end)
            stop = begin + length
        elif kind in (_FIXED64, _FIXED32):
            begin, stop = at, at + (8 if kind == _FIXED64 else 4)
        else:
            raise _CutOffError(f"byte {at} does not belong to a protobuf message")
        if stop > end:
            raise _CutOffError(f"what begins at byte {begin} needs {stop - begin} bytes, and ends at byte {stop}")
        yield key >> 3, begin, stop
        at = stop


def _varint(content: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """A number in protobuf's base 128, and where it ends."""
    number = shift = 0
    while at < end and shift < 64:
        byte = content[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at
    raise _CutOffError(f"a number is not complete at byte {at}")
