"""Operator sets: which are offered, and how a graph gets to one below what the tracer speaks."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from clipdeploy.errors import ExportError

MIN_OPSET, MAX_OPSET = 17, 23
"""17 brought LayerNormalization; above 23 engines of today lag."""

DEFAULT_OPSET = 19
"""The highest that TensorRT 10.3, which JetPack 6 ships, and the quantisers of today all read."""

MIN_TRACED_OPSET = 18
"""The lowest that torch's dynamo exporter writes by itself."""


def check_opset(opset: int) -> None:
    """Raise ExportError for an opset that is not offered."""
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise ExportError(
            f"opset {opset} is not supported; expected {MIN_OPSET} to {MAX_OPSET}",
            fix=f"use --opset {DEFAULT_OPSET}",
        )


def lower_opset(model: ir.Model, opset: int) -> None:
    """Say the same in a lower opset, in place; a graph at or below it stays as it is.

    An operator that has one and the same definition in both is left alone. Of those that changed between 17 and 18,
    the reductions got their axes as an input, and Split and Pad what `_LOWER` undoes.

    Raises:
        ExportError: an operator has no counterpart there.
    """
    traced = model.opset_imports[""]
    if traced <= opset:
        return
    for node in list(model.graph.all_nodes()):
        if node.domain not in ("", "ai.onnx") or _since(node.op_type, opset) == _since(node.op_type, traced):
            continue
        if node.op_type.startswith("Reduce"):
            _axes_as_attribute(node)
        elif node.op_type == "Split":
            _split_sizes_as_input(node, model.graph)
        elif not (node.op_type == "Pad" and len(node.inputs) <= 3):
            raise ExportError(
                f"operator {node.op_type} of opset {traced} has no counterpart in opset {opset}",
                fix=f"use --opset {traced}",
            )
    model.opset_imports[""] = opset
    RemoveUnusedNodesPass()(model)  # the axes that became attributes
    for node in model.graph.all_nodes():
        node.version = None


def _since(op_type: str, opset: int) -> int:
    """The opset that brought the definition that holds in `opset`; 0 where there is none."""
    try:
        return int(onnx.defs.get_schema(op_type, opset).since_version)
    except onnx.defs.SchemaError:
        return 0


def _axes_as_attribute(node: ir.Node) -> None:
    node.attributes.pop("noop_with_empty_axes", None)
    if len(node.inputs) < 2 or node.inputs[1] is None:
        return
    axes = ir.convenience.get_const_tensor(node.inputs[1])
    if axes is None:
        raise ExportError(f"{node.op_type} {node.name!r} computes its axes, which opset 17 does not allow")
    node.attributes["axes"] = ir.AttrInt64s("axes", [int(a) for a in axes.numpy().reshape(-1)])
    node.resize_inputs(1)


def _split_sizes_as_input(node: ir.Node, graph: ir.Graph) -> None:
    if node.attributes.pop("num_outputs", None) is None or len(node.inputs) > 1:
        return
    axis = node.attributes.get_int("axis", 0)
    sizes = [out.shape[axis] if out.shape is not None else None for out in node.outputs]
    if not all(isinstance(n, int) for n in sizes):
        raise ExportError(f"Split {node.name!r} has unknown sizes {sizes}, which opset 17 must be told")
    name = f"{node.outputs[0].name}_sizes"
    value = ir.val(name, const_value=ir.tensor(np.array(sizes, dtype=np.int64), name=name))
    graph.register_initializer(value)
    node.resize_inputs(2)
    node.replace_input_with(1, value)
