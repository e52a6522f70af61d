"""Graphs that take texts of any length: how long they may be, and the same graph for one length.

Of a text encoder that reads its end token, and whose tokens see none behind them, exporting leaves the length open.
Runtimes then compute as many tokens as the longest text of a batch has. Engines that are built for fixed sizes take the
graph with its length fixed, in which all arithmetic on that length is folded into constants.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import RemoveUnusedNodesPass

from clipdeploy.graphs.matching import constant_array, new_constant
from clipdeploy.spec import LENGTH_AXIS, LONGEST_NOTE


def state_longest(model: ir.Model, length: int) -> None:
    """Note in a graph how long a text may be."""
    model.metadata_props[LONGEST_NOTE] = str(length)


def longest(model: ir.Model) -> int | None:
    """How long a text may be; None for a graph whose length is fixed."""
    stated = model.metadata_props.get(LONGEST_NOTE)
    return int(stated) if stated is not None and _free_axis(model) is not None else None


def fix_length(model: ir.Model) -> bool:
    """Fix the length, in place, at the longest that a text may have; False where it is fixed already."""
    length, found = longest(model), _free_axis(model)
    if length is None or found is None:
        return False
    given, axis = found
    assert given.shape is not None
    given.shape = ir.Shape([length if place == axis else size for place, size in enumerate(given.shape)])
    _fold(model, given, axis, length)
    for node in model.graph:
        for value in node.outputs:
            if value.shape is not None:
                value.shape = _with(value.shape, length)
    RemoveUnusedNodesPass()(model)
    del model.metadata_props[LONGEST_NOTE]
    return True


def _free_axis(model: ir.Model) -> tuple[ir.Value, int] | None:
    """The input whose length is free, and which of its axes that is."""
    for given in model.graph.inputs:
        for axis, size in enumerate(given.shape or ()):
            if isinstance(size, ir.SymbolicDim) and size.value == LENGTH_AXIS:
                return given, axis
    return None


def _fold(model: ir.Model, given: ir.Value, axis: int, length: int) -> None:
    """Make constants of all that is computed from the length and other constants alone."""
    fresh: set[str] = set()
    for node in list(model.graph):
        if node.op_type == "Shape" and node.inputs[0] is given and _span(node) == (axis, axis + 1):
            result = np.array([length], np.int64)
        elif any(value is not None and value.name in fresh for value in node.inputs):
            arrays = [None if value is None else constant_array(value) for value in node.inputs]
            if any(a is None and v is not None for a, v in zip(arrays, node.inputs, strict=True)):
                continue
            result = _computed(model, node, [a for a in arrays if a is not None])
        else:
            continue
        (old,) = node.outputs
        source, table = node.inputs[0], constant_array(node.inputs[0])
        if node.op_type == "Slice" and source is not None and table is not None and table.shape == result.shape:
            value = source  # a table of as many rows, under the name that it has in the bundle's graph
        else:
            name = str(old.name)
            old.name = f"{name}_of_any_length"
            value = new_constant(model.graph, name, result)
            value.shape, value.dtype = ir.Shape(result.shape), ir.DataType.from_numpy(result.dtype)
        fresh.add(str(value.name))
        old.replace_all_uses_with(value)
        model.graph.remove(node, safe=True)


def _span(node: ir.Node) -> tuple[int, int]:
    """The axes whose sizes a Shape gives."""
    given = node.inputs[0]
    rank = len(given.shape) if given is not None and given.shape is not None else 0
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", rank)
    return start % rank if rank else start, min(end if end >= 0 else end + rank, rank)


def _computed(model: ir.Model, node: ir.Node, arrays: list[np.ndarray]) -> np.ndarray:
    """What a node with one output makes of constants."""
    alone = ir.serde.serialize_node(node)
    opset = onnx.helper.make_opsetid("", model.opset_imports[""])
    ends = [onnx.helper.make_empty_tensor_value_info(name) for name in alone.output]
    starts = [onnx.helper.make_empty_tensor_value_info(name) for name in dict.fromkeys(n for n in alone.input if n)]
    graph = onnx.helper.make_graph([alone], "one node", starts, ends)
    named = dict(zip((name for name in alone.input if name), arrays, strict=True))
    (result,) = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=[opset])).run(None, named)
    return np.asarray(result)


def _with(shape: ir.Shape, length: int) -> ir.Shape:
    """A shape in which the length is known; sizes computed from it are left to be inferred anew."""
    return ir.Shape(
        [length if isinstance(size, ir.SymbolicDim) and size.value == LENGTH_AXIS else size for size in shape]
    )
