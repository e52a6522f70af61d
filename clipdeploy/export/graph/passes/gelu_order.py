"""Multiply an exact GELU in the order that engines know.

ONNX has no Gelu before opset 20, so torch writes it out, and engines look for the written-out form to fuse it into
one kernel. They expect `x` to be multiplied before the half:

    before  x -> Div(sqrt 2) -> Erf -> Add(1) -> Mul(0.5) -> Mul(x)
    after   x -> Div(sqrt 2) -> Erf -> Add(1) -> Mul(x) -> Mul(0.5)
"""

from __future__ import annotations

import onnx_ir as ir

from clipdeploy.graphs.matching import other_input, scalar, single_user


def gelu_order(model: ir.Model) -> int:
    """Reorder every such chain; returns their number."""
    return sum(_reorder(node) for node in list(model.graph) if node.op_type == "Erf")


def _reorder(erf: ir.Node) -> bool:
    scaled = erf.inputs[0].producer() if erf.inputs[0] is not None else None
    plus_one = single_user(erf)
    halved = single_user(plus_one)
    product = single_user(halved)
    if scaled is None or plus_one is None or halved is None or product is None:
        return False
    if (scaled.op_type, plus_one.op_type, halved.op_type, product.op_type) != ("Div", "Add", "Mul", "Mul"):
        return False
    half, x = other_input(halved, plus_one.outputs[0]), other_input(product, halved.outputs[0])
    if scalar(half) != 0.5 or x is None or x is not scaled.inputs[0]:
        return False
    halved.replace_input_with(_position(halved, half), x)
    product.replace_input_with(_position(product, x), half)
    return True


def _position(node: ir.Node, value: ir.Value | None) -> int:
    return next(i for i, v in enumerate(node.inputs) if v is value)
