"""A graph in another opset, where only a new number is needed for it; and one opset for two graphs."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from clipdeploy.errors import InputError
from clipdeploy.graphs.files import weight_bytes

BF16_OPSET = 22
"""Conv, pooling and others take bfloat16 from here on."""

_MIN_OPSET = 18
"""From here to 22 the operators of our graphs only gained types and optional attributes."""


def raise_opset(model: ir.Model, opset: int = BF16_OPSET) -> bool:
    """Say the same in a higher opset, in place, if only a new number is needed for it; whether it is there now."""
    own = model.opset_imports[""]
    if own >= opset:
        return True
    if own < _MIN_OPSET or not _says_the_same(model, "", own, opset):
        return False
    model.opset_imports[""] = opset
    for node in model.graph.all_nodes():
        node.version = None
    return True


def agree_on_opset(front: ir.Model, back: ir.Model) -> None:
    """Bring two graphs to one version of every operator set, in place, where only a new number is needed for it.

    Raises:
        InputError: neither says the same in the other's version.
    """
    for domain in front.opset_imports.keys() | back.opset_imports.keys():
        ours, theirs = front.opset_imports.get(domain), back.opset_imports.get(domain)
        if ours is not None and theirs is not None and ours != theirs:
            low, high = (front, back) if ours < theirs else (back, front)
            _agree(domain, low, high)
    every = {**front.opset_imports, **back.opset_imports}
    for model in (front, back):
        model.opset_imports.update(every)
        for node in model.graph.all_nodes():
            node.version = None


def _agree(domain: str, low: ir.Model, high: ir.Model) -> None:
    lower, higher = low.opset_imports[domain], high.opset_imports[domain]
    if _says_the_same(low, domain, lower, higher):
        low.opset_imports[domain] = higher
    elif weight_bytes(high) < weight_bytes(low) and _says_the_same(high, domain, higher, lower):
        high.opset_imports[domain] = lower
    else:
        raise InputError(
            f"one graph is in opset {lower} of {domain or 'ONNX'}, the other in {higher}, which means something else",
            fix=f"export or build one of them again in the other's opset: --opset {higher}",
        )


def _says_the_same(model: ir.Model, domain: str, own: int, other: int) -> bool:
    """Whether every operator of the graph has, in the other version, the inputs and attributes that it is used with."""
    for node in model.graph.all_nodes():
        if ("" if node.domain == "ai.onnx" else node.domain) != domain:
            continue
        try:
            now, then = (onnx.defs.get_schema(node.op_type, version, domain) for version in (own, other))
        except onnx.defs.SchemaError:
            return False
        if now.since_version != then.since_version and not _fits(node, now, then):
            return False
    return True


def _fits(node: ir.Node, now: onnx.defs.OpSchema, then: onnx.defs.OpSchema) -> bool:
    """Whether a node means the same under another definition of its operator."""
    count = len(node.inputs)
    same_inputs = [i.name for i in now.inputs[:count]] == [i.name for i in then.inputs[:count]]
    needed = {name for name, attribute in then.attributes.items() if attribute.required}
    return same_inputs and set(node.attributes) <= set(then.attributes) and needed <= set(node.attributes)
