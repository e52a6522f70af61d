"""What a typed graph asks for: which product computes in which type, and how many bytes its weights take.

A strongly typed network computes as its tensors are typed. A Gemm, MatMul or Conv with DequantizeLinear before both of
its operands is meant in 8 bits; every other one in the type of its operands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

_OPERATORS = ("Gemm", "MatMul", "Conv")
_LAYOUT = {"Transpose", "Reshape", "Identity", "Flatten", "Squeeze", "Unsqueeze"}
_INDICES = {"Shape", "Size", "ArgMax", "ArgMin", "NonZero"}
_TRUTHS = {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Not", "IsNaN", "IsInf"}
_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
_DTYPES = {
    ir.DataType.FLOAT: "Float",
    ir.DataType.FLOAT16: "Half",
    ir.DataType.BFLOAT16: "BFloat16",
    ir.DataType.INT8: "Int8",
    ir.DataType.FLOAT8E4M3FN: "FP8",
}
"""ONNX's types by the short names that engines give them."""

Types = dict[ir.Value, ir.DataType]


@dataclass(frozen=True)
class Product:
    """One Gemm, MatMul or Conv of the graph; types are named as engines name them, such as `Half` or `Int8`.

    Attributes:
        node: its name.
        operands: type that both of its operands are meant in; for weights alone in 8 bits, that of the activations.
        weights: type that its weights are stored in, None where both operands are activations.
        dequantised_by: names of the DequantizeLinear nodes in front of it.
    """

    node: str
    operands: str
    weights: str | None
    dequantised_by: tuple[str, ...]

    @property
    def quantised(self) -> bool:
        """Whether both operands have 8 bits."""
        return self.operands in ("Int8", "FP8")


def find_products(model: ir.Model) -> tuple[Product, ...]:
    """Every product of a graph, in its order."""
    types = infer_types(model)
    found = (node for node in model.graph if node.op_type in _OPERATORS and node.domain in ("", "ai.onnx"))
    return tuple(_product(node, types) for node in found)


def infer_types(model: ir.Model) -> Types:
    """The type of every value of a graph; where no rule tells, that of the first floating input."""
    types: Types = {value: value.dtype for value in model.graph.inputs if value.dtype is not None}
    for value in model.graph.initializers.values():
        if value.const_value is not None:
            types[value] = value.const_value.dtype
    for node in model.graph:
        dtype = _output_type(node, types)
        for output in node.outputs:
            known = dtype if dtype is not None else output.dtype
            if known is not None:
                types[output] = known
    return types


def expected_weight_bytes(model: ir.Model) -> int:
    """Bytes of the stored constants that nodes read; those behind a QuantizeLinear count as what it makes of them."""
    total = 0
    for value in model.graph.initializers.values():
        tensor, users = value.const_value, list(value.consumers())
        if tensor is None or not users:
            continue
        quantised = all(user.op_type == "QuantizeLinear" and user.inputs[0] is value for user in users)
        total += math.prod(tensor.shape.numpy()) if quantised else tensor.nbytes
    return total


def node_name(node: ir.Node) -> str:
    """A node's name; one without is named after its output by TensorRT's parser, and here."""
    return node.name or f"node_of_{node.outputs[0].name}"


def short_name(dtype: ir.DataType | None) -> str:
    """ONNX's type by the name that engines give it."""
    return "" if dtype is None else _DTYPES.get(dtype, dtype.name)


def _output_type(node: ir.Node, types: Types) -> ir.DataType | None:
    if node.op_type in ("Cast", "DequantizeLinear", "QuantizeLinear"):
        return _cast_type(node, types)
    if node.op_type in _INDICES:
        return ir.DataType.INT64
    if node.op_type in _TRUTHS:
        return ir.DataType.BOOL
    if node.op_type in ("Constant", "ConstantOfShape"):
        value = node.attributes.get("value")
        return value.as_tensor().dtype if value is not None else node.outputs[0].dtype
    inputs = [types[value] for value in node.inputs if value is not None and value in types]
    floats = [dtype for dtype in inputs if dtype in _FLOATS]
    return (floats or inputs or [None])[0]


def _cast_type(node: ir.Node, types: Types) -> ir.DataType | None:
    name = "to" if node.op_type == "Cast" else "output_dtype"
    stated = node.attributes.get_int(name, 0)
    if stated:
        return ir.DataType(stated)
    if node.op_type == "DequantizeLinear":
        return types.get(node.inputs[1]) if node.inputs[1] is not None else None
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    return types.get(zero, ir.DataType.UINT8) if zero is not None else ir.DataType.UINT8


def _product(node: ir.Node, types: Types) -> Product:
    operands = [value for value in node.inputs[:2] if value is not None]
    dequantisers = [_dequantiser(value) for value in operands]
    names = tuple(each.name or "" for each in dequantisers if each is not None)
    stored = [short_name(_stored_type(value, each, types)) for value, each in zip(operands, dequantisers, strict=True)]
    computed = short_name(types.get(operands[0]))
    constant = len(operands) > 1 and _is_constant(operands[1])
    return Product(
        node=node_name(node),
        operands=stored[0] if None not in dequantisers else computed,
        weights=stored[1] if constant else None,
        dequantised_by=names,
    )


def _stored_type(value: ir.Value, dequantiser: ir.Node | None, types: Types) -> ir.DataType | None:
    source = value if dequantiser is None else dequantiser.inputs[0]
    return types.get(source) if source is not None else None


def _dequantiser(value: ir.Value) -> ir.Node | None:
    """The DequantizeLinear that a value comes from, through nodes that only move its numbers."""
    producer = value.producer()
    while producer is not None and producer.op_type in _LAYOUT and producer.inputs[0] is not None:
        producer = producer.inputs[0].producer()
    return producer if producer is not None and producer.op_type == "DequantizeLinear" else None


def _is_constant(value: ir.Value) -> bool:
    """Whether a value is stored, or made of stored values alone."""
    if value.const_value is not None or value.is_initializer():
        return True
    producer = value.producer()
    if producer is None:
        return False
    return all(source is None or _is_constant(source) for source in producer.inputs)
