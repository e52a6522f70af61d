"""The products with constant weights in a CLIP's graph, and what each is for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import onnx_ir as ir

from clipdeploy.calibration.records import Layer, LayerKind
from clipdeploy.spec import Tower

PRODUCTS = ("Gemm", "MatMul", "Conv")

_LAYOUT = {"Reshape", "Transpose", "Split", "Slice", "Squeeze", "Unsqueeze", "Gather", "Cast", "Identity", "Flatten"}
_ELEMENTWISE = {"Add", "Mul", "Div", "Sub"}
_NORMS = {"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"}
_ACTIVATIONS = {"Erf", "Gelu", "Sigmoid", "Tanh", "Relu", "HardSigmoid", "Softplus", "Swish"}


def find_layers(model: ir.Model, tower: Tower) -> tuple[Layer, ...]:
    """Every Gemm, MatMul and Conv whose weights are constant, in the order of the graph."""
    layers: list[Layer] = []
    for node in model.graph:
        if node.op_type not in PRODUCTS or node.domain not in ("", "ai.onnx"):
            continue
        weight = node.inputs[1]
        if weight is None or weight.const_value is None or node.inputs[0] is None:
            continue
        kind = _kind(node)
        name, block = _place(_name(weight.name or "", tower), kind, layers)
        if kind in ("qkv", "out_proj", "fc1", "fc2") and not re.search(r"\.\d+$", block):
            kind = "pool"  # blocks are numbered; what stands outside of them reads the embedding off
        layers.append(
            Layer(
                name=name,
                kind=kind,
                block=block,
                node=node.name or "",
                input=node.inputs[0].name or "",
                weight=weight.name or "",
                output=node.outputs[0].name or "",
                channel_axis=channel_axis(node),
            )
        )
    return tuple(_gated(layers))


def _gated(layers: Sequence[Layer]) -> Iterator[Layer]:
    """The layers, where the second half of a gated MLP, which no activation follows, is known by its sister."""
    first = {layer.input for layer in layers if layer.kind == "fc1"}
    for layer in layers:
        yield replace(layer, kind="fc1") if layer.kind == "other" and layer.input in first else layer


def _place(name: str, kind: LayerKind, before: Sequence[Layer]) -> tuple[str, str]:
    """A layer's name and block; one without a name of its own joins the block of the layer before it."""
    if name:
        return name, _block(name)
    last = before[-1] if before else None
    if last is not None and re.search(r"\.\d+$", last.block) and not (kind == "qkv" and last.kind != "qkv"):
        block = last.block
    else:  # attention begins a block
        block = f"blocks.{len({layer.block for layer in before})}"
    taken = {layer.name for layer in before}
    names = (f"{block}.{kind}{number or ''}" for number in range(len(before) + 1))
    return next(each for each in names if each not in taken), block


def channel_axis(node: ir.Node) -> int:
    """The axis of a product's weights that counts the output channels."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if node.attributes.get_int("transB", 0) else 1
    weight = node.inputs[1]
    assert weight is not None and weight.const_value is not None
    return len(weight.const_value.shape) - 1


def _kind(node: ir.Node) -> LayerKind:
    source = node.inputs[0]
    if node.op_type == "Conv":
        stem = source is not None and (source.is_graph_input() or _reads_input(source))
        return "patch_embed" if stem else "conv"
    if _leads_to(node, _is_last_norm, _LAYOUT | _ELEMENTWISE):
        return "projection"
    if _leads_to(node, _makes_embedding, _LAYOUT | _ELEMENTWISE | _ACTIVATIONS):
        return "projection"  # the first half of one with two
    if _leads_to(node, _is_attention_product, _LAYOUT | _ELEMENTWISE | _NORMS):
        return "qkv"
    if source is not None and _comes_from(source, _is_attention_product, _LAYOUT | _NORMS):
        return "out_proj"
    if _leads_to(node, lambda user: user.op_type in _ACTIVATIONS, _LAYOUT | _ELEMENTWISE):
        return "fc1"
    if source is not None and _comes_from(source, lambda n: n.op_type in _ACTIVATIONS, _LAYOUT | _ELEMENTWISE | _NORMS):
        return "fc2"
    return "other"


def _is_last_norm(node: ir.Node) -> bool:
    return node.op_type in ("ReduceL2", "LpNormalization")


def _makes_embedding(node: ir.Node) -> bool:
    return node.op_type in ("Gemm", "MatMul") and _leads_to(node, _is_last_norm, _LAYOUT | _ELEMENTWISE)


def _is_attention_product(node: ir.Node) -> bool:
    return node.op_type == "MatMul" and all(value is not None and value.const_value is None for value in node.inputs)


def _leads_to(node: ir.Node, found: Callable[[ir.Node], bool], through: set[str]) -> bool:
    """Whether a node's output reaches such a node through operators of `through` and residual-free paths alone."""
    return any(found(user) for user in _walk(node, through, lambda n: (u for o in n.outputs for u in o.consumers())))


def _comes_from(value: ir.Value, found: Callable[[ir.Node], bool], through: set[str]) -> bool:
    producer = value.producer()
    if producer is None:
        return False
    if found(producer):
        return True
    if producer.op_type not in through or _is_residual(producer):
        return False
    before = _walk(producer, through, _producers)
    return any(found(node) for node in before)


def _walk(start: ir.Node, through: set[str], neighbours: Callable[[ir.Node], Iterator[ir.Node]]) -> Iterator[ir.Node]:
    seen, waiting = {id(start)}, [start]
    while waiting:
        for node in neighbours(waiting.pop()):
            if id(node) in seen:
                continue
            seen.add(id(node))
            yield node
            if node.op_type in through and not _is_residual(node):
                waiting.append(node)


def _is_residual(node: ir.Node) -> bool:
    """Whether a node adds two activations, where one block ends and another begins."""
    if node.op_type != "Add":
        return False
    producers = [value.producer() for value in node.inputs if value is not None and value.const_value is None]
    return len(producers) == 2


def _producers(node: ir.Node) -> Iterator[ir.Node]:
    return (p for value in node.inputs if value is not None and (p := value.producer()) is not None)


def _reads_input(value: ir.Value) -> bool:
    """Whether nothing but casts and constant arithmetic stands between the graph's input and a value."""
    producer = value.producer()
    while producer is not None:
        if producer.op_type not in _LAYOUT | _ELEMENTWISE:
            return False
        first = producer.inputs[0]
        if first is None or first.is_graph_input():
            return first is not None
        producer = first.producer()
    return False


def _name(weight: str, tower: Tower) -> str:
    """A weight's name without what all of them share; empty for names that an exporter made up."""
    if not re.search(r"[A-Za-z_]+\.\w", weight) or weight.startswith("onnx::"):
        return ""
    prefix = "visual." if tower is Tower.IMAGE else "text."
    return weight.removeprefix(prefix).removesuffix(".weight")


def _block(name: str) -> str:
    """The residual block of a layer: its name up to the last number; its whole name where there is none."""
    # A number at the end counts the layers of a sequence, unless there is no other.
    match = re.match(r"(.*\.\d+)\.", name) or re.match(r"(.*\.\d+)$", name)
    return match.group(1) if match else name
