"""SmoothQuant: move the outliers of an activation into the weights behind it, where each channel has room.

    before   LayerNormalization(gain, bias) -> Gemm(W)
    after    LayerNormalization(gain / s, bias / s) -> Gemm(W * s)

In float32 the function stays the same; per channel j, s_j = max|x_j| ** alpha / max|W_j| ** (1 - alpha)
(Xiao et al., SmoothQuant, 2022, equation 4). Channels whose outliers made the range of the whole tensor shrink, and the
range with them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from clipdeploy.calibration.records import Layer

ALPHA = 0.5

_SMALLEST, _LARGEST = 1e-2, 1e3  # of a factor: a dead channel must not blow up its weights or its gain


def smoothable(model: ir.Model, layers: Sequence[Layer]) -> tuple[str, ...]:
    """The activations that smoothing would change: outputs of norms that only products with constant weights read."""
    return tuple(norm.outputs[0].name or "" for norm, _ in _groups(model, layers))


def smooth(
    model: ir.Model,
    layers: Sequence[Layer],
    channel_abs_max: Mapping[str, NDArray[np.float32]],
    *,
    alpha: float = ALPHA,
) -> dict[str, NDArray[np.float32]]:
    """Smooth every such activation in place; returns each one's largest |x| a channel, as it is now.

    Args:
        model: a float32 graph without Q/DQ.
        layers: all of its layers.
        channel_abs_max: for each activation that `smoothable` names, the largest |x| of each channel, `(C,)`.
        alpha: how much of the range moves; 0 nothing, 1 all of it.
    """
    done: dict[str, NDArray[np.float32]] = {}
    for norm, readers in _groups(model, layers):
        name = norm.outputs[0].name or ""
        weights = [_array(node.inputs[1]) for node, _ in readers]
        columns = [np.abs(w).max(axis=layer.channel_axis) for w, (_, layer) in zip(weights, readers, strict=True)]
        factor = _factor(channel_abs_max[name], np.max(columns, axis=0), alpha)
        for index in (1, 2):
            if index < len(norm.inputs) and norm.inputs[index] is not None:
                _replace(model.graph, norm, index, _array(norm.inputs[index]) / factor)
        for weight, (node, layer) in zip(weights, readers, strict=True):
            shape = (1, -1) if layer.channel_axis == 0 else (-1, 1)
            _replace(model.graph, node, 1, weight * factor.reshape(shape))
        done[name] = channel_abs_max[name] / factor
    for name in [n for n, value in model.graph.initializers.items() if not value.uses()]:
        del model.graph.initializers[name]
    return done


def _groups(model: ir.Model, layers: Sequence[Layer]) -> list[tuple[ir.Node, list[tuple[ir.Node, Layer]]]]:
    """Norms with a gain, each with the products that read it, where nothing else does."""
    nodes = {node.name: node for node in model.graph}
    readers: dict[str, list[tuple[ir.Node, Layer]]] = defaultdict(list)
    for layer in layers:
        if nodes[layer.node].op_type != "Conv":
            readers[layer.input].append((nodes[layer.node], layer))
    groups = []
    for node in model.graph:
        out = node.outputs[0]
        if node.op_type != "LayerNormalization" or out.is_graph_output() or not readers.get(out.name or ""):
            continue
        known = {id(reader) for reader, _ in readers[out.name or ""]}
        if all(id(user) in known for user in out.consumers()):
            groups.append((node, readers[out.name or ""]))
    return groups


def _factor(activation: NDArray[np.float32], weight: NDArray[np.float32], alpha: float) -> NDArray[np.float32]:
    """The factor of each channel, `(C,)`; 1 for channels that are never used."""
    usable = (activation > 0) & (weight > 0)
    factor = np.ones_like(activation)
    factor[usable] = activation[usable] ** alpha / weight[usable] ** (1 - alpha)
    return np.clip(factor, _SMALLEST, _LARGEST).astype(np.float32)


def _array(value: ir.Value | None) -> NDArray[np.float32]:
    assert value is not None and value.const_value is not None
    array: NDArray[np.float32] = value.const_value.numpy()
    return array


def _replace(graph: ir.Graph, node: ir.Node, index: int, array: NDArray[np.float32]) -> None:
    """Give one input of one node constants of its own: graphs share equal ones."""
    old = node.inputs[index]
    assert old is not None
    name = f"{old.name}_smooth"
    while name in graph.initializers:
        name += "_"
    value = ir.val(name, const_value=ir.tensor(array.astype(np.float32), name=name))
    graph.register_initializer(value)
    node.replace_input_with(index, value)
