"""Write Q/DQ pairs into a graph: the activations in front of a layer, and its weights stored in 8 bits.

    before   x -> Gemm(W, b)
    after    x -> QuantizeLinear -> DequantizeLinear -> Gemm(DequantizeLinear(W8), b)

An activation that several layers read (Q, K and V) gets one pair; whatever else reads it, such as a residual sum, reads
it unquantised. All scales are symmetric: one for an activation; for weights one an output channel in INT8, and one in
FP8, whose numbers have exponents of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from clipdeploy.calibration.records import Layer, Ranges
from clipdeploy.errors import CalibrationError
from clipdeploy.graphs.opset import raise_opset
from clipdeploy.spec import Precision

INT8_MAX = 127.0
FP8_MAX = 448.0
"""Largest value of E4M3 (OCP 8-bit floating point specification)."""

LOWEST_OPSET = 19
"""The first operator set whose Q/DQ take FP16 scales and 8-bit floats."""

FP8_OPSET = 21
"""The operator set from which on TensorRT takes Q/DQ in FP8."""

_SMALLEST_SCALE = 2.0**-20
"""Scales become FP16 with the rest of the graph; this one is still told apart from its neighbours there."""


@dataclass(frozen=True)
class Quantised:
    """What `insert_qdq` did.

    Attributes:
        layers: how many layers read 8-bit inputs and weights now.
        pairs: how many activations got a pair.
        saved_bytes: by which the stored weights shrank.
    """

    layers: int
    pairs: int
    saved_bytes: int


def insert_qdq(model: ir.Model, layers: Sequence[Layer], ranges: Ranges, *, precision: Precision) -> Quantised:
    """Quantise `layers` in place.

    Args:
        model: a float32 graph, opset 19 or later.
        layers: those to quantise.
        ranges: for each layer's input its range; the larger side counts.
        precision: INT8 or FP8 (E4M3).

    Raises:
        CalibrationError: the opset is too low, or an input has no range.
    """
    opset = model.opset_imports.get("", 0)
    if opset < LOWEST_OPSET:
        raise CalibrationError(
            f"the graph has opset {opset}; {precision.value} needs {LOWEST_OPSET} or later",
            fix=f"export the checkpoint again with --opset {LOWEST_OPSET}",
        )
    if precision is Precision.FP8:
        raise_opset(model, FP8_OPSET)
    nodes = {node.name: node for node in model.graph}
    pairs: dict[str, ir.Value] = {}
    weights: dict[tuple[str, int], ir.Value] = {}
    saved = 0
    for layer in layers:
        node = nodes[layer.node]
        if layer.input not in pairs:
            if layer.input not in ranges:
                raise CalibrationError(f"no range was measured for {layer.input!r}, the input of {layer.name}")
            limit = max(-ranges[layer.input].low, ranges[layer.input].high)
            pairs[layer.input] = _pair(model.graph, node.inputs[0], limit, precision)
        node.replace_input_with(0, pairs[layer.input])
        key = (layer.weight, layer.channel_axis)
        if key not in weights:
            weights[key], less = _stored(model.graph, node, node.inputs[1], layer.channel_axis, precision)
            saved += less
        node.replace_input_with(1, weights[key])
    _drop_unused(model.graph)
    return Quantised(len(layers), len(pairs), saved)


def quantise_weights(
    array: NDArray[np.float32], axis: int, precision: Precision
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Weights as 8-bit values, and their scales: `(channels of axis,)` in INT8, one number in FP8."""
    if precision is Precision.FP8:
        scale = step(float(np.abs(array).max(initial=0.0)), precision)
        return np.clip(array / scale, -FP8_MAX, FP8_MAX).astype(_dtype(precision)), scale
    others = tuple(i for i in range(array.ndim) if i != axis)
    scales = step(np.abs(array).max(axis=others), precision)
    shape = [-1 if i == axis else 1 for i in range(array.ndim)]
    return np.clip(np.rint(array / scales.reshape(shape)), -INT8_MAX, INT8_MAX).astype(np.int8), scales


def step(limit: float | NDArray[np.float32], precision: Precision) -> NDArray[np.float32]:
    """The scale by which the largest 8-bit value reaches `limit`; a number that FP16 holds too."""
    wanted = np.asarray(limit, np.float32) / (INT8_MAX if precision is Precision.INT8 else FP8_MAX)
    half = np.clip(wanted, _SMALLEST_SCALE, float(np.finfo(np.float16).max)).astype(np.float16)
    return np.asarray(half, np.float32)


def _pair(graph: ir.Graph, value: ir.Value | None, limit: float, precision: Precision) -> ir.Value:
    """An activation's Q/DQ pair, right behind what makes the activation; returns its output."""
    assert value is not None and value.name is not None
    scale = _constant(graph, f"{value.name}_scale", step(limit, precision))
    zero = _constant(graph, f"{value.name}_zero", np.zeros((), _dtype(precision)))
    quantise = ir.node("QuantizeLinear", [value, scale, zero], name=f"{value.name}_quantize")
    dequantise = ir.node("DequantizeLinear", [quantise.outputs[0], scale, zero], name=f"{value.name}_dequantize")
    quantise.outputs[0].name, dequantise.outputs[0].name = f"{value.name}_q", f"{value.name}_dq"
    quantise.outputs[0].dtype = ir.DataType.INT8 if precision is Precision.INT8 else ir.DataType.FLOAT8E4M3FN
    quantise.outputs[0].shape = dequantise.outputs[0].shape = value.shape
    dequantise.outputs[0].dtype = value.dtype
    producer = value.producer()
    if producer is not None:
        graph.insert_after(producer, [quantise, dequantise])
    else:
        graph.insert_before(graph[0], [quantise, dequantise])
    return dequantise.outputs[0]


def _stored(
    graph: ir.Graph, node: ir.Node, weight: ir.Value | None, axis: int, precision: Precision
) -> tuple[ir.Value, int]:
    """Weights in 8 bits behind a DequantizeLinear; returns its output, and how many bytes that saves."""
    assert weight is not None and weight.const_value is not None and weight.name is not None
    array = weight.const_value.numpy()
    values, scales = quantise_weights(array, axis, precision)
    stored = _constant(graph, f"{weight.name}_{precision.value}", values)
    scale = _constant(graph, f"{weight.name}_scale", scales)
    zero = _constant(graph, f"{weight.name}_zero", np.zeros(scales.shape, values.dtype))
    dequantise = ir.node(
        "DequantizeLinear",
        [stored, scale, zero],
        attributes={"axis": axis} if scales.ndim else {},
        name=f"{weight.name}_dequantize",
    )
    dequantise.outputs[0].name = f"{weight.name}_dq"
    dequantise.outputs[0].dtype, dequantise.outputs[0].shape = weight.dtype, weight.shape
    graph.insert_before(node, dequantise)
    return dequantise.outputs[0], array.nbytes - values.nbytes - scales.nbytes


def _dtype(precision: Precision) -> Any:
    return np.dtype(np.int8) if precision is Precision.INT8 else np.dtype(ml_dtypes.float8_e4m3fn)


def _constant(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    while name in graph.initializers:
        name += "_"
    value = ir.val(name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value


def _drop_unused(graph: ir.Graph) -> None:
    outputs = set(map(id, graph.outputs))
    for name in [n for n, value in graph.initializers.items() if not value.uses() and id(value) not in outputs]:
        del graph.initializers[name]
