"""Attention blocks of a graph, and how many of them an engine computes as one layer.

A block is softmax(Q K^T) V: a MatMul of two activations, a Softmax, and a MatMul of its result. As one layer, the
scores (batch, heads, L, L) never leave the processor; as several they are written and read between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from clipdeploy.engine.layers.kernels import is_attention, layers_of, multiplies
from clipdeploy.engine.layers.products import node_name
from clipdeploy.engine.records import EngineLayer, LayerReport, LayerSource

_BETWEEN = {
    "Add",
    "Mul",
    "Div",
    "Where",
    "Cast",
    "Reshape",
    "Transpose",
    "QuantizeLinear",
    "DequantizeLinear",
    "Identity",
}
"""What may stand between the products and the softmax: scale, mask, casts, layout, Q/DQ."""


@dataclass(frozen=True)
class AttentionBlock:
    """One block, by the names of its nodes; all three are the same for ONNX's `Attention` operator."""

    scores: str
    softmax: str
    values: str


def find_blocks(model: ir.Model) -> tuple[AttentionBlock, ...]:
    """The attention blocks of a graph, in its order."""
    blocks = []
    for node in model.graph:
        if node.op_type == "Attention":
            blocks.append(AttentionBlock(*[node_name(node)] * 3))
        elif node.op_type == "Softmax":
            scores = next(_walk(node, _producers), None)
            values = next(_walk(node, _users), None)
            if scores is not None and values is not None:
                blocks.append(AttentionBlock(node_name(scores), node_name(node), node_name(values)))
    return tuple(blocks)


def fused_blocks(blocks: Sequence[AttentionBlock], layers: Sequence[EngineLayer]) -> int | None:
    """How many blocks are one layer, in every optimisation profile; None where the layers do not tell."""
    states = [_is_fused(block, layers) for block in blocks]
    told = [state for state in states if state is not None]
    return sum(told) if len(told) == len(states) else None


def report_layers(model: ir.Model, source: LayerSource, layers: Sequence[EngineLayer]) -> LayerReport:
    """What an engine is made of, with its attention blocks counted."""
    blocks = find_blocks(model)
    return LayerReport(
        source=source if layers else "none",
        layers=tuple(layers),
        attention_blocks=len(blocks),
        attention_fused=fused_blocks(blocks, layers) if layers else None,
    )


def _is_fused(block: AttentionBlock, layers: Sequence[EngineLayer]) -> bool | None:
    of_scores, of_values = layers_of(block.scores, layers), layers_of(block.values, layers)
    computing = {id(layer): layer for layer in (*of_scores, *of_values) if multiplies(layer)}
    if not of_scores or not of_values or not computing:
        return None
    return all(is_attention(layer) or _holds(layer, block) for layer in computing.values())


def _holds(layer: EngineLayer, block: AttentionBlock) -> bool:
    return {block.scores, block.softmax, block.values} <= set(layer.nodes)


def _walk(softmax: ir.Node, neighbours: Callable[[ir.Node], Iterator[ir.Node]]) -> Iterator[ir.Node]:
    """The products of two activations that a softmax reaches in one direction, the nearest first."""
    waiting, seen = [softmax], {id(softmax)}
    while waiting:
        for node in neighbours(waiting.pop(0)):
            if id(node) in seen:
                continue
            seen.add(id(node))
            if node.op_type == "MatMul" and all(v is not None and v.const_value is None for v in node.inputs):
                yield node
            elif node.op_type in _BETWEEN:
                waiting.append(node)


def _producers(node: ir.Node) -> Iterator[ir.Node]:
    return (p for value in node.inputs if value is not None and (p := value.producer()) is not None)


def _users(node: ir.Node) -> Iterator[ir.Node]:
    return (user for value in node.outputs for user in value.consumers())
