"""A float32 graph that tells what flows inside it, run without a second copy of its weights.

Only the structure of the file is read. The weights stay where they lie, inside the ONNX file or beside it: the graph
that ONNX Runtime gets names their file, offset and length, and the engine maps them from there. Nothing is written.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from clipdeploy.errors import BackendError, InputError

_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
"""Numbers of the fields ModelProto.graph, GraphProto.initializer and TensorProto.raw_data in onnx.proto."""

_BYTES = 2
"""Protobuf's wire type of what has a length: bytes, strings, messages."""

_INLINE_BYTES = 1024
"""Constants up to this size (shapes, axes, scalars) stay in the graph, so that the engine can fold them."""

_FOLDER = "session.model_external_initializers_file_folder_path"
_LOG_ERRORS_ONLY = 3
_SAME_VALUES = ("Identity", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze")
"""Operators that move values and change none: what goes in has the extremes of what comes out."""

_EXTREMES = (("ReduceMin", "low"), ("ReduceMax", "high"), ("ReduceL1", "mass"))


@dataclass(frozen=True)
class Extremes:
    """What a batch holds of one tensor: its smallest and greatest value, and the sum of the magnitudes.

    The sum is nan exactly where a value is: a comparison may pass over a nan, an addition cannot.
    """

    low: float
    high: float
    mass: float


class Observer:
    """A graph in ONNX Runtime on the CPU, with asked tensors among its outputs.

    Args:
        graph: an ONNX file; weights may lie beside it.
        whole: tensors to get with all their values.
        extremes: tensors to get the extremes of, computed inside the graph so that the values need no memory.
        threads: of one run; None takes one a physical core.

    Raises:
        InputError: the graph has no such tensor.
        BackendError: the engine cannot load the graph.
    """

    def __init__(
        self, graph: Path, *, whole: Sequence[str] = (), extremes: Sequence[str] = (), threads: int | None = None
    ) -> None:
        model = light_copy(graph)
        _check_names(model, graph, [*whole, *extremes])
        self._inputs = {value.name for value in model.graph.input}
        self._whole, self._extremes = tuple(whole), tuple(extremes)
        self._graph = graph
        del model.graph.output[:]
        fetched = [name for name in self._whole if name not in self._inputs]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in fetched)
        self._sources = {name: _source(model.graph, name) for name in self._extremes}
        self._reduced = tuple(dict.fromkeys(self._sources.values()))
        for index, name in enumerate(self._reduced):
            for op, label in _EXTREMES:
                output = f"observed_{label}_{index}"
                model.graph.node.append(onnx.helper.make_node(op, [name], [output], keepdims=0))
                model.graph.output.append(onnx.ValueInfoProto(name=output))
        self._fetched = fetched
        self._session = _session(model, graph, threads)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> tuple[dict[str, NDArray[np.float32]], dict[str, Extremes]]:
        """One batch: the whole tensors, and the extremes of the others, by name.

        Raises:
            BackendError: the engine failed.
        """
        try:
            # With nothing but inputs asked for there is nothing to compute.
            outputs = self._session.run(None, dict(feeds)) if self._fetched or self._extremes else []
        except Exception as error:  # the engine's exceptions have no common base
            shapes = ", ".join(f"{name} {value.dtype} {value.shape}" for name, value in feeds.items())
            raise BackendError(f"onnxruntime failed on {self._graph} with {shapes}: {_first_line(error)}") from error
        whole = dict(zip(self._fetched, outputs, strict=False))
        whole.update({name: feeds[name] for name in self._whole if name in self._inputs})
        numbers = [float(value) for value in outputs[len(self._fetched) :]]
        reduced = {name: Extremes(*numbers[3 * i : 3 * i + 3]) for i, name in enumerate(self._reduced)}
        return whole, {name: reduced[source] for name, source in self._sources.items()}


def light_copy(graph: Path) -> onnx.ModelProto:
    """The graph of an ONNX file with every weight named by its place on disk instead of held.

    Args:
        graph: an ONNX file, weights inside it or beside it.

    Raises:
        InputError: the file cannot be read, or is no ONNX graph.
    """
    try:
        with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            small = bytearray()
            for field in _fields(data, 0, len(data)):
                if field.number == _GRAPH and field.wire == _BYTES:
                    body = _light_graph(data, field, graph.name)
                    small += _key(_GRAPH, len(body)) + body
                else:
                    small += data[field.start : field.stop]
            return onnx.ModelProto.FromString(bytes(small))
    except (OSError, ValueError, IndexError) as error:
        raise InputError(f"{graph} cannot be read as an ONNX graph: {error}", fix="export the bundle again") from error
    except Exception as error:  # protobuf's DecodeError lies in a private module
        raise InputError(f"{graph} is no ONNX graph: {error}", fix="export the bundle again") from error


@dataclass(frozen=True)
class _Field:
    """A field of a message: its number and wire type, and the places of the whole and of its content."""

    number: int
    wire: int
    start: int
    content: int
    stop: int


def _light_graph(data: mmap.mmap, graph: _Field, file_name: str) -> bytes:
    small = bytearray()
    for field in _fields(data, graph.content, graph.stop):
        if field.number == _INITIALIZER and field.stop - field.content > _INLINE_BYTES:
            body = _light_tensor(data, field, file_name)
            small += _key(_INITIALIZER, len(body)) + body
        else:
            small += data[field.start : field.stop]
    return bytes(small)


def _light_tensor(data: mmap.mmap, tensor: _Field, file_name: str) -> bytes:
    """A constant whose raw bytes are named by their place; as it is where it has none."""
    fields = list(_fields(data, tensor.content, tensor.stop))
    raw = next((field for field in fields if field.number == _RAW_DATA), None)
    if raw is None or raw.stop - raw.content <= _INLINE_BYTES:
        return data[tensor.content : tensor.stop]
    rest = onnx.TensorProto.FromString(b"".join(data[f.start : f.stop] for f in fields if f is not raw))
    place = {"location": file_name, "offset": raw.content, "length": raw.stop - raw.content}
    rest.data_location = onnx.TensorProto.EXTERNAL
    rest.external_data.extend(onnx.StringStringEntryProto(key=key, value=str(value)) for key, value in place.items())
    return bytes(rest.SerializeToString())


def _fields(data: mmap.mmap, start: int, stop: int) -> Iterator[_Field]:
    """The fields of the message that lies at `start .. stop`."""
    at = start
    while at < stop:
        key, content = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            _, end = _varint(data, content)
        elif wire == _BYTES:
            length, content = _varint(data, content)
            end = content + length
        elif wire in (1, 5):
            end = content + (8 if wire == 1 else 4)
        else:
            raise ValueError(f"unknown wire type {wire} at byte {at}")
        if end > stop:
            raise ValueError(f"a field at byte {at} reaches beyond its message")
        yield _Field(number, wire, at, content, end)
        at = end


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    """A number in protobuf's base 128, lowest digits first, and where it ends."""
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7


def _key(field: int, length: int) -> bytes:
    """What stands before a field of bytes."""
    out = bytearray()
    for number in (field << 3 | _BYTES, length):
        while number > 127:
            out.append(number & 127 | 128)
            number >>= 7
        out.append(number)
    return bytes(out)


def _check_names(model: onnx.ModelProto, graph: Path, names: Sequence[str]) -> None:
    known = {name for node in model.graph.node for name in node.output} | {v.name for v in model.graph.input}
    missing = sorted(set(names) - known)
    if missing:
        raise InputError(f"{graph.name} has no tensor named {', '.join(missing[:5])}")


def _source(graph: onnx.GraphProto, name: str) -> str:
    """The tensor that the values of `name` come from unchanged; `name` itself where something computes them."""
    made_by = {output: node for node in graph.node for output in node.output}
    constants = {tensor.name for tensor in graph.initializer}
    while name in made_by and made_by[name].op_type in _SAME_VALUES and made_by[name].input[0] not in constants:
        name = made_by[name].input[0]
    return name


def _session(model: onnx.ModelProto, graph: Path, threads: int | None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = _LOG_ERRORS_ONLY
    options.add_session_config_entry(_FOLDER, str(graph.parent.resolve()))
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the engine's exceptions have no common base
        raise BackendError(
            f"onnxruntime {ort.__version__} cannot load {graph} for calibration: {_first_line(error)}",
            fix="pip install --upgrade 'onnxruntime>=1.21'",
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
