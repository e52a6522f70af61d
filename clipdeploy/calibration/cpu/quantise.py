"""Rewrite the layers of a float32 graph so that ONNX Runtime computes them in integers.

    Gemm, MatMul     x -> Q -> MatMulIntegerToFloat(W8, b)              float32 out
    self-attention   x -> Q -> QAttention(W8, b)                        Q, K, V and all up to the values, float32 out
    patches          x -> Q -> Reshape -> Transpose -> the product      float32 out
    other Conv       x -> Q -> DQ -> Conv(DQ(W8), DQ(b32)) -> Q -> DQ   becomes QLinearConv, 8 bits out

The first three are operators of ONNX Runtime's own (`com.microsoft`), which it has had since long before the oldest
release that is supported. Of standard ones it would make a QGemm, which takes a zero point for each column and is
slower for it, and no attention at all. The last is standard, and fused when the graph is loaded: activations are
unsigned, and the bias is an INT32 in steps of activation times weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from clipdeploy.calibration.cpu.attention import SelfAttention, self_attention
from clipdeploy.calibration.cpu.placement import refusal
from clipdeploy.calibration.cpu.shapes import Patches, array_of, patches, product, tail
from clipdeploy.calibration.cpu.writer import Attributes, Bytes, Writer
from clipdeploy.calibration.records import Layer, Ranges
from clipdeploy.errors import CalibrationError
from clipdeploy.graphs.files import data_path, load_graph, save_graph
from clipdeploy.spec import LENGTH_AXIS

LOWEST_OPSET = 13
"""The first operator set whose Q/DQ have one scale a channel."""


@dataclass(frozen=True)
class CpuResult:
    """What `quantise_cpu` did.

    Attributes:
        layers: how many layers are computed in integers.
        size_bytes: of the graph, with the weights beside it.
    """

    layers: int
    size_bytes: int


def quantise_cpu(source: Path, target: Path, layers: Sequence[Layer], ranges: Ranges | None) -> CpuResult:
    """Write `source` to `target` with `layers` in INT8.

    Args:
        source: a float32 graph, opset 13 or later.
        target: where the quantised graph is written, whole or not at all.
        layers: those to quantise, as `place_cpu` chooses them.
        ranges: of every activation that `ranges_needed` names.

    Raises:
        CalibrationError: no ranges, or one is missing; the opset is too low; a layer is no product that integers can
            compute; the graph is quantised already.
    """
    if ranges is None:
        raise CalibrationError(
            "INT8 for processors takes measured ranges: ranges taken anew on each run would make a picture's embedding "
            "depend on the others in its batch",
            fix="pass --calibration-data",
        )
    model = load_graph(source)
    nodes = {node.name: node for node in model.graph}
    _check(model, source, layers, nodes)
    writer = Writer(model, ranges)
    for layer in layers:
        _rewrite(writer, layer, nodes[layer.node])
    RemoveUnusedNodesPass()(model)
    save_graph(model, target)
    beside = data_path(target)
    return CpuResult(len(layers), target.stat().st_size + (beside.stat().st_size if beside.exists() else 0))


def _check(model: ir.Model, source: Path, layers: Sequence[Layer], nodes: dict[str | None, ir.Node]) -> None:
    opset = model.opset_imports.get("", 0)
    if opset < LOWEST_OPSET:
        raise CalibrationError(
            f"{source.name} has opset {opset}; INT8 for processors needs {LOWEST_OPSET} or later",
            fix="export the checkpoint again with --opset 19",
        )
    if any(node.op_type == "QuantizeLinear" for node in model.graph):
        raise CalibrationError(f"{source.name} is quantised already", fix="quantise the bundle's float32 graph")
    for layer in layers:
        if layer.node not in nodes:
            raise CalibrationError(f"{source.name} has no node {layer.node!r}, which {layer.name} is said to be")
        reason = refusal(nodes[layer.node])
        if reason:
            raise CalibrationError(f"{layer.name} in {source.name} cannot be computed in integers: {reason}")


def _rewrite(writer: Writer, layer: Layer, node: ir.Node) -> None:
    if node.op_type != "Conv":
        attention = self_attention(node)
        if attention is None:
            _product(writer, layer, node)
        else:
            _attention(writer, layer, node, attention)
        return
    found = patches(node)
    if found is None:
        _convolution(writer, layer, node)
    else:
        _patches(writer, layer, node, found)


def _product(writer: Writer, layer: Layer, node: ir.Node) -> None:
    """A product over the last axis, however many there are before it."""
    found = product(node)
    assert found is not None and node.inputs[0] is not None
    weight, bias, result = found
    source = writer.activation(node.inputs[0], layer)
    _take_over(writer, result, _rows_times(writer, layer, node, source.quantised, weight, bias, source))


def _attention(writer: Writer, layer: Layer, node: ir.Node, found: SelfAttention) -> None:
    """Q, K and V and all up to the values of the heads."""
    parts = product(node)
    assert parts is not None and node.inputs[0] is not None
    weight, bias, _ = parts
    source = writer.activation(node.inputs[0], layer)
    width = weight.shape[0]
    rows = _reshape(writer, node, source.quantised, [-1, found.length, width], ir.DataType.UINT8)
    length = found.length if isinstance(found.length, int) else LENGTH_AXIS
    bias = np.zeros(3 * width, np.float32) if bias is None else bias  # it must have one
    stored = writer.product_constants(layer, weight, bias)
    inputs = [rows, stored.weight, stored.bias, source.scale, stored.scale, None, source.zero]
    # Nothing but the weights of Q scales the scores: exporting folded the factor into them.
    attributes: Attributes = {"num_heads": found.heads, "unidirectional": int(found.causal), "scale": 1.0}
    fused = writer.engine_node("QAttention", inputs, f"{layer.output}_values", attributes)
    if found.values.shape is not None:
        fused.outputs[0].shape = ir.Shape([found.values.shape[0], length, width])
    found.values.replace_all_uses_with(_put(writer, node, fused))


def _patches(writer: Writer, layer: Layer, node: ir.Node, grid: Patches) -> None:
    """A product over patches that were gathered as bytes."""
    weight, bias = array_of(node, 1), array_of(node, 2)
    assert weight is not None and node.inputs[0] is not None
    source = writer.activation(node.inputs[0], layer)
    apart = [-1, grid.channels, grid.rows, grid.height, grid.columns, grid.width]
    value = _reshape(writer, node, source.quantised, apart, ir.DataType.UINT8)
    value = _transpose(writer, node, value, [0, 2, 4, 1, 3, 5])  # (N, rows, columns, channels, height, width)
    value = _reshape(writer, node, value, [-1, int(np.prod(weight.shape[1:]))], ir.DataType.UINT8)
    value = _rows_times(writer, layer, node, value, weight.reshape(len(weight), -1).T, bias, source)
    tokens = _token_view(node)
    if tokens is not None:  # (N, patches, channels) is what the encoder goes on with
        value = _reshape(writer, node, value, [-1, grid.rows * grid.columns, len(weight)], ir.DataType.FLOAT)
        _take_over(writer, tokens, value)
        return
    value = _reshape(writer, node, value, [-1, grid.rows, grid.columns, len(weight)], ir.DataType.FLOAT)
    _take_over(writer, node.outputs[0], _transpose(writer, node, value, [0, 3, 1, 2]))


def _convolution(writer: Writer, layer: Layer, node: ir.Node) -> None:
    """A convolution between bytes and bytes."""
    weight, bias = array_of(node, 1), array_of(node, 2)
    assert weight is not None and node.inputs[0] is not None
    source = writer.activation(node.inputs[0], layer)
    node.replace_input_with(0, writer.read(source, node))
    for index, value in enumerate(writer.constants(layer, weight, 0, bias, source, node), start=1):
        node.replace_input_with(index, value)
    _only_bytes(writer, tail(node), layer)
    producer = source.value.producer()
    if producer is not None and producer.op_type == "Relu":
        _only_bytes(writer, source.value, layer)  # a residual sum reads the bytes too, and is computed on bytes


def _only_bytes(writer: Writer, value: ir.Value, layer: Layer) -> None:
    """Everything that reads a value reads its bytes."""
    users = [use for use in value.uses() if use.node.op_type != "QuantizeLinear"]
    source = writer.activation(value, layer)
    for user, index in users:
        user.replace_input_with(index, writer.read(source, user))


def _rows_times(
    writer: Writer,
    layer: Layer,
    before: ir.Node,
    value: ir.Value,
    weight: NDArray[np.float32],
    bias: NDArray[np.float32] | None,
    source: Bytes,
) -> ir.Value:
    """Bytes `(..., inputs)` to float32 `(..., outputs)`; no zero point of the weights is given, so it is zero."""
    stored = writer.product_constants(layer, weight, bias)
    inputs = [value, stored.weight, source.scale, stored.scale, source.zero, None, stored.bias]
    return _put(writer, before, writer.engine_node("MatMulIntegerToFloat", inputs, f"{layer.output}_product"))


def _reshape(
    writer: Writer, before: ir.Node, value: ir.Value, shape: Sequence[int | ir.Value], dtype: ir.DataType
) -> ir.Value:
    """A size that is a value of the graph is computed there."""
    name = f"{value.name}_shape"
    if all(isinstance(size, int) for size in shape):
        sizes = writer.constant(name, np.array(shape, np.int64))
    else:
        parts = [
            size if isinstance(size, ir.Value) else writer.constant(f"{name}_{place}", np.array([size], np.int64))
            for place, size in enumerate(shape)
        ]
        sizes = _put(writer, before, writer.node("Concat", parts, name, ir.DataType.INT64, {"axis": 0}))
    return _put(writer, before, writer.node("Reshape", [value, sizes], f"{value.name}_view", dtype))


def _transpose(writer: Writer, before: ir.Node, value: ir.Value, order: list[int]) -> ir.Value:
    dtype = value.dtype or ir.DataType.UNDEFINED
    return _put(writer, before, writer.node("Transpose", [value], f"{value.name}_t", dtype, {"perm": order}))


def _put(writer: Writer, before: ir.Node, node: ir.Node) -> ir.Value:
    writer.graph.insert_before(before, node)
    return node.outputs[0]


def _take_over(writer: Writer, result: ir.Value, value: ir.Value) -> None:
    """Everything that read `result` reads `value`, which takes its name and shape too."""
    name = result.name
    result.name, value.name = writer.free(f"{name}_float"), name
    value.shape = result.shape
    result.replace_all_uses_with(value, replace_graph_outputs=True)


def _token_view(node: ir.Node) -> ir.Value | None:
    """The patches as rows, where a convolution's map is used as such and as nothing else."""
    users = node.outputs[0].consumers()
    if len(users) != 1 or users[0].op_type != "Reshape":
        return None
    flat = users[0].outputs[0]
    users = flat.consumers()
    if len(users) != 1 or users[0].op_type != "Transpose" or flat.shape is None or len(flat.shape) != 3:
        return None
    return users[0].outputs[0] if list(users[0].attributes.get_ints("perm", [])) == [0, 2, 1] else None
