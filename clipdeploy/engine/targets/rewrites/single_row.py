"""Attention of a single query, without products that a fused kernel would take."""

from __future__ import annotations

import onnx_ir as ir

from clipdeploy.engine.targets.patterns import AttentionBlock, attention_blocks, has_single_row
from clipdeploy.engine.targets.rewrites.nodes import Chain, swapped


def single_row_as_sums(model: ir.Model) -> int:
    """Compute the two products of such a block as products by element and sums, in float32; returns how many blocks.

    before  scores = MatMul(q, k^T), context = MatMul(p, v)
    after   scores = ReduceSum(q^T * k^T, -2), context = ReduceSum(p^T * v, -2)

    with q (..., 1, D), k^T (..., D, L), p (..., 1, L), v (..., L, D).

    One row of each head is little work, so that the wider type costs next to nothing.
    """
    return sum(_rewrite(model, block) for block in attention_blocks(model) if has_single_row(block))


def _rewrite(model: ir.Model, block: AttentionBlock) -> bool:
    products = (block.scores, block.context)
    if any(value is None or value.shape is None for product in products for value in product.inputs):
        return False
    for product in products:
        _as_sum(model, product)
    return True


def _as_sum(model: ir.Model, product: ir.Node) -> None:
    row, columns = product.inputs
    assert row is not None and columns is not None and row.shape is not None and columns.shape is not None
    chain, dtype = Chain(model, product), product.outputs[0].dtype or row.dtype
    column = chain.add("Transpose", row, perm=swapped(len(row.shape)))
    column.dtype, column.shape = row.dtype, None
    wide = ir.DataType.FLOAT if dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16) else dtype
    if wide is not None:
        column, columns = chain.cast(column, wide), chain.cast(columns, wide)
    total = chain.add("ReduceSum", chain.add("Mul", column, columns), chain.sizes(-2), keepdims=1)
    total.dtype = wide
    chain.finish(total if dtype is None else chain.cast(total, dtype))
