"""8-bit inputs made floats at once, as TensorRT asks.

A frame graph cuts and turns its frames while they are 8 bits, and makes floats of the little that is left, which is
quicker on processors. TensorRT takes 8-bit inputs too, but can do nothing with them except make floats of them:
https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/infer/FoundationalTypes/DataType.html
"""

from __future__ import annotations

import onnx_ir as ir

_MOVES = {
    *("Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose"),
    "Unsqueeze",
}
"""Operators that put values in other places and change none."""


def floats_first(model: ir.Model) -> int:
    """Convert 8-bit inputs to float32 in front of what moves them, not behind, in place; every number stays.

    Returns:
        how many inputs it was done for; one that something else than a move computes with is left alone.
    """
    return sum(_convert(model.graph, value) for value in model.graph.inputs if value.dtype == ir.DataType.UINT8)


def _convert(graph: ir.Graph, source: ir.Value) -> bool:
    moved, casts, todo = [source], list[ir.Node](), [source]
    while todo:
        for node in todo.pop().consumers():
            if node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT:
                casts.append(node)
            elif node.op_type in _MOVES and not any(value.is_graph_output() for value in node.outputs):
                todo += [value for value in node.outputs if value not in moved]
                moved += todo
            else:
                return False
    if all(node.inputs[0] is source for node in casts) and len(moved) == 1:
        return False
    uses = list(source.uses())
    cast = ir.node("Cast", [source], {"to": int(ir.DataType.FLOAT)}, num_outputs=1, name=f"{source.name}_as_float")
    floats = cast.outputs[0]
    floats.name, floats.dtype, floats.shape = f"{source.name}_as_float", ir.DataType.FLOAT, source.shape
    for node, index in uses:
        node.replace_input_with(index, floats)
    graph.insert_before(graph[0], cast)
    for value in moved[1:]:
        value.dtype = ir.DataType.FLOAT
    for node in dict.fromkeys(casts):
        name, given = node.outputs[0].name, node.inputs[0]
        node.outputs[0].replace_all_uses_with(given, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        if node.outputs[0].is_graph_output() and given is not None:
            given.name = name
    return True
