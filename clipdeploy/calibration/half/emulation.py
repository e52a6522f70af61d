"""Half precision spelled out in float32, to measure it where it is not computed.

ONNX Runtime on the CPU has no kernels for BF16, and runs FP16 graphs in float32 from end to end, without the rounding
and the overflow that a GPU has. Here every half tensor becomes a float32 one, rounded by a pair of Casts:

    half graph      x -> Mul -> y                                    all FP16
    emulated        x -> Mul -> Cast(FP16) -> Cast(FLOAT) -> y       computed in float32, y as FP16 has it

This is what an engine gives that adds up products in float32. It is for measuring accuracy; never deploy it.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from clipdeploy.calibration.half.bounds import LAYOUT
from clipdeploy.calibration.half.rewrite import as_type
from clipdeploy.graphs.files import load_graph, save_graph

_HALVES = frozenset((ir.DataType.FLOAT16, ir.DataType.BFLOAT16))
_LEAVES_ROUNDED = LAYOUT | {"Concat", "MaxPool", "Relu", "Where"}
"""Give what they are given, which is rounded already."""


def emulated(source: Path, target: Path) -> int:
    """Write the float32 twin of a half graph; returns the number of tensors that it rounds.

    Args:
        source: a graph with FP16 or BF16 tensors inside; its inputs and outputs are of other types.
        target: another file.
    """
    model = load_graph(source)
    graph = model.graph
    for value in graph.initializers.values():
        if value.dtype in _HALVES:
            value.const_value = as_type(value.const_value, ir.DataType.FLOAT, str(value.name))
            value.dtype = ir.DataType.FLOAT
    rounded = 0
    for node in list(graph):
        for value in node.outputs:
            if value.dtype in _HALVES:
                rounded += _spell_out(graph, node, value)
    save_graph(model, target)
    return rounded


def _spell_out(graph: ir.Graph, node: ir.Node, value: ir.Value) -> bool:
    """Turn one half tensor into a float32 one; whether it had to be rounded."""
    half, value.dtype = value.dtype, ir.DataType.FLOAT
    if node.op_type == "Cast":
        node.attributes["to"] = ir.AttrInt64("to", int(ir.DataType.FLOAT))
    if node.op_type in _LEAVES_ROUNDED:
        return False
    narrow = ir.node("Cast", [value], attributes={"to": half}, name=f"round_{value.name}")
    wide = ir.node("Cast", narrow.outputs, attributes={"to": ir.DataType.FLOAT}, name=f"widen_{value.name}")
    for cast, dtype in ((narrow, half), (wide, ir.DataType.FLOAT)):
        cast.outputs[0].shape, cast.outputs[0].dtype = value.shape, dtype
    narrow.outputs[0].name, wide.outputs[0].name = f"{value.name}_rounded", f"{value.name}_widened"
    for use in [use for use in value.uses() if use.node is not narrow]:
        use.node.replace_input_with(use.idx, wide.outputs[0])
    graph.insert_after(node, [narrow, wide])
    return True
