"""Which layers processors compute in 8 bits, and whose ranges that takes.

More than an engine on a GPU takes: the patch embedding, whose input has 8 bits from birth, and the attention pool of a
ResNet, whose weights are most of the file. Their share of the time is felt once all else runs in integers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import onnx_ir as ir

from clipdeploy.calibration.cpu.shapes import array_of, patches, product, tail
from clipdeploy.calibration.placement import Choice, place
from clipdeploy.calibration.records import Layer, Range
from clipdeploy.spec import PixelSpec

_TOO = ("patch_embed", "pool")


def place_cpu(model: ir.Model, layers: Sequence[Layer], *, keep: Collection[str] = ()) -> tuple[Choice, ...]:
    """Where integers are computed: as `place` has it, and the patch embedding and the attention pool too.

    Args:
        model: the graph.
        layers: all of its layers, as `find_layers` gives them.
        keep: names of layers to leave in float32.
    """
    nodes = {node.name: node for node in model.graph}
    return tuple(_choose(choice, nodes[choice.layer.node], keep) for choice in place(model, layers, keep=keep))


def ranges_needed(model: ir.Model, layers: Sequence[Layer]) -> tuple[str, ...]:
    """The activations whose ranges `quantise_cpu` takes: what layers read, and what convolutions give."""
    nodes = {node.name: node for node in model.graph}
    names: dict[str, None] = {}
    for layer in layers:
        names[layer.input] = None
        node = nodes[layer.node]
        if node.op_type == "Conv" and patches(node) is None:
            names[tail(node).name or ""] = None
    return tuple(names)


def pixel_range(pixels: PixelSpec) -> Range:
    """From black to white, whatever the calibration pictures show: a brighter one is never clipped."""
    edges = [(level - mean) / std for mean, std in zip(pixels.mean, pixels.std, strict=True) for level in (0.0, 1.0)]
    return Range(min(0.0, *edges), max(0.0, *edges))


def refusal(node: ir.Node) -> str:
    """Why a layer cannot be computed in integers; empty where it can."""
    if node.op_type == "Conv":
        if array_of(node, 1) is None:
            return "its weights are not constant float32"
        return "" if patches(node) or node.attributes.get_int("group", 1) == 1 else "a grouped convolution"
    return "" if product(node) else "no plain product of an activation and constant weights"


def _choose(choice: Choice, node: ir.Node, keep: Collection[str]) -> Choice:
    if choice.layer.kind in _TOO and choice.layer.name not in keep:
        if choice.layer.kind == "patch_embed" and patches(node) is None:
            return choice
        choice = Choice(choice.layer, True)
    reason = refusal(node) if choice.quantise else ""
    return replace(choice, quantise=False, reason=reason) if reason else choice
