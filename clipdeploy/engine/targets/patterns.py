"""Patterns in a graph that some TensorRT miscompiles, and the attention blocks that most of them sit in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from clipdeploy.graphs.matching import constant_array, single_user

_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True)
class AttentionBlock:
    """Attention written out: softmax(q k^T) v, whatever stands between the product and the softmax.

    Attributes:
        scores: the product of queries and transposed keys.
        softmax: over the keys.
        context: the product with the values.
    """

    scores: ir.Node
    softmax: ir.Node
    context: ir.Node

    @property
    def rows(self) -> int | None:
        """How many queries a head has, None where it is not known."""
        return _size(self.scores.inputs[0], -2)

    @property
    def columns(self) -> int | None:
        """How many keys a head has, None where it is not known."""
        return _size(self.scores.inputs[1], -1)


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    """Whether a node is one of these operators of the standard domain."""
    return node is not None and node.domain in _STANDARD and node.op_type in op_types


def attention_blocks(model: ir.Model) -> tuple[AttentionBlock, ...]:
    """All attention that is written out, in the order of the graph."""
    blocks = (_block(node) for node in model.graph if is_op(node, "Softmax"))
    return tuple(block for block in blocks if block is not None)


def attention_operator(model: ir.Model) -> tuple[str, ...]:
    """Nodes of opset 23's `Attention`."""
    return tuple(node.name or "" for node in model.graph.all_nodes() if is_op(node, "Attention"))


def scale_on_both_sides(model: ir.Model) -> tuple[str, ...]:
    """Attention whose queries and keys are each multiplied by the root of the scale, as PyTorch's SDPA is exported."""
    return tuple(block.scores.name or "" for block in attention_blocks(model) if scales(block) is not None)


def single_row_query(model: ir.Model) -> tuple[str, ...]:
    """Attention of one query against several keys, as pooling and a last block without the other tokens have it."""
    return tuple(block.scores.name or "" for block in attention_blocks(model) if has_single_row(block))


def constant_query(model: ir.Model) -> tuple[str, ...]:
    """Attention whose queries are learned, as SigLIP pools its tokens."""
    blocks = attention_blocks(model)
    return tuple(block.scores.name or "" for block in blocks if _is_learned(block.scores.inputs[0]))


def rotary_positions(model: ir.Model) -> tuple[str, ...]:
    """Rotary position embeddings: sums `x * cos + rotated x * sin` with constant tables."""
    return tuple(node.name or "" for node in model.graph if is_op(node, "Add") and _is_rotation(node))


def half_attention(model: ir.Model) -> tuple[str, ...]:
    """Attention in 16 bits."""
    halves = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
    return tuple(b.scores.name or "" for b in attention_blocks(model) if b.scores.outputs[0].dtype in halves)


def raw_frames(model: ir.Model) -> tuple[str, ...]:
    """Nodes that do something else with 8-bit inputs than to cast them."""
    users = (node for value in model.graph.inputs if value.dtype == ir.DataType.UINT8 for node in value.consumers())
    return tuple(node.name or "" for node in users if not is_op(node, "Cast"))


PATTERNS: dict[str, Callable[[ir.Model], tuple[str, ...]]] = {
    function.__name__: function
    for function in (
        attention_operator,
        scale_on_both_sides,
        single_row_query,
        constant_query,
        rotary_positions,
        half_attention,
        raw_frames,
    )
}
"""By name; each gives the names of the nodes where the pattern is."""


def has_single_row(block: AttentionBlock) -> bool:
    """Whether a head has one query and several keys."""
    return block.rows == 1 and block.columns != 1


def scales(block: AttentionBlock) -> tuple[ir.Node, ir.Node] | None:
    """The two Muls, by one number each, in front of the queries and the keys; None where there are not both."""
    query, keys = (_scaling(value) for value in block.scores.inputs[:2])
    return None if query is None or keys is None else (query, keys)


def factor(mul: ir.Node) -> ir.Value | None:
    """The input of a Mul that is one number."""
    return next((value for value in reversed(mul.inputs) if value is not None and _is_one_number(value)), None)


def _block(softmax: ir.Node) -> AttentionBlock | None:
    """The block around a Softmax; masks, scales and casts may stand in between."""
    value = softmax.inputs[0]
    scores = value.producer() if value is not None else None
    while is_op(scores, "Cast", "Add", "Mul", "Div", "Where", "Max"):
        assert scores is not None
        products = [v for v in scores.inputs if v is not None and not _is_constant(v)]
        scores = next((n for n in (_above(v) for v in products) if n is not None), None)
    context = single_user(softmax)
    while is_op(context, "Cast", "Dropout"):
        context = single_user(context)
    if not is_op(scores, "MatMul") or not is_op(context, "MatMul"):
        return None
    assert scores is not None and context is not None
    return AttentionBlock(scores, softmax, context)


def _above(value: ir.Value) -> ir.Node | None:
    """The node that computes a value, where it may belong to the scores."""
    node = value.producer()
    return node if is_op(node, "MatMul", "Cast", "Add", "Mul", "Div", "Where", "Max") else None


def _scaling(value: ir.Value | None) -> ir.Node | None:
    """The Mul by one number that gives a value, through Transposes."""
    node = value.producer() if value is not None else None
    while is_op(node, "Transpose"):
        assert node is not None and node.inputs[0] is not None
        node = node.inputs[0].producer()
    return node if is_op(node, "Mul") and node is not None and factor(node) is not None else None


def _is_learned(value: ir.Value | None) -> bool:
    """Whether a value is a constant, perhaps once for each sample."""
    if value is None or value.const_value is not None:
        return value is not None
    node = value.producer()
    if is_op(node, "Expand", "Tile", "Reshape", "Transpose", "Cast", "Unsqueeze", "Identity"):
        assert node is not None
        return _is_learned(node.inputs[0])
    if is_op(node, "Mul", "Add", "MatMul", "Gemm"):
        assert node is not None
        return all(_is_learned(each) for each in node.inputs)
    return is_op(node, "Constant")


def _is_rotation(node: ir.Node) -> bool:
    products = [value.producer() if value is not None else None for value in node.inputs]
    if not all(is_op(product, "Mul") for product in products):
        return False
    tables = [_table(product) for product in products if product is not None]
    cos, sin = tables[0], tables[-1]
    if len(tables) != 2 or cos is None or sin is None or cos.shape != sin.shape or cos.size < 2:
        return False
    whole = cos.astype(np.float32) ** 2 + sin.astype(np.float32) ** 2
    return bool(np.any(cos) and np.any(sin) and np.allclose(whole, 1.0, atol=0.02))  # bfloat16 has 8 bits


def _table(mul: ir.Node) -> np.ndarray | None:
    arrays = (constant_array(value) for value in mul.inputs)
    return next((array for array in arrays if array is not None), None)


def _is_constant(value: ir.Value) -> bool:
    return value.const_value is not None or is_op(value.producer(), "Constant")


def _is_one_number(value: ir.Value) -> bool:
    array = constant_array(value)
    if array is not None:
        return array.size == 1
    return value.shape is not None and all(size == 1 for size in value.shape)


def _size(value: ir.Value | None, axis: int) -> int | None:
    """The length of an axis, None where it is dynamic or not known."""
    if value is None or value.shape is None or len(value.shape) < 2:
        return None
    size = value.shape[axis]
    return size if isinstance(size, int) else None
