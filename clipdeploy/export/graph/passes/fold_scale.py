"""Fold a learned scale per channel into the weights in front of it (LayerScale, ConvNeXt's gamma).

    before  MatMul(W) -> Add(b) -> Mul(gamma)            Gemm(W, b) -> Mul(gamma)        Conv(W, b) -> Mul(gamma)
    after   MatMul(W * gamma) -> Add(b * gamma)          Gemm(W * gamma, b * gamma)      Conv(W * gamma, b * gamma)

Reshapes and Transposes may stand between, as long as they keep the channels on one axis. Weights that other nodes use
too are left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from clipdeploy.graphs.matching import constant_array, other_input, replace_constant, single_user


@dataclass(frozen=True)
class _Layer:
    """A layer with constant weights: its node, the node that ends it, and where its output channels lie."""

    node: ir.Node
    last: ir.Node
    weight: ir.Value
    bias: ir.Value | None
    axis: int


def fold_scale(model: ir.Model) -> int:
    """Fold every such scale; returns their number."""
    layers = [_read_layer(node) for node in model.graph if node.op_type in ("MatMul", "Gemm", "Conv")]
    return sum(_fold(model.graph, layer) for layer in layers if layer is not None)


def _read_layer(node: ir.Node) -> _Layer | None:
    weight, last = node.inputs[1], node
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    add = _follower(node, "Add") if node.op_type == "MatMul" else None
    if add is not None:
        bias, last = other_input(add, node.outputs[0]), add
    tensors = [value for value in (weight, bias) if value is not None]
    if any(value.const_value is None or len(value.uses()) != 1 for value in tensors) or weight is None:
        return None
    return _Layer(node, last, weight, bias, axis=1 if node.op_type == "Conv" else -1)


def _fold(graph: ir.Graph, layer: _Layer) -> bool:
    last, axis = _past_layout(layer.last, layer.axis)
    mul = _follower(last, "Mul")
    gamma = constant_array(other_input(mul, last.outputs[0])) if mul is not None else None
    shape = last.outputs[0].shape
    if mul is None or gamma is None or shape is None or not _is_per_channel(gamma, shape, axis):
        return False
    scale = gamma.reshape(-1)
    if layer.bias is not None:
        bias = constant_array(layer.bias)
        if bias is None or bias.size != scale.size or bias.shape[-1] != scale.size:
            return False
        replace_constant(graph, layer.bias, bias * scale)
    weight = constant_array(layer.weight)
    if weight is not None:
        replace_constant(graph, layer.weight, weight * _beside_channels(layer.node, weight, scale))
    mul.outputs[0].replace_all_uses_with(last.outputs[0], replace_graph_outputs=True)
    graph.remove(mul, safe=True)
    return True


def _past_layout(node: ir.Node, axis: int) -> tuple[ir.Node, int]:
    """Follow a layer's output through Reshapes and Transposes; returns the last node and its axis of channels."""
    while True:
        shape = node.outputs[0].shape
        step = _follower(node, "Reshape") or _follower(node, "Transpose")
        if step is None or shape is None:
            return node, axis
        if step.op_type == "Transpose":
            axis = list(step.attributes["perm"].as_ints()).index(axis % len(shape))
        else:
            after = step.outputs[0].shape
            if axis % len(shape) != len(shape) - 1 or after is None or after[-1] != shape[-1]:
                return node, axis
            axis = -1
        node = step


def _beside_channels(node: ir.Node, weight: NDArray[Any], scale: NDArray[Any]) -> NDArray[Any]:
    """The scale, shaped to meet the output channels of a weight."""
    if node.op_type == "Conv":
        return scale.reshape(-1, *[1] * (weight.ndim - 1))
    if node.op_type == "Gemm" and node.attributes.get_int("transB", 0):
        return scale[:, np.newaxis]
    return scale


def _follower(node: ir.Node, op_type: str) -> ir.Node | None:
    """The one user of a node, if it is of this type and takes the node's output once."""
    user = single_user(node)
    if user is None or user.op_type != op_type:
        return None
    return user if list(user.inputs).count(node.outputs[0]) == 1 else None


def _is_per_channel(gamma: NDArray[Any], shape: ir.Shape, axis: int) -> bool:
    """Whether a factor on a tensor of this shape varies along one axis alone, and along all of it."""
    rank = len(shape)
    if gamma.ndim > rank:
        return False
    sizes = (1,) * (rank - gamma.ndim) + gamma.shape
    return bool(sizes[axis] == shape[axis] == gamma.size)
