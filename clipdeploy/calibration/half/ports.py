"""Which inputs and outputs of a node may be typed half, read from the operator schemas of ONNX.

Some stay float32 whatever the node computes in, such as the scales of a Resize; some operators have no bfloat16 before
opset 22, such as Conv.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from clipdeploy.calibration.half.formats import HalfFormat

_TYPED_BY_ATTRIBUTE = frozenset(
    ("Bernoulli", "ConstantOfShape", "EyeLike", "Multinomial", "RandomNormal", "RandomUniform", "Range")
)
"""Their types follow no input; they are left as they are."""

_ONE_TYPED_OUTPUT = frozenset(("LayerNormalization", "RMSNormalization", "BatchNormalization"))
"""Further outputs are statistics, which stay float32."""


@dataclass(frozen=True)
class Ports:
    """Indices of the float32 inputs and outputs of a node that may be half."""

    inputs: frozenset[int]
    outputs: frozenset[int]

    def __bool__(self) -> bool:
        return bool(self.inputs or self.outputs)


def half_ports(node: ir.Node, opset: int, fmt: HalfFormat) -> Ports:
    """What of a node may be half; nothing where its definition in this opset does not know the format."""
    nothing = Ports(frozenset(), frozenset())
    if node.op_type in _TYPED_BY_ATTRIBUTE or node.domain not in ("", "ai.onnx"):
        return nothing
    try:
        schema = onnx.defs.get_schema(node.op_type, opset)
    except onnx.defs.SchemaError:
        return nothing
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    inputs = _typed_half(node.inputs, schema.inputs, allowed, fmt)
    outputs = _typed_half(node.outputs, schema.outputs, allowed, fmt)
    if node.op_type == "Cast":
        return Ports(inputs, outputs)
    main = _typed_half(node.inputs[:1], schema.inputs, allowed, fmt)
    if node.inputs and is_float32(node.inputs[0]) and not main:
        return nothing
    return Ports(inputs, outputs & {0} if node.op_type in _ONE_TYPED_OUTPUT else outputs)


def float_ports(node: ir.Node) -> list[ir.Value]:
    """All float32 tensors that a node takes and gives."""
    return [v for v in (*node.inputs, *node.outputs) if is_float32(v)]


def is_float32(value: ir.Value | None) -> bool:
    """Whether this is a float32 tensor."""
    return value is not None and value.dtype == ir.DataType.FLOAT


def is_constant(value: ir.Value | None) -> bool:
    """Whether the graph stores this tensor."""
    return value is not None and value.const_value is not None


def _typed_half(
    values: Sequence[ir.Value | None],
    formal: Sequence[onnx.defs.OpSchema.FormalParameter],
    allowed: dict[str, Sequence[str]],
    fmt: HalfFormat,
) -> frozenset[int]:
    found = set()
    for i, value in enumerate(values):
        type_name = formal[min(i, len(formal) - 1)].type_str  # the last one may stand for any number
        if is_float32(value) and fmt.type_name in allowed.get(type_name, [type_name]):
            found.add(i)
    return frozenset(found)
