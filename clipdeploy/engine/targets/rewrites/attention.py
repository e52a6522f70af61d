"""Opset 23's `Attention`, written out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from clipdeploy.engine.targets.patterns import is_op
from clipdeploy.engine.targets.rewrites.nodes import Chain, swapped

_MASKED = -1e4
"""Added where a mask is; softmax makes it nothing, and FP16 holds it."""


def explicit_attention(model: ir.Model) -> int:
    """Write out every `Attention` without past keys, soft caps and grouped heads; returns how many.

    before  Attention(q, k, v, mask)
    after   MatMul(Softmax(Add(MatMul(Mul(q, scale), k^T), mask)), v)
    """
    nodes = [node for node in list(model.graph) if is_op(node, "Attention")]
    return sum(_write(model, node) for node in nodes)


@dataclass(frozen=True)
class _Heads:
    """Queries, keys and values as (N, H, L, D)."""

    query: ir.Value
    keys: ir.Value
    values: ir.Value
    depth: int | None
    rows: int | None
    columns: int | None


def _write(model: ir.Model, node: ir.Node) -> bool:
    q, k, v = node.inputs[:3]
    if not _is_plain(node) or q is None or k is None or v is None or q.dtype is None or q.shape is None:
        return False
    chain, flat = Chain(model, node), len(q.shape) == 3
    heads = _split(chain, q, k, v) if flat else _heads(q, k, v)
    if heads is None:
        return False
    scale = node.attributes.get_float("scale", 0.0) or (1 / math.sqrt(heads.depth) if heads.depth else 0.0)
    causal = node.attributes.get_int("is_causal", 0) == 1
    if not scale or (causal and (heads.rows is None or heads.columns is None)):
        return False
    query = chain.add("Mul", heads.query, chain.number(scale, q.dtype))
    scores = chain.add("MatMul", query, chain.add("Transpose", heads.keys, perm=swapped(4)))
    if causal:
        assert heads.rows is not None and heads.columns is not None
        above = np.triu(np.full((heads.rows, heads.columns), _MASKED, dtype=np.float32), k=1)
        scores = chain.add("Add", scores, chain.constant("causal", above, q.dtype))
    mask = node.inputs[3] if len(node.inputs) > 3 else None
    if mask is not None:
        scores = chain.add("Add", scores, _additive(chain, mask, q.dtype))
    context = chain.add("MatMul", _softmax(chain, scores, q.dtype), heads.values)
    if flat:
        together = chain.add("Transpose", context, perm=[0, 2, 1, 3])
        context = chain.add("Reshape", together, chain.sizes(0, 0, -1))
    chain.finish(context)
    return True


def _is_plain(node: ir.Node) -> bool:
    """Whether an `Attention` has nothing that is not written out here."""
    attributes = node.attributes
    heads = attributes.get_int("q_num_heads", 0), attributes.get_int("kv_num_heads", 0)
    past = any(value is not None for value in node.inputs[4:])
    others = any(output.uses() or output.is_graph_output() for output in node.outputs[1:])
    return not past and not others and not attributes.get_float("softcap", 0.0) and heads[0] == heads[1]


def _heads(q: ir.Value, k: ir.Value, v: ir.Value) -> _Heads | None:
    if q.shape is None or k.shape is None or len(q.shape) != 4 or q.shape[1] != k.shape[1]:
        return None
    depth, rows, columns = (size if isinstance(size, int) else None for size in (q.shape[3], q.shape[2], k.shape[2]))
    return _Heads(q, k, v, depth, rows, columns)


def _split(chain: Chain, q: ir.Value, k: ir.Value, v: ir.Value) -> _Heads | None:
    """Cut (N, L, H * D) into heads."""
    count = chain.node.attributes.get_int("q_num_heads", 0)
    if not count or q.shape is None or k.shape is None:
        return None
    width, rows, columns = (size if isinstance(size, int) else None for size in (q.shape[2], q.shape[1], k.shape[1]))
    parts = [
        chain.add("Transpose", chain.add("Reshape", value, chain.sizes(0, 0, count, -1)), perm=[0, 2, 1, 3])
        for value in (q, k, v)
    ]
    return _Heads(parts[0], parts[1], parts[2], width // count if width else None, rows, columns)


def _additive(chain: Chain, mask: ir.Value, dtype: ir.DataType) -> ir.Value:
    """A mask to add: a boolean one keeps where it is true."""
    if mask.dtype != ir.DataType.BOOL:
        return chain.cast(mask, dtype)
    return chain.add("Where", mask, chain.number(0.0, dtype), chain.number(_MASKED, dtype))


def _softmax(chain: Chain, scores: ir.Value, dtype: ir.DataType) -> ir.Value:
    """Over the keys, in the type that the operator names."""
    scores.dtype = dtype
    precision = ir.DataType(chain.node.attributes.get_int("softmax_precision", int(dtype)))
    weights = chain.add("Softmax", chain.cast(scores, precision), axis=-1)
    weights.dtype = precision
    return chain.cast(weights, dtype)
