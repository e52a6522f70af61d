"""Write an ONNX file that holds its weights, one weight at a time.

A protobuf library builds the whole message in memory before it writes a byte, several times the size of the weights.
But the message is a sequence of fields, each a key, a length and its content, so the weights can be copied into their
places one after the other. The file is the one that the library would write, but for the order of its fields.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import onnx_ir as ir

_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
"""Numbers of the fields ModelProto.graph, GraphProto.initializer and TensorProto.raw_data in onnx.proto."""


def write_inline(model: ir.Model, path: Path, *, size_threshold_bytes: int) -> None:
    """Write a graph and its weights into one file; those up to `size_threshold_bytes` go the usual way.

    Args:
        model: stays as it is; weights that lie on disk are copied from there.
        path: another file than those that the weights lie in.
        size_threshold_bytes: a weight beyond this is never held in memory twice.
    """
    weights = {
        name: value.const_value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.const_value.nbytes > size_threshold_bytes
    }
    proto = _without(model, weights)
    heads = [_head(tensor, weights.get(tensor.name)) for tensor in proto.graph.initializer]
    names = [tensor.name for tensor in proto.graph.initializer]
    del proto.graph.initializer[:]
    graph = proto.graph.SerializeToString(deterministic=True)
    proto.ClearField("graph")
    sizes = [
        len(head) + (weights[name].nbytes if name in weights else 0) for name, head in zip(names, heads, strict=True)
    ]
    with path.open("wb") as file:
        file.write(proto.SerializeToString(deterministic=True))
        file.write(_key(_GRAPH, len(graph) + sum(len(_key(_INITIALIZER, size)) + size for size in sizes)))
        file.write(graph)
        for name, head, size in zip(names, heads, sizes, strict=True):
            file.write(_key(_INITIALIZER, size) + head)
            if name in weights:
                _copy(weights[name], file)


def _without(model: ir.Model, weights: dict[str, ir.TensorProtocol]) -> onnx.ModelProto:
    """The message with nothing in the place of `weights`."""
    try:
        for name, tensor in weights.items():
            model.graph.initializers[name].const_value = ir.tensor(np.empty(0, dtype=tensor.dtype.numpy()), name=name)
        return ir.to_proto(model)
    finally:
        for name, tensor in weights.items():
            model.graph.initializers[name].const_value = tensor


def _head(proto: onnx.TensorProto, weight: ir.TensorProtocol | None) -> bytes:
    """A stored constant, up to where the bytes of its weight begin; all of it where it has none."""
    if weight is None:
        whole: bytes = proto.SerializeToString(deterministic=True)
        return whole
    bare = onnx.TensorProto(name=proto.name, data_type=int(weight.dtype), dims=weight.shape.numpy())
    head: bytes = bare.SerializeToString(deterministic=True)
    return head + _key(_RAW_DATA, weight.nbytes)


def _key(field: int, length: int) -> bytes:
    """What stands before a field of bytes: its number, the wire type 2, and the length."""
    return _varint(field << 3 | 2) + _varint(length)


def _varint(number: int) -> bytes:
    """A number in protobuf's base 128, lowest digits first."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _copy(tensor: ir.TensorProtocol, file: BinaryIO) -> None:
    """The bytes of a weight, little-endian as ONNX stores them."""
    if hasattr(tensor, "tofile"):  # no part of what a tensor must offer, but all that are met here have it
        tensor.tofile(file)
    else:
        file.write(tensor.tobytes())
