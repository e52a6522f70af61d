"""RMSNormalization for parsers that do not know it."""

from __future__ import annotations

import onnx_ir as ir

from clipdeploy.engine.targets.patterns import is_op
from clipdeploy.engine.targets.rewrites.nodes import Chain


def lower_rms_norm(model: ir.Model) -> int:
    """Write out RMSNormalization over the last axes; returns how many.

    before  RMSNormalization(x, scale)
    after   x / sqrt(mean(x * x) + epsilon) * scale, in float32 up to the scale where the operator asks for it
    """
    nodes = [node for node in list(model.graph) if is_op(node, "RMSNormalization")]
    return sum(_write(model, node) for node in nodes)


def _write(model: ir.Model, node: ir.Node) -> bool:
    x, scale = node.inputs[:2]
    if x is None or scale is None or x.dtype is None or x.shape is None:
        return False
    chain = Chain(model, node)
    axis = node.attributes.get_int("axis", -1) % len(x.shape)
    wide = ir.DataType.FLOAT if node.attributes.get_int("stash_type", 1) == 1 else x.dtype
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    inner = chain.cast(x, wide)
    mean = chain.add("ReduceMean", chain.add("Mul", inner, inner), chain.sizes(*range(axis, len(x.shape))), keepdims=1)
    root = chain.add("Sqrt", chain.add("Add", mean, chain.number(epsilon, wide)))
    normed = chain.add("Div", inner, root)
    normed.dtype = wide
    chain.finish(chain.add("Mul", chain.cast(normed, x.dtype), scale))
    return True
