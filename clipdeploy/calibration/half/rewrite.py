"""Write a plan into a graph: types, Casts, constants."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from clipdeploy.calibration.half.formats import HalfFormat
from clipdeploy.calibration.half.plan import Plan
from clipdeploy.calibration.half.ports import is_float32


def rewrite(model: ir.Model, plan: Plan, fmt: HalfFormat) -> int:
    """Type the graph as planned, in place; returns the number of Casts added.

    Tensors keep their names; the other type of one is named behind it, such as `linear_2_fp16`.
    """
    graph = model.graph
    _type_constants(graph, plan, fmt)
    values = [*graph.inputs, *(v for node in list(graph) for v in node.outputs)]
    casts = [v for v in values if is_float32(v) and plan.casts(v)]
    given = {v: plan.gives_half(v) for v in values}
    wanted = {v: [u for u in v.uses() if plan.takes_half(u.node, u.idx) != given[v]] for v in casts}
    for node in plan.half:
        if node.op_type == "Cast" and any(given[v] for v in node.outputs):
            node.attributes["to"] = ir.AttrInt64("to", int(fmt.dtype))
    for value in values:
        if given[value]:
            value.dtype = fmt.dtype
    for value in casts:
        _cast(graph, value, wanted[value], ir.DataType.FLOAT if given[value] else fmt.dtype, fmt)
    return len(casts)


def _cast(graph: ir.Graph, value: ir.Value, uses: list[ir.Usage], dtype: ir.DataType, fmt: HalfFormat) -> None:
    """One Cast of a tensor for all that want its other type."""
    other = "fp32" if dtype == ir.DataType.FLOAT else fmt.name
    cast = ir.node("Cast", [value], attributes={"to": dtype}, name=f"cast_{value.name}_{other}")
    out = cast.outputs[0]
    out.name, out.shape, out.dtype = f"{value.name}_{other}", value.shape, dtype
    for use in uses:
        use.node.replace_input_with(use.idx, out)
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], cast)
    else:
        graph.insert_after(producer, cast)
    if dtype == ir.DataType.FLOAT and value.is_graph_output():  # it keeps its name and its type
        value.name, out.name = f"{value.name}_{fmt.name}", value.name
        for i, output in enumerate(graph.outputs):
            if output is value:
                graph.outputs[i] = out


def _type_constants(graph: ir.Graph, plan: Plan, fmt: HalfFormat) -> None:
    """Store constants as those want them who use them; twice where both types are wanted."""
    for value in list(graph.initializers.values()):
        uses = [use for use in value.uses() if is_float32(value) and plan.takes_half(use.node, use.idx)]
        if not uses:
            continue
        if len(uses) == len(value.uses()):
            value.const_value = as_type(value.const_value, fmt.dtype, str(value.name))
            value.dtype = fmt.dtype
            continue
        name = f"{value.name}_{fmt.name}"
        twin = ir.val(name, const_value=as_type(value.const_value, fmt.dtype, name))
        graph.register_initializer(twin)
        for use in uses:
            use.node.replace_input_with(use.idx, twin)


def as_type(tensor: ir.TensorProtocol, dtype: ir.DataType, name: str) -> ir.LazyTensor:
    """The same numbers in another type, converted when they are written: never two copies of all weights."""

    def convert() -> ir.TensorProtocol:
        array = np.asarray(tensor.numpy()).astype(dtype.numpy())
        return ir.tensor(array, dtype=dtype, name=name)

    return ir.LazyTensor(convert, dtype=dtype, shape=tensor.shape, name=name)
