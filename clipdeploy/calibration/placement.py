"""Which layers of a CLIP are computed in 8 bits, and which never are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from clipdeploy.calibration.records import Layer, LayerKind

_NEVER: dict[LayerKind, str] = {
    "patch_embed": "reads the picture itself: one small product whose error all blocks inherit",
    "projection": "makes the embedding: its error is the answer's",
    "pool": "reads the embedding off the blocks",
    "other": "its place in the encoder is not known",
}


@dataclass(frozen=True)
class Choice:
    """A layer, whether it is quantised, and why not."""

    layer: Layer
    quantise: bool
    reason: str = ""


def place(model: ir.Model, layers: Sequence[Layer], *, keep: Collection[str] = ()) -> tuple[Choice, ...]:
    """Where Q/DQ goes: in front of the Linears and dense convolutions inside the blocks, and nowhere else.

    Residual sums, norms, softmax, activations and the products inside attention hold no constant weights, so that
    nothing here ever touches them.

    Args:
        model: the graph.
        layers: all of its layers, as `find_layers` gives them.
        keep: names of layers to leave in higher precision.
    """
    nodes = {node.name: node for node in model.graph}
    return tuple(_choose(layer, nodes[layer.node], keep) for layer in layers)


def _choose(layer: Layer, node: ir.Node, keep: Collection[str]) -> Choice:
    if layer.kind in _NEVER:
        return Choice(layer, False, _NEVER[layer.kind])
    if layer.kind == "conv" and node.attributes.get_int("group", 1) > 1:
        return Choice(
            layer, False, "a depthwise convolution: little work, and ranges that differ from channel to channel"
        )
    if layer.kind == "conv" and _is_pooled(node):
        return Choice(layer, False, "a gate on pooled channels: hardly any work")
    if layer.kind == "conv" and _is_stem(node):
        return Choice(layer, False, "in the stem: few channels, whose error all blocks inherit")
    if layer.name in keep:
        return Choice(layer, False, "given back to hold the accuracy budget")
    return Choice(layer, True)


def _is_pooled(node: ir.Node) -> bool:
    """Whether a convolution sees one place only, as those of squeeze and excitation do."""
    shape = node.outputs[0].shape
    return shape is not None and tuple(shape[2:]) == (1, 1)


def _is_stem(node: ir.Node) -> bool:
    """Whether a convolution stands before the first residual sum, on a narrow picture-like tensor."""
    weight = node.inputs[1]
    assert weight is not None and weight.const_value is not None
    waiting, seen = [node], set()
    while waiting:
        current = waiting.pop()
        for value in current.inputs:
            producer = None if value is None else value.producer()
            if producer is None or id(producer) in seen:
                continue
            seen.add(id(producer))
            if producer.op_type == "Add" and all(v is not None and v.const_value is None for v in producer.inputs):
                return False
            waiting.append(producer)
    return bool(weight.const_value.shape[1] < 16)
