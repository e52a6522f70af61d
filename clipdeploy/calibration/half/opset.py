"""Raise a graph to the opset in which convolutions know bfloat16."""

from __future__ import annotations

import onnx
import onnx_ir as ir

BF16_OPSET = 22
"""Conv, pooling and others take bfloat16 from here on."""

_MIN_OPSET = 18
"""From here to 22 the operators of our graphs only gained types and optional attributes."""


def raise_opset(model: ir.Model, opset: int = BF16_OPSET) -> bool:
    """Say the same in a higher opset, in place, if only a new number is needed for it; whether it is there now."""
    own = model.opset_imports[""]
    if own >= opset:
        return True
    if own < _MIN_OPSET or not all(_reads_the_same(node, own, opset) for node in model.graph.all_nodes()):
        return False
    model.opset_imports[""] = opset
    for node in model.graph.all_nodes():
        node.version = None
    return True


def _reads_the_same(node: ir.Node, own: int, opset: int) -> bool:
    """Whether the newer definition has all inputs and attributes of the older one, where it had them."""
    if node.domain not in ("", "ai.onnx"):
        return True
    try:
        old, new = onnx.defs.get_schema(node.op_type, own), onnx.defs.get_schema(node.op_type, opset)
    except onnx.defs.SchemaError:
        return False
    same_inputs = [i.name for i in old.inputs] == [i.name for i in new.inputs[: len(old.inputs)]]
    needed = {name for name, a in new.attributes.items() if a.required}
    return same_inputs and set(old.attributes) <= set(new.attributes) and needed <= set(node.attributes)
