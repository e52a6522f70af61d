"""What a layer's node looks like: which of the three ways to compute it in integers fits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


@dataclass(frozen=True)
class Patches:
    """A convolution whose windows neither overlap nor leave gaps: one product over patches.

    Attributes:
        channels: of its input.
        rows: patches from top to bottom.
        columns: patches from left to right.
        height: of a patch, in px of its input.
        width: of a patch, in px of its input.
    """

    channels: int
    rows: int
    columns: int
    height: int
    width: int


def patches(node: ir.Node) -> Patches | None:
    """The patches of a convolution; None where windows overlap, padding is read, or sizes are not known."""
    source, weight = node.inputs[0], array_of(node, 1)
    if node.op_type != "Conv" or source is None or weight is None or weight.ndim != 4 or source.shape is None:
        return None
    size, window = list(source.shape), list(weight.shape[2:])
    strides = list(node.attributes.get_ints("strides", [1, 1]))
    plain = (
        strides == window
        and not any(node.attributes.get_ints("pads", [0]))
        and node.attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
        and node.attributes.get_int("group", 1) == 1
        and set(node.attributes.get_ints("dilations", [1])) == {1}
    )
    if not plain or window == [1, 1] or not all(isinstance(s, int) for s in size[1:]):
        return None
    channels, height, width = (int(s) for s in size[1:])
    if height % window[0] or width % window[1]:
        return None
    return Patches(channels, height // window[0], width // window[1], window[0], window[1])


def product(node: ir.Node) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, ir.Value] | None:
    """A Gemm's or MatMul's weights `(inputs, outputs)`, bias `(outputs,)` and result; None if it is no plain product.

    A bias that is added behind a MatMul belongs to it.
    """
    weight = array_of(node, 1)
    if weight is None or weight.ndim != 2 or node.inputs[0] is None:
        return None
    if node.op_type == "Gemm":
        factors = (node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0))
        if factors != (1.0, 1.0) or node.attributes.get_int("transA", 0):
            return None
        weight = weight.T if node.attributes.get_int("transB", 0) else weight
        if len(node.inputs) < 3 or node.inputs[2] is None:
            return weight, None, node.outputs[0]
        bias = array_of(node, 2)
        return None if bias is None or bias.size != weight.shape[1] else (weight, bias.reshape(-1), node.outputs[0])
    if node.op_type != "MatMul":
        return None
    added = _bias_behind(node, weight.shape[1])
    return (weight, None, node.outputs[0]) if added is None else (weight, *added)


def tail(node: ir.Node) -> ir.Value:
    """What a convolution gives to others: behind its ReLU, where it has one."""
    users = node.outputs[0].consumers()
    return users[0].outputs[0] if len(users) == 1 and users[0].op_type == "Relu" else node.outputs[0]


def array_of(node: ir.Node, index: int) -> NDArray[np.float32] | None:
    """A constant float32 input; None where it is something else."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None or value.const_value is None:
        return None
    array = value.const_value.numpy()
    return array if array.dtype == np.float32 else None


def _bias_behind(node: ir.Node, size: int) -> tuple[NDArray[np.float32], ir.Value] | None:
    users = node.outputs[0].consumers()
    if len(users) != 1 or users[0].op_type != "Add" or node.outputs[0].is_graph_output():
        return None
    for index in (0, 1):
        bias = array_of(users[0], index)
        if bias is not None and bias.shape[-1:] == (size,) and bias.size == size:
            return bias.reshape(-1), users[0].outputs[0]
    return None
