"""What must stay float32, and why.

out of reach   a tensor goes beyond the limit of the format
squares, sums  a normalisation or a reduction adds up more than the format holds, inside one node
norms          L2 norms, and normalisations written out: their squares overflow, their epsilon vanishes
constants      weights too large, or so small that what they lose can be seen in the output
opset          the operator does not know the format
kept           whoever called wants it so
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from clipdeploy.calibration.half.bounds import Bounds, constant_array
from clipdeploy.calibration.half.formats import HalfFormat
from clipdeploy.calibration.half.ports import Ports, float_ports, is_constant, is_float32

_PRODUCTS = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
_NORMALISES = frozenset(("LayerNormalization", "RMSNormalization"))
_ALWAYS_FLOAT = frozenset(("BatchNormalization", "GroupNormalization", "InstanceNormalization"))
_ADDS_UP = frozenset(("AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum"))
_NORM_REDUCTIONS = frozenset(("LpNormalization", "ReduceL2", "ReduceSumSquare"))
_BEHIND_A_NORM = frozenset(("Add", "Clip", "Expand", "Max", "Pow", "Reciprocal", "Sqrt", "Unsqueeze"))
_ENDS_A_NORM = frozenset(("Div", "Mul"))

_VISIBLE = 2.0**-8
"""A loss below this part of the output drowns in the rounding of the whole path."""


def why_float32(
    graph: ir.Graph, ports: dict[ir.Node, Ports], bounds: Bounds, fmt: HalfFormat, keep: Collection[str]
) -> dict[ir.Node, str]:
    """The nodes that must stay float32, each with one reason."""
    norms = _norms(graph)
    reasons = {}
    for node in graph:
        if not float_ports(node):
            continue
        reason = next(_reasons(node, ports[node], bounds, fmt, keep, norms), None)
        if reason is not None:
            reasons[node] = reason
    return reasons


def _reasons(
    node: ir.Node, ports: Ports, bounds: Bounds, fmt: HalfFormat, keep: Collection[str], norms: set[ir.Node]
) -> Iterator[str]:
    if node.name in keep:
        yield "kept on request"
    if node in norms:
        yield "norm: its squares and its epsilon need float32"
    if not ports:
        yield f"{node.op_type} takes no {fmt.name} in this opset"
    if node.op_type in _ALWAYS_FLOAT:
        yield f"{node.op_type} normalises"
    for value in float_ports(node):
        if bounds.of(value) > fmt.limit:
            yield f"{value.name} reaches {bounds.of(value):.3g}"
    yield from _inside(node, bounds, fmt)
    for value in node.inputs:
        if is_float32(value) and is_constant(value) and _loses(node, value, bounds, fmt):
            yield f"{value.name} is too small for {fmt.name}"


def _inside(node: ir.Node, bounds: Bounds, fmt: HalfFormat) -> Iterator[str]:
    """What a node computes on its way and shows nowhere; whether in float32 is up to the engine."""
    if node.op_type in _NORMALISES:
        if bounds.of(node.inputs[0]) ** 2 > fmt.limit:
            yield f"squares of {node.inputs[0].name} reach {bounds.of(node.inputs[0]) ** 2:.3g}"
        if node.attributes.get_float("epsilon", 1e-5) < fmt.smallest:
            yield f"its epsilon vanishes in {fmt.name}"
    if node.op_type in _ADDS_UP:
        total = bounds.of(node.inputs[0]) * _terms(node)
        if total > fmt.limit:
            yield f"sums of {node.inputs[0].name} reach up to {total:.3g}"


def _terms(node: ir.Node) -> float:
    """How many numbers a reduction adds; infinite where that is not known."""
    if node.op_type == "AveragePool":
        return float(math.prod(node.attributes["kernel_shape"].as_ints()))
    given, gives = node.inputs[0].shape, node.outputs[0].shape
    if given is None or gives is None:
        return math.inf
    sizes = [n for n in given if isinstance(n, int)]
    left = [n for n in gives if isinstance(n, int)]
    if len(given) - len(sizes) != len(gives) - len(left):
        return math.inf
    return math.prod(sizes) / math.prod(left)


def _norms(graph: ir.Graph) -> set[ir.Node]:
    """Nodes of every norm that is written out: from the squares to the division by their root."""
    found: set[ir.Node] = set()
    for node in graph:
        if node.op_type in _NORM_REDUCTIONS:
            found.add(node)
        elif node.op_type in ("ReduceMean", "ReduceSum"):
            squares = node.inputs[0].producer()
            if squares is not None and _squares(squares):
                found |= {squares, node}
        elif any(v is not None and v.producer() in found for v in node.inputs) and _continues(node, found):
            found.add(node)
    return found


def _squares(node: ir.Node) -> bool:
    return node.op_type == "Pow" or (node.op_type == "Mul" and node.inputs[0] is node.inputs[1])


def _continues(node: ir.Node, found: set[ir.Node]) -> bool:
    """Whether a node that reads of a norm belongs to it; what reads the quotient does not."""
    read = [v.producer() for v in node.inputs if v is not None and v.producer() in found]
    inside = [n for n in read if n is not None and n.op_type not in (*_ENDS_A_NORM, "LpNormalization")]
    if node.op_type == "Add":
        return bool(inside) and any(is_constant(v) for v in node.inputs)
    return bool(inside) and node.op_type in (_BEHIND_A_NORM | _ENDS_A_NORM)


def _loses(node: ir.Node, value: ir.Value, bounds: Bounds, fmt: HalfFormat) -> bool:
    """Whether the numbers of a constant below what the format resolves are missed in the output."""
    array = constant_array(value)
    small = np.abs(array)
    small = small[(small > 0) & (small < fmt.smallest / fmt.epsilon)]
    if small.size == 0:
        return False
    if node.op_type in _PRODUCTS:
        lost = _lost(array, fmt)
        if value is not node.inputs[1]:
            return float(lost.max()) > _VISIBLE * bounds.of(node.outputs[0])
        rows = lost.reshape(len(lost), -1).sum(axis=1) if _rows_first(node) else lost.sum(axis=-2)
        return float(rows.max()) * bounds.of(node.inputs[0]) > _VISIBLE * bounds.of(node.outputs[0])
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):  # a step size matters by itself
        return bool((_lost(small, fmt) > _VISIBLE * small).any())
    return float(_lost(small, fmt).max()) > _VISIBLE * bounds.of(value)


def _rows_first(node: ir.Node) -> bool:
    """Whether the output channels of a weight lie on its first axis."""
    return node.op_type == "Conv" or bool(node.attributes.get_int("transB", 0))


def _lost(array: NDArray[np.generic], fmt: HalfFormat) -> NDArray[np.float32]:
    """What rounding changes, for numbers below those that the format holds with all its digits; zero for others."""
    whole = np.asarray(array, dtype=np.float32)
    rounded = whole.astype(fmt.dtype.numpy()).astype(np.float32)
    lost: NDArray[np.float32] = np.abs(whole - rounded)
    lost[np.abs(whole) >= fmt.smallest / fmt.epsilon] = 0
    return lost
