"""What can be seen of a graph without running it."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from clipdeploy.findings import Finding
from clipdeploy.importing.graphs import fused, import_onnx, nodes, opset, weights
from clipdeploy.spec import Precision, TextPooling

NORM_OPSET = 17
"""The opset that brought LayerNormalization."""

_INT8 = {
    "MatMulInteger",
    "ConvInteger",
    "QLinearMatMul",
    "QLinearConv",
    "QuantizeLinear",
    "DynamicQuantizeLinear",
    "DynamicQuantizeMatMul",
    "MatMulIntegerToFloat",
}
_PACKED = {"DequantizeLinear", "MatMulNBits", "MatMulBnb4", "GatherBlockQuantized"}
_PRODUCTS = {"MatMul", "Gemm", "Conv", "Attention"}
_QUICK = 1.702
"""The factor in x * sigmoid(1.702 x), OpenAI's approximation of GELU."""
_PASSING = {"Cast", "Identity", "Unsqueeze", "Squeeze", "Reshape"}


def precision(model: Any) -> Precision:
    """The number format that most products of a graph compute in."""
    kinds = {node.op_type for node in nodes(model.graph)}
    if kinds & _INT8:
        return Precision.INT8
    onnx = import_onnx()
    half = onnx.TensorProto.FLOAT16
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    inferred = onnx.shape_inference.infer_shapes(skeleton(model))
    for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
        types.setdefault(value.name, value.type.tensor_type.elem_type)
    found = [types.get(n.output[0]) or types.get(n.input[0]) for n in model.graph.node if n.op_type in _PRODUCTS]
    return Precision.FP16 if found and sum(t == half for t in found) * 2 > len(found) else Precision.FP32


def look(model: Any, label: str, *, activation: str | None) -> list[Finding]:
    """Opset, operators, quantisation and activation of one graph.

    Args:
        label: the tower, for messages.
        activation: what the configuration says the MLPs use, None where it says nothing.
    """
    found = [_opset(model, label)]
    own = fused(model)
    if own:
        listed = ", ".join(f"{count} {name}" for name, count in sorted(own.items()))
        message = f"{label}: operators that only ONNX Runtime has: {listed}; TensorRT and others refuse them"
        found.append(Finding("operators", "note", message, "export without ONNX Runtime's fusions for other engines"))
    kinds = Counter(node.op_type for node in nodes(model.graph))
    packed = {name: kinds[name] for name in sorted(_INT8 | _PACKED) if kinds[name]}
    if packed:
        listed = ", ".join(f"{count} {name}" for name, count in packed.items())
        message = f"{label}: quantised by its maker ({listed}); its answers are not the checkpoint's"
        found.append(Finding("quantised", "note", message, "import the fp32 graphs and let clipdeploy quantise them"))
    mine = activation_of(model)
    if activation is not None and mine is not None and mine not in activation.split("+"):
        message = f"{label}: the graph computes {mine}, the configuration says {activation}"
        found.append(Finding("activation", "bad", message, "export the checkpoint again with the right activation"))
    return found


def activation_of(model: Any) -> str | None:
    """The MLPs' activation by the operators that make it, None where none is known."""
    kinds = {node.op_type for node in nodes(model.graph)}
    if kinds & {"QuickGelu"} or ("Sigmoid" in kinds and _has_scalar(model, _QUICK)):
        return "quick_gelu"
    tanh = any(a.name == "approximate" and a.s == b"tanh" for n in nodes(model.graph) for a in n.attribute)
    if "FastGelu" in kinds or tanh or ("Tanh" in kinds and _has_scalar(model, 0.044715)):
        return "gelu_tanh"
    return "gelu" if kinds & {"Erf", "Gelu", "BiasGelu"} else None


def pooling_of(model: Any, ids: str) -> TextPooling | None:
    """Which position a text graph reads, by its ArgMax over the ids; None where it has none."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type != "ArgMax":
            continue
        name, compared = node.input[0], False
        while name in made_by and made_by[name].op_type in (*_PASSING, "Equal", "Where"):
            compared |= made_by[name].op_type == "Equal"
            name = next((n for n in made_by[name].input if n == ids or n in made_by), "")
        if name == ids:
            return "eot_first" if compared else "eot_argmax"
    return None


def normalises(model: Any, pixels: str) -> bool:
    """Whether the first thing done to the picture input is arithmetic with one number a channel: a mean or std."""
    sizes = {t.name: math.prod(t.dims) for t in model.graph.initializer}
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                sizes[node.output[0]] = math.prod(attribute.t.dims)
    same = {pixels}
    for node in model.graph.node:
        if not same.intersection(node.input):
            continue
        if node.op_type in ("Sub", "Add", "Div", "Mul") and any(sizes.get(name) == 3 for name in node.input):
            return True
        scalar = node.op_type in ("Div", "Mul", "Sub", "Add") and any(sizes.get(name) == 1 for name in node.input)
        if scalar or node.op_type in ("Cast", "Identity", "Transpose"):
            same.update(node.output)
    return False


def vocabulary(model: Any, ids: str) -> int | None:
    """Rows of the table that the ids look up, None where no such lookup is found."""
    tables = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    same = {ids}
    for node in model.graph.node:
        if node.op_type in _PASSING and node.input[0] in same:
            same.update(node.output)
        elif node.op_type == "Gather" and node.input[1] in same and len(tables.get(node.input[0], ())) == 2:
            return int(tables[node.input[0]][0])
    return None


def _opset(model: Any, label: str) -> Finding:
    version = opset(model)
    kinds = {node.op_type for node in nodes(model.graph)}
    if version >= NORM_OPSET or "LayerNormalization" in kinds:
        return Finding("opset", "good", f"{label}: opset {version}")
    message = f"{label}: opset {version}, before {NORM_OPSET} brought LayerNormalization: norms in many small nodes, "
    return Finding(
        "opset", "note", message + "which lose accuracy in FP16", f"export again with opset {NORM_OPSET} or later"
    )


def _has_scalar(model: Any, wanted: float) -> bool:
    onnx = import_onnx()
    for tensor in weights(model):
        if len(tensor.dims) <= 1 and (not tensor.dims or tensor.dims[0] == 1):
            value = onnx.numpy_helper.to_array(tensor).reshape(-1)
            if value.dtype.kind == "f" and abs(float(value[0]) - wanted) < 1e-3 * wanted:
                return True
    return False


def skeleton(model: Any) -> Any:
    """The graph without its large weights, whose types and shapes stay as inputs: light enough for inference."""
    onnx = import_onnx()
    light = onnx.ModelProto()
    light.ir_version = model.ir_version
    light.opset_import.extend(model.opset_import)
    light.graph.name = "skeleton"
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > 1024:
            light.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            light.graph.initializer.append(tensor)
    return light
