"""Is an engine what was asked for? What its graph asks of it, against what the engine and its file say.

What is `bad` fails the build; a `note` is what its user should know before choosing it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import onnx_ir as ir

from clipdeploy.engine.frames import is_of_frame
from clipdeploy.engine.layers.attention import report_layers
from clipdeploy.engine.layers.kernels import (
    computing,
    is_opaque,
    layers_of,
    multiplies,
    operand_types,
    part_of,
    uses_tf32,
    weight_types,
)
from clipdeploy.engine.layers.products import (
    Product,
    find_products,
    infer_types,
    node_name,
    short_name,
)
from clipdeploy.engine.layers.read import read_inspector, read_layers
from clipdeploy.engine.layers.size import REPORT_IT, size_finding
from clipdeploy.engine.records import BuildOptions, Built, EngineLayer, LayerReport
from clipdeploy.findings import Finding
from clipdeploy.graphs.files import load_graph
from clipdeploy.spec import Precision

FALLBACK = "fallback"
"""What `--allow` takes to have an engine in which some products fell back to a wider type."""
_WIDTH = {"Int4": 0, "Int8": 1, "FP8": 1, "Half": 2, "BFloat16": 2, "Float": 4}
_SHORT = {
    Precision.FP32: "Float",
    Precision.FP16: "Half",
    Precision.BF16: "BFloat16",
    Precision.INT8: "Int8",
    Precision.FP8: "FP8",
}
_SHOWN = 5


def layer_report(graph: Path, built: Built, inspector: str | None = None) -> LayerReport:
    """What an engine is made of: from its inspector's JSON where there is one, otherwise from the builder's log."""
    layers = read_inspector(inspector) if inspector is not None else read_layers(built.log)
    return report_layers(load_graph(graph), "build log" if inspector is None else "inspector", layers)


def check(
    graph: Path,
    precision: Precision,
    built: Built,
    report: LayerReport,
    options: BuildOptions | None = None,
    allow: Collection[str] = (),
) -> tuple[Finding, ...]:
    """Compare an engine with the graph that it was built from.

    Args:
        graph: the ONNX file that the builder read.
        precision: what was asked for.
        built: the engine's file.
        report: the engine's layers.
        options: how it was built; None stands for the defaults.
        allow: with `fallback`, products that compute in a wider type are a note, as long as some are as asked.
    """
    model = load_graph(graph)
    products = find_products(model)
    findings = [_graph(graph, precision, products)]
    if report.layers and any(layer.kind for layer in report.layers):
        findings += [
            _tensors(model, report.layers),
            *_products(precision, products, report.layers, FALLBACK in allow),
            *_float_between(model, precision, report.layers),
            *_attention(report),
        ]
    else:
        told = "names alone" if report.layers else "nothing"
        message = f"the engine tells {told} of its layers, so their types were not compared with the graph's"
        findings.append(Finding("layers", "note", message, "build it with --detailed"))
    return (*findings, size_finding(model, built, options or BuildOptions()))


def _graph(graph: Path, precision: Precision, products: Sequence[Product]) -> Finding:
    if not products:
        return Finding("graph", "note", f"{graph.name} has no Gemm, MatMul or Conv, whose types could be compared")
    asked = _SHORT[precision]
    front = [product for product in products if is_of_frame(product.node)]
    encoder = [product for product in products if not is_of_frame(product.node)]
    counts = Counter(product.operands for product in encoder)
    typed = ", ".join(f"{count} in {dtype}" for dtype, count in counts.most_common())
    message = f"{graph.name}: products {typed}"
    if front:
        wider = [product.node for product in front if product.operands != "Float"]
        if wider:
            said = f"{message}; of the frame graph, which computes in Float, {_some(wider)} do not"
            return Finding("graph", "bad", said, "make it again: clipdeploy frames BUNDLE --frame SIZE --overwrite")
        message += f"; {len(front)} of the frame graph in Float, as its rounding to 8 bits asks"
    wanted = counts[asked] and (precision is not Precision.FP32 or counts[asked] == len(encoder))
    if wanted:
        return Finding("graph", "good", message)
    expected = "all of them in Float" if precision is Precision.FP32 else f"some in {asked}"
    return Finding(
        "graph",
        "bad",
        f"{message}; for {precision.value} expected {expected}",
        f"make the graph: clipdeploy quantize BUNDLE --precision {precision.value}"
        if precision is not Precision.FP32
        else "name the graph as clipdeploy export wrote it",
    )


def _tensors(model: ir.Model, layers: Sequence[EngineLayer]) -> Finding:
    """Whether the engine's door has the graph's names; the other tower's has others."""
    known = {tensor.name for layer in layers for tensor in (*layer.inputs, *layer.outputs)}
    asked = [value.name or "" for value in (*model.graph.inputs, *model.graph.outputs)]
    asked = [name for name in asked if name not in model.graph.initializers]
    missing = [name for name in asked if name not in known]
    if not missing:
        return Finding("tensors", "good", f"reads and writes {', '.join(asked)}")
    return Finding(
        "tensors",
        "bad",
        f"no layer of the engine reads or writes {', '.join(missing)} of the graph: it was built from another one",
        "build the engine again",
    )


def _products(
    precision: Precision, products: Sequence[Product], layers: Sequence[EngineLayer], allowed: bool
) -> list[Finding]:
    """Every product in the type that the graph gives it, or listed by its node."""
    found = {product: computing(product.node, layers) for product in products}
    told = {product: kernels for product, kernels in found.items() if any(map(operand_types, kernels))}
    if not products:
        return []
    if not told:
        return [_by_census(precision, products, layers)]
    wrong: dict[str, str] = {}
    weights_only: list[str] = []
    wider = True
    for product, kernels in told.items():
        layer = _not_as_asked(product, kernels)
        if layer is None:
            continue
        if product.quantised and product.operands in weight_types(layer):
            weights_only.append(product.node)
        else:
            types = operand_types(layer) | weight_types(layer)
            wider = wider and _is_wider(types, product.operands)
            wrong[product.node] = f"{product.node} ({product.operands}) in {'/'.join(sorted(types))}"
    quantised = sum(product.quantised for product in told) - len(weights_only)
    if wrong and wider and any(p.operands == _SHORT[precision] and p.node not in wrong for p in told):
        types_finding = _fell_back(precision, len(products), list(wrong.values()), allowed)
    else:
        types_finding = _product_types(len(products), len(told), list(wrong.values()), quantised)
    return [
        types_finding,
        *_unseen([product.node for product in products if product not in told]),
        *_weights_only(weights_only),
        *_epilogues(products, found, layers),
        *_tf32(precision, layers),
        *_tf32_of_frames([product for product in products if is_of_frame(product.node)], found),
    ]


def _not_as_asked(product: Product, kernels: Sequence[EngineLayer]) -> EngineLayer | None:
    """A layer that computes a product in another type; None where one as asked does, in every optimisation profile."""
    by_part: dict[str, list[EngineLayer]] = {}
    for layer in kernels:
        by_part.setdefault(part_of(layer), []).append(layer)
    for part in by_part.values():
        if not any(_as_asked(product, layer) for layer in part):
            return part[0]
    return None


def _as_asked(product: Product, layer: EngineLayer) -> bool:
    operands, weights = operand_types(layer), weight_types(layer)
    held = product.weights is None or not weights or product.weights in weights
    return held and (not operands or product.operands in operands)


def _is_wider(types: Collection[str], asked: str) -> bool:
    """Whether a layer computes in a type of more bits than was asked, and in none of fewer."""
    widths, least = [_WIDTH[dtype] for dtype in types if dtype in _WIDTH], _WIDTH.get(asked, 0)
    return bool(widths) and min(widths) >= least and max(widths) > least


def _fell_back(precision: Precision, count: int, wrong: Sequence[str], allowed: bool) -> Finding:
    """Of products that a builder found no kernel for, and computes in a wider type."""
    message = f"{len(wrong)} of {count} products do not compute in the type that the graph gives them"
    if allowed:
        message += f", but in a wider one, which --allow {FALLBACK} takes in: {', '.join(wrong)}"
        return Finding("product types", "note", message, "measure it against the wider precision on the device")
    other = Precision.FP16 if precision.quantised else Precision.FP32
    return Finding(
        "product types",
        "bad",
        f"{message}: {_some(wrong)}",
        f"take the engine as it is with --allow {FALLBACK}, or build with --precision {other.value}",
    )


def _product_types(count: int, told: int, wrong: Sequence[str], quantised: int) -> Finding:
    if not wrong:
        message = f"{told} of {count} products compute in the type that the graph gives them"
        eight = f", {quantised} of them with activations and weights in 8 bits" if quantised else ""
        return Finding("product types", "good", message + eight)
    return Finding(
        "product types",
        "bad",
        f"{len(wrong)} of {count} products do not compute in the type that the graph gives them: {_some(wrong)}",
        REPORT_IT,
    )


def _unseen(nodes: Sequence[str]) -> list[Finding]:
    if not nodes:
        return []
    message = f"the engine does not tell in which type {len(nodes)} products compute: {_some(nodes)}"
    return [Finding("products not told", "note", message)]


def _weights_only(nodes: Sequence[str]) -> list[Finding]:
    if not nodes:
        return []
    message = f"{len(nodes)} products hold 8-bit weights but multiply in a wider type: {_some(nodes)}"
    return [Finding("weights alone in 8 bits", "note", message, "expect fp16's speed and the size of 8 bits")]


def _epilogues(
    products: Sequence[Product], found: dict[Product, tuple[EngineLayer, ...]], layers: Sequence[EngineLayer]
) -> list[Finding]:
    """8-bit products whose scale or bias another layer applies, so that their results go through memory once more."""
    quantised = [product for product in products if product.quantised and found[product]]
    apart = [p for p in quantised if any(not multiplies(layer) for layer in layers_of(p.node, layers))]
    if not apart:
        return []
    message = (
        f"{len(apart)} of {len(quantised)} 8-bit products leave scale, bias or activation to a layer of its own, so "
        "that each result is written and read once more"
    )
    return [Finding("8-bit results", "note", message, "measure it against fp16 on the device before choosing it")]


def _tf32(precision: Precision, layers: Sequence[EngineLayer]) -> list[Finding]:
    count = sum(map(uses_tf32, layers))
    if precision is not Precision.FP32 or not count:
        return []
    message = f"{count} layers use TF32 kernels, which round float32 operands to 10 bits of mantissa"
    return [Finding("TF32", "note", message, "verify the engine: clipdeploy verify BUNDLE --backend tensorrt")]


def _tf32_of_frames(front: Sequence[Product], found: dict[Product, tuple[EngineLayer, ...]]) -> list[Finding]:
    """Products of the frame graph whose kernels round more than the 8 bits of a pixel bear."""
    wrong = [product.node for product in front if any(map(uses_tf32, found[product]))]
    if not wrong:
        return []
    message = f"{len(wrong)} products of the frame graph use TF32 kernels, whose 10 bits of mantissa change pixels"
    return [Finding("TF32 of frames", "bad", f"{message}: {_some(wrong)}", REPORT_IT)]


def _by_census(precision: Precision, products: Sequence[Product], layers: Sequence[EngineLayer]) -> Finding:
    """What can be said of an engine that does not tell the type of a single product of the graph."""
    opaque = any(map(is_opaque, layers))
    named = any(layer.nodes for layer in layers)
    if named and not opaque and not any(layers_of(product.node, layers) for product in products):
        message = f"no layer of the engine names any of the {len(products)} products: it was built from another graph"
        return Finding("product types", "bad", message, "build the engine again")
    types = Counter(dtype for layer in layers if multiplies(layer) for dtype in operand_types(layer))
    seen = ", ".join(f"{count} in {dtype}" for dtype, count in types.most_common())
    if types and not opaque and not types[_SHORT[precision]]:
        message = f"no layer computes products in {_SHORT[precision]}: {seen}"
        return Finding("product types", "bad", message, REPORT_IT)
    message = "the engine does not tell in which type each product computes" + (f"; its layers: {seen}" if seen else "")
    return Finding("product types", "note", message, "build it with --detailed, or compare its answers")


def _float_between(model: ir.Model, precision: Precision, layers: Sequence[EngineLayer]) -> list[Finding]:
    """Results handed on in Float though the graph types all that makes them narrower.

    LayerNormalization computes its statistics in float32 by definition, and where the graph casts, Float is right.
    """
    if precision is Precision.FP32:
        return []
    types = infer_types(model)
    made = {
        node_name(node): "Float" if node.op_type == "LayerNormalization" else short_name(types.get(node.outputs[0]))
        for node in model.graph
    }
    apart = [
        layer.name
        for layer in layers
        if layer.nodes
        and any(tensor.dtype == "Float" for tensor in layer.outputs)
        and not any(made.get(node, "Float") == "Float" for node in layer.nodes)
    ]
    if not apart:
        return []
    message = f"{len(apart)} layers hand on Float where the graph is typed narrower: {_some(apart)}"
    return [Finding("Float between layers", "note", message, "it costs memory traffic, not accuracy")]


def _attention(report: LayerReport) -> list[Finding]:
    blocks, fused = report.attention_blocks, report.attention_fused
    if not blocks:
        return []
    if fused is None:
        return [Finding("attention", "note", f"the engine does not tell how it computes the {blocks} attention blocks")]
    message = f"{fused} of {blocks} attention blocks are one layer"
    if fused == blocks:
        return [Finding("attention", "good", message)]
    return [Finding("attention", "note", f"{message}; the others write their scores to memory", "try --precision fp16")]


def _some(names: Sequence[str]) -> str:
    unique = list(dict.fromkeys(names))
    more = len(unique) - _SHOWN
    return ", ".join(unique[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
