"""What a layer of an engine computes, told from its kind, its kernel and the ONNX nodes that it names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from clipdeploy.engine.records import EngineLayer

_ATTENTION = re.compile(r"f?mha|attention|flash", re.IGNORECASE)
_PRODUCT_KIND = re.compile(
    r"gemm|gemv|correlation|conv|matrix_?multiply|fully_?connected|runtime_fusion", re.IGNORECASE
)
_PRODUCT_KERNEL = re.compile(r"gemm|gemv|xmma|cublas|cudnn", re.IGNORECASE)
_KERNEL_TYPES = re.compile(r"_(tf32|bf16|f32|f16|i8|e4m3)(?:tf32|bf16|f32|f16|i8|i32|e4m3)_")
_SHORT = {"f32": "Float", "tf32": "Float", "f16": "Half", "bf16": "BFloat16", "i8": "Int8", "e4m3": "FP8"}


def is_attention(layer: EngineLayer) -> bool:
    """Whether the engine calls a layer a fused attention."""
    return any(_ATTENTION.search(text) for text in (layer.kind, layer.name, layer.tactic))


def is_opaque(layer: EngineLayer) -> bool:
    """Whether a layer is a whole region of the graph, of whose inside the engine says nothing."""
    return layer.kind.lower() == "myelin" or "ForeignNode[" in layer.name


def multiplies(layer: EngineLayer) -> bool:
    """Whether a layer computes a matrix product or a convolution, and not only what comes before or after one."""
    if is_opaque(layer):
        return False
    if is_attention(layer) or _PRODUCT_KIND.search(layer.kind):
        return True
    return bool(_PRODUCT_KERNEL.search(layer.tactic) or re.match(r"__myl_Fc[A-Z_]", layer.name))


def layers_of(node: str, layers: Iterable[EngineLayer]) -> tuple[EngineLayer, ...]:
    """The layers that take part in an ONNX node: those that name it, in their metadata or in their own name."""
    return tuple(layer for layer in layers if node in layer.nodes or (not layer.nodes and _named_after(layer, node)))


def computing(node: str, layers: Sequence[EngineLayer]) -> tuple[EngineLayer, ...]:
    """The layers that compute a node's product, one an optimisation profile; empty where the engine does not tell.

    A bias or a scale may be added by a later layer, which names the node too.
    """
    found = [layer for layer in layers_of(node, layers) if multiplies(layer)]
    own = [layer for layer in found if _named_after(layer, node)]
    plain = [layer for layer in found if not is_attention(layer)]
    return tuple(own or plain or found)


def part_of(layer: EngineLayer) -> str:
    """Which optimisation profile, or region of the graph, a layer belongs to: `myl1` of `node_fc1_myl1_12`."""
    match = re.search(r"_(myl\d+)_\d+$| \[(profile \d+)\]$", layer.name)
    return (match[1] or match[2]) if match else ""


def operand_types(layer: EngineLayer) -> frozenset[str]:
    """Types of the activations that a layer reads, such as `Half`; empty where the engine does not tell."""
    told = frozenset(tensor.dtype for tensor in layer.inputs if tensor.dtype)
    kernel = _KERNEL_TYPES.search(layer.tactic)
    return told or (frozenset({_SHORT[kernel[1]]}) if kernel else frozenset())


def weight_types(layer: EngineLayer) -> frozenset[str]:
    """Types of the constants that a layer reads; empty where it has none or the engine does not tell."""
    return frozenset(tensor.dtype for tensor in layer.constants if tensor.dtype)


def uses_tf32(layer: EngineLayer) -> bool:
    """Whether the kernel rounds float32 operands to 10 bits of mantissa."""
    return "tf32" in layer.tactic.lower()


def _named_after(layer: EngineLayer, node: str) -> bool:
    """Whether a layer's own name says a node: `conv + relu`, `node_linear_9_myl0_5`, or `node_linear_9_112_myl0_19`."""
    name = re.sub(r" \[profile \d+\]$", "", layer.name)
    stem = re.sub(r"_myl\d+_\d+$", "", name)
    if node in (stem, *name.split(" + ")):
        return True
    # a number at the end is the compiler's own, but only where the layer says itself that it belongs to the node
    return node in layer.nodes and bool(re.fullmatch(re.escape(node) + r"_\d+", stem))
