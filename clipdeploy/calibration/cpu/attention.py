"""Self-attention that one operator of ONNX Runtime computes, from the bytes of its input to the values of all heads.

    Gemm -> Reshape (N, L, 3H, d) -> Transpose -> Split -> MatMul -> [Add] -> Softmax -> MatMul -> Transpose -> Reshape

is what QAttention does, with the product of Q, K and V in integers and all behind it in float32. It hands heads out to
threads, where a product of so few rows gains little from a second one, and moves nothing about in between.

What differs in the least is not found and stays as it is: another layout, a norm or positions on queries and keys, a
scale that is not in the weights, a mask that is not the causal one, a number in between that something else reads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from clipdeploy.calibration.cpu.shapes import array_of, product
from clipdeploy.graphs.matching import constant_array

_HIDDEN = -1e4
"""What a causal mask adds to the scores of later tokens, or less: their weights are zero in float32."""


@dataclass(frozen=True)
class SelfAttention:
    """Every token of a sample asks all of them, or those up to itself.

    Attributes:
        length: tokens of a sample; a value of the graph where texts may have any length.
        heads: of the attention.
        causal: whether a token asks none of those behind it.
        values: `(N, length, heads, width of a head)`, what the tokens get; nothing but a Reshape reads it.
    """

    length: int | ir.Value
    heads: int
    causal: bool
    values: ir.Value


def self_attention(node: ir.Node) -> SelfAttention | None:
    """The attention behind one product of Q, K and V; None where it is something else."""
    found = product(node)
    if found is None:
        return None
    weight, _, result = found
    rows = _only_user(result, "Reshape")
    sizes = [] if rows is None else _sizes(rows)
    if rows is None or len(sizes) != 4 or sizes[0] != -1:
        return None
    length, threefold, width = sizes[1:]
    if not isinstance(threefold, int) or not isinstance(width, int) or threefold % 3:
        return None
    heads = threefold // 3
    if weight.shape != (heads * width, 3 * heads * width):  # also the operator's rule: as wide behind as before
        return None
    split = _only_user(_transposed(rows.outputs[0], [0, 2, 1, 3]), "Split")
    if split is None or not _is_in_three(split, heads):
        return None
    query, key, value = split.outputs
    scores = _product(query, _transposed(key, [0, 1, 3, 2]))
    masked = _only_user(scores, "Add")
    if masked is not None and not _is_causal(masked, length):
        return None
    softmax = _only_user(scores if masked is None else masked.outputs[0], "Softmax")
    if softmax is None or softmax.attributes.get_int("axis", -1) not in (-1, 3):
        return None
    values = _transposed(_product(softmax.outputs[0], value), [0, 2, 1, 3])
    joined = _only_user(values, "Reshape")
    if values is None or joined is None or not _sizes(joined):
        return None
    return SelfAttention(length, heads, masked is not None, values)


def _only_user(value: ir.Value | None, kind: str) -> ir.Node | None:
    """The node that reads a value as its first input, if nothing else does and it is of this kind."""
    if value is None or value.is_graph_output() or len(value.uses()) != 1:
        return None
    ((user, index),) = value.uses()
    plain = user.op_type == kind and user.domain in ("", "ai.onnx")
    return user if plain and (index == 0 or kind == "Add") else None


def _transposed(value: ir.Value | None, order: list[int]) -> ir.Value | None:
    node = _only_user(value, "Transpose")
    return node.outputs[0] if node is not None and list(node.attributes.get_ints("perm", [])) == order else None


def _product(left: ir.Value | None, right: ir.Value | None) -> ir.Value | None:
    """What a MatMul makes of two values that nothing else reads."""
    node = _only_user(left, "MatMul")
    if node is None or right is None or right.is_graph_output() or len(right.uses()) != 1:
        return None
    return node.outputs[0] if node.inputs[1] is right else None


def _sizes(reshape: ir.Node) -> list[int | ir.Value]:
    """The shape of a Reshape, a size that is computed as its value; empty where it is not known, or copies a size of
    the input."""
    shape = reshape.inputs[1]
    parts = [shape]
    if shape is not None and (joined := shape.producer()) is not None and joined.op_type == "Concat":
        parts = list(joined.inputs)
    sizes: list[int | ir.Value] = []
    for part in parts:
        if part is None:
            return []
        known = part.const_value
        sizes += [part] if known is None else [int(size) for size in known.numpy().reshape(-1)]
    whole = len(parts) == 1 and shape is not None and shape.const_value is None
    return [] if whole or 0 in sizes else sizes


def _is_in_three(split: ir.Node, heads: int) -> bool:
    """Whether `(N, 3 * heads, L, d)` becomes queries, keys and values."""
    if split.attributes.get_int("axis", 0) != 1 or len(split.outputs) != 3:
        return False
    given = split.inputs[1] if len(split.inputs) > 1 else None
    if given is None:
        return True
    return given.const_value is not None and given.const_value.numpy().tolist() == [heads] * 3


def _is_causal(add: ir.Node, length: int | ir.Value) -> bool:
    """Whether one side is a constant that hides later tokens from earlier ones and does nothing else."""
    masks = [mask for index in (0, 1) if (mask := _mask(add, index, length)) is not None]
    if len(masks) != 1 or masks[0].ndim > 4:
        return False
    side = masks[0].shape[-1]
    if masks[0].size != side**2 or masks[0].shape[-2:] != (side, side):
        return False
    if isinstance(length, int) and side != length:
        return False
    mask = masks[0].reshape(side, side)
    later = np.triu_indices(side, 1)
    return not np.tril(mask).any() and bool((mask[later] <= _HIDDEN).all())


def _mask(add: ir.Node, index: int, length: int | ir.Value) -> NDArray[np.float32] | None:
    """A constant that is added; where the length is computed, one that is cut to it along both axes."""
    if isinstance(length, int):
        return array_of(add, index)
    node, cut = add, list[int]()
    while (value := node.inputs[index]) is not None and (slicing := value.producer()) is not None:
        axes = _cut_axes(slicing, length)
        if not axes:
            return None
        node, index = slicing, 0
        cut += axes
    return array_of(node, index) if sorted(cut) == [0, 1] else None


def _cut_axes(slicing: ir.Node, length: ir.Value) -> list[int]:
    """The axes along which a Slice keeps what comes before `length`; none where it does something else."""
    if slicing.op_type != "Slice" or len(slicing.inputs) < 4 or (ends := slicing.inputs[2]) is None:
        return []
    joined = ends.producer()
    parts = list(joined.inputs) if joined is not None and joined.op_type == "Concat" else [ends]
    start, axes, *step = (constant_array(slicing.inputs[i]) for i in (1, 3, *range(4, len(slicing.inputs))))
    if start is None or axes is None or start.any() or any(s is None or (s != 1).any() for s in step):
        return []
    return axes.tolist() if len(parts) == axes.size and all(part is length for part in parts) else []
