"""Activation functions for parsers that do not know their operators."""

from __future__ import annotations

import math
from collections.abc import Callable

import onnx_ir as ir

from clipdeploy.engine.targets.patterns import is_op
from clipdeploy.engine.targets.rewrites.nodes import Chain

Write = Callable[[Chain, ir.Value, ir.DataType], ir.Value]
"""What puts nodes for an input of a type into a chain, and gives their output."""


def lower_gelu(model: ir.Model) -> int:
    """Write out Gelu in the order of which TensorRT makes one kernel; returns how many.

    before  Gelu(x)
    after   x -> Div(sqrt 2) -> Erf -> Add(1) -> Mul(x) -> Mul(0.5)      or, where it approximates, the same with tanh
    """
    return _each(model, "Gelu", _gelu)


def lower_mish(model: ir.Model) -> int:
    """Write out Mish, x * tanh(softplus(x)); returns how many."""
    return _each(
        model, "Mish", lambda chain, x, dtype: chain.add("Mul", x, chain.add("Tanh", chain.add("Softplus", x)))
    )


def lower_swish(model: ir.Model) -> int:
    """Write out Swish, x * sigmoid(alpha * x); returns how many."""

    def swish(chain: Chain, x: ir.Value, dtype: ir.DataType) -> ir.Value:
        alpha = chain.node.attributes.get_float("alpha", 1.0)
        inner = x if alpha == 1.0 else chain.add("Mul", x, chain.number(alpha, dtype))
        return chain.add("Mul", x, chain.add("Sigmoid", inner))

    return _each(model, "Swish", swish)


def _gelu(chain: Chain, x: ir.Value, dtype: ir.DataType) -> ir.Value:
    if chain.node.attributes.get_string("approximate", "none") == "tanh":
        # https://onnx.ai/onnx/operators/onnx__Gelu.html
        cube = chain.add("Mul", chain.add("Mul", chain.add("Mul", x, x), x), chain.number(0.044715, dtype))
        inner = chain.add("Mul", chain.add("Add", x, cube), chain.number(math.sqrt(2 / math.pi), dtype))
        curve = chain.add("Tanh", inner)
    else:
        curve = chain.add("Erf", chain.add("Div", x, chain.number(math.sqrt(2), dtype)))
    return chain.add(
        "Mul", chain.add("Mul", x, chain.add("Add", curve, chain.number(1.0, dtype))), chain.number(0.5, dtype)
    )


def _each(model: ir.Model, op_type: str, write: Write) -> int:
    """Let `write` write out every node of this operator; returns how many."""
    count = 0
    for node in list(model.graph):
        x = node.inputs[0] if node.inputs else None
        if not is_op(node, op_type) or x is None or x.dtype is None:
            continue
        chain = Chain(model, node)
        chain.finish(write(chain, x, x.dtype))
        count += 1
    return count
