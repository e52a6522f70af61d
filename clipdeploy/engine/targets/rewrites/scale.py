"""Attention's scale on one side of the product."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from clipdeploy.engine.targets.patterns import attention_blocks, factor, scales
from clipdeploy.graphs.matching import constant_array, new_constant


def scale_into_query(model: ir.Model) -> int:
    """Multiply the queries alone, where queries and keys are each multiplied by a number; returns in how many blocks.

    before  MatMul(Mul(q, r), Mul(k^T, r))
    after   MatMul(Mul(q, r * r), k^T)
    """
    return sum(_fold(model, pair) for pair in map(scales, attention_blocks(model)) if pair is not None)


def _fold(model: ir.Model, pair: tuple[ir.Node, ir.Node]) -> bool:
    query, keys = pair
    if any(len(mul.outputs[0].consumers()) != 1 for mul in pair):
        return False
    first, second = factor(query), factor(keys)
    assert first is not None and second is not None
    rest = next(value for value in keys.inputs if value is not second)
    assert rest is not None
    place = next(i for i, value in enumerate(query.inputs) if value is first)
    query.replace_input_with(place, _product(model, query, first, second))
    keys.outputs[0].replace_all_uses_with(rest)
    model.graph.remove(keys, safe=True)
    return True


def _product(model: ir.Model, before: ir.Node, first: ir.Value, second: ir.Value) -> ir.Value:
    """One number times another, computed now where both are constant."""
    a, b = constant_array(first), constant_array(second)
    name = f"{before.name or 'query'}_scale"
    if a is not None and b is not None:
        return new_constant(model.graph, name, (a.astype(np.float32) * b.astype(np.float32)).astype(a.dtype))
    node = ir.node("Mul", [first, second], num_outputs=1, name=name)
    node.outputs[0].name, node.outputs[0].dtype, node.outputs[0].shape = name, first.dtype, first.shape
    model.graph.insert_before(before, node)
    model.graph.sort()  # a factor may be computed further down
    return node.outputs[0]
