"""What a target accepts of a graph: its opset, its operators, its types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx_ir as ir

from clipdeploy.engine.targets import operators
from clipdeploy.engine.targets.hardware import precision_finding
from clipdeploy.engine.targets.patterns import is_op
from clipdeploy.engine.targets.rewrites import LOWERINGS
from clipdeploy.engine.targets.target import EngineTarget
from clipdeploy.findings import Finding
from clipdeploy.graphs.matching import constant_array
from clipdeploy.spec import Precision

_LIST = "https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md"
_QUANTISERS = ("QuantizeLinear", "DequantizeLinear")
_FLOAT8 = (ir.DataType.FLOAT8E4M3FN,)
_NO_FLOAT8 = (ir.DataType.FLOAT8E5M2, ir.DataType.FLOAT8E4M3FNUZ, ir.DataType.FLOAT8E5M2FNUZ)
_AXES_FROM_INPUT = ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")


def missing_operators(model: ir.Model, target: EngineTarget) -> dict[str, int]:
    """Operators of the graph that the target's parser does not take -> how often; other domains as `domain::Name`."""
    count = Counter(f"{node.domain}::{node.op_type}" if _foreign(node) else node.op_type for node in _nodes(model))
    own = {(function.domain, function.name) for function in model.functions.values()}
    return {
        name: times
        for name, times in count.items()
        if (tuple(name.split("::")) not in own if "::" in name else not operators.takes(target, name)[0])
    }


def accepts(model: ir.Model, target: EngineTarget, precision: Precision) -> tuple[Finding, ...]:
    """What the target takes of a graph, and why not of the rest.

    Args:
        model: shapes and types inferred; rewritten to what the target takes, where it can be.
        target: what the engine is for.
        precision: what the bundle calls the graph.
    """
    findings = [_opset(model, target), _operators(model, target), *_limits(model), _types(model)]
    findings += [precision_finding(target, each) for each in _precisions(model, precision)]
    return tuple(findings)


def _opset(model: ir.Model, target: EngineTarget) -> Finding:
    """The graph's opset beside what is documented; a parser reads operator by operator and compares no opset."""
    opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))
    highest, source = operators.documented_opset(target)
    if opset < 9:
        return Finding("opset", "bad", f"opset {opset}; parsers read 9 and later ({source})", "export with --opset 19")
    half_scales = any(
        is_op(node, *_QUANTISERS) and _dtype(node.inputs[1]) == ir.DataType.FLOAT16 for node in _nodes(model)
    )
    if half_scales and opset < 19:
        return Finding(
            "opset",
            "bad",
            f"opset {opset} with FP16 scales of Q/DQ, which ONNX has from 19 on",
            "export with --opset 19",
        )
    if opset > highest:
        return Finding(
            "opset",
            "note",
            f"opset {opset}; documented up to {highest} for this parser ({source}). It reads operator by operator and "
            f"refuses no opset ({operators.PARSER})",
            "where parsing fails, take fp32, fp16 or int8 of an export with --opset 19",
        )
    return Finding("opset", "good", f"opset {opset}; documented up to {highest}")


def _operators(model: ir.Model, target: EngineTarget) -> Finding:
    missing = missing_operators(model, target)
    if not missing:
        kinds = len({node.op_type for node in _nodes(model)})
        return Finding("operators", "good", f"all {kinds} are in the parser's list")
    told, ways = [], []
    for name, times in sorted(missing.items()):
        since = None if "::" in name else operators.since(name)
        named = next(
            (node.name for node in _nodes(model) if node.op_type == name.rpartition("::")[2] and node.name), None
        )
        at = f", at {named!r}" if named else ""
        told.append(f"{name} ({times}x{at}" + (f", from TensorRT {since} on)" if since else ")"))
        if name.startswith("com.microsoft"):
            ways.append(
                "com.microsoft is ONNX Runtime's own: take the graph before its optimiser, or --target tensorrt"
            )
        elif name in LOWERINGS:
            ways.append(f"{name} is written out where it is plain; this one is not")
        elif since:
            ways.append(f"install TensorRT {since}")
        else:
            ways.append(f"export the model without {name}")
    return Finding(
        "operators", "bad", f"the parser does not take {', '.join(told)} ({_LIST})", "; ".join(dict.fromkeys(ways))
    )


def _limits(model: ir.Model) -> Iterator[Finding]:
    """What the list of operators restricts, of what a CLIP may have."""
    for node in _nodes(model):
        told = _limit(node)
        if told:
            yield Finding("operators", "bad", f"{node.op_type} {node.name!r}: {told[0]} ({_LIST})", told[1])


def _limit(node: ir.Node) -> tuple[str, str] | None:
    if is_op(node, *_QUANTISERS):
        zero = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
        for value in (*node.inputs, *node.outputs):
            if _dtype(value) == ir.DataType.UINT8:
                return "8 bits without a sign", "quantize again with --target tensorrt"
        if zero is not None and zero.astype("float32").any():
            return "its zero point is not 0", "quantize again with --target tensorrt"
    if is_op(node, "LayerNormalization") and any(output.uses() for output in node.outputs[1:]):
        return "only the first of its outputs is there", "compute mean and deviation apart"
    if is_op(node, "ScatterND") and node.attributes.get_string("reduction", "none") != "none":
        return "only without a reduction", "export the model without it"
    if is_op(node, "Resize") and node.attributes.get_int("antialias", 0):
        return "no antialiasing", "resize before the graph"
    axes = node.inputs[1] if is_op(node, *_AXES_FROM_INPUT) and len(node.inputs) > 1 else None
    if axes is not None and constant_array(axes) is None:
        return "its axes must be constant", "simplify the graph: clipdeploy export without --no-simplify"
    return None


def _types(model: ir.Model) -> Finding:
    """Types that no TensorRT has."""
    seen = {value.dtype for node in _nodes(model) for value in (*node.inputs, *node.outputs) if value is not None}
    other = sorted(each.name for each in (*_NO_FLOAT8, ir.DataType.STRING, ir.DataType.COMPLEX64) if each in seen)
    if other:
        return Finding(
            "types", "bad", f"{', '.join(other)}: FP8 is E4M3 in TensorRT ({_LIST})", "quantize with --precision fp8"
        )
    inputs = ", ".join(
        f"{each.name} {each.dtype.name.lower()}" for each in model.graph.inputs if each.dtype is not None
    )
    if ir.DataType.DOUBLE in seen:
        return Finding("types", "note", f"{inputs}; double is computed as float32 ({_LIST})")
    return Finding("types", "good", inputs)


def _precisions(model: ir.Model, named: Precision) -> tuple[Precision, ...]:
    """What the graph is called, and what is in it besides."""
    seen = {_dtype(value) for node in _nodes(model) for value in (*node.inputs, *node.outputs)}
    found = {named}
    found |= {Precision.BF16} if ir.DataType.BFLOAT16 in seen else set()
    found |= {Precision.FP8} if seen & set(_FLOAT8) else set()
    found |= {Precision.INT8} if ir.DataType.INT8 in seen else set()
    return tuple(each for each in Precision if each in found)


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    return (node for node in model.graph.all_nodes())


def _foreign(node: ir.Node) -> bool:
    return node.domain not in ("", "ai.onnx")


def _dtype(value: ir.Value | None) -> ir.DataType | None:
    if value is None:
        return None
    return value.dtype or (value.const_value.dtype if value.const_value is not None else None)
