"""Cut a tensor into equal parts with one node (what `unbind` of a fused QKV leaves, in networks traced as they are).

before  x -> Slice(0:1), x -> Slice(1:2), x -> Slice(2:3)    along one axis, nothing left out
after   x -> Split(3)
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from clipdeploy.graphs.matching import constant_array, new_constant


def slices_to_split(model: ir.Model) -> int:
    """Merge every such group of slices; returns their number."""
    values = [v for node in model.graph for v in node.outputs] + list(model.graph.inputs)
    return sum(_merge(model.graph, value) for value in values)


def _merge(graph: ir.Graph, value: ir.Value) -> bool:
    slices = [node for node in value.consumers() if node.op_type == "Slice" and node.inputs[0] is value]
    ranges = [_range(node) for node in slices]
    if len(slices) < 2 or any(r is None for r in ranges) or value.shape is None:
        return False
    axes = {r[0] for r in ranges if r is not None}
    axis = axes.pop()
    size = value.shape[axis]
    if axes or not isinstance(size, int):
        return False
    ordered = sorted(
        ((r[1], min(r[2], size), node) for r, node in zip(ranges, slices, strict=True) if r), key=lambda c: c[0]
    )
    starts, ends = [c[0] for c in ordered], [c[1] for c in ordered]
    if starts[0] != 0 or ends[-1] != size or starts[1:] != ends[:-1]:
        return False
    sizes = new_constant(graph, f"{value.name}_sizes", np.array([e - s for s, e, _ in ordered], dtype=np.int64))
    split = ir.node("Split", [value, sizes], attributes={"axis": axis}, num_outputs=len(ordered))
    first = min(slices, key=list(graph).index)
    graph.insert_before(first, split)
    for part, (_, _, node) in zip(split.outputs, ordered, strict=True):
        old = node.outputs[0]
        part.name, part.shape, part.type = old.name, old.shape, old.type
        old.replace_all_uses_with(part, replace_graph_outputs=True)
        graph.remove(node, safe=True)
    return True


def _range(node: ir.Node) -> tuple[int, int, int] | None:
    """Axis, start and end of a Slice along one axis in steps of one, none of them negative; else None."""
    arrays = [constant_array(v) for v in node.inputs[1:]]
    if len(arrays) < 3 or any(a is None or a.size != 1 for a in arrays):
        return None
    start, end, axis, *step = (int(a.reshape(-1)[0]) for a in arrays if a is not None)
    return (axis, start, end) if min(start, end, axis) >= 0 and step in ([], [1]) else None
