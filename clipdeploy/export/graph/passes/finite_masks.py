"""Make masks of attention finite (Hugging Face text encoders fill theirs with the lowest float32, which float16 lacks).

    before  Where(visible, 0, -3.4e38) -> ... -> Add to the scores -> Softmax
    after   Where(visible, 0, -1e4)    -> ... -> Add to the scores -> Softmax

Hidden places still get a weight of exactly zero. Only constants whose every use ends in a Softmax are changed.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from clipdeploy.export.towers.attention import MASK_FLOOR
from clipdeploy.graphs.matching import constant_array, replace_constant

_CARRIES_A_MASK = frozenset(
    ("Add", "Where", "Expand", "Unsqueeze", "Squeeze", "Reshape", "Slice", "Concat", "Transpose")
)
_LOWEST_FLOAT16 = -65504.0


def finite_masks(model: ir.Model) -> int:
    """Raise the floor of every such constant; returns their number."""
    return sum(_raise_floor(model.graph, value) for value in list(model.graph.initializers.values()))


def _raise_floor(graph: ir.Graph, value: ir.Value) -> bool:
    if value.dtype != ir.DataType.FLOAT or not value.uses():
        return False
    if any(user.op_type not in ("Where", "Add") for user in value.consumers()):
        return False
    array = constant_array(value)
    if array is None or array.size == 0 or not array.min() < _LOWEST_FLOAT16 or not _masks(value, depth=12):
        return False
    replace_constant(graph, value, np.maximum(array, np.float32(MASK_FLOOR)))
    return True


def _masks(value: ir.Value, depth: int) -> bool:
    """Whether all that a value flows into, unscaled, is the input of a Softmax."""
    users = value.consumers()
    if not users or depth == 0 or value.is_graph_output():
        return False
    return all(
        user.op_type == "Softmax" or (user.op_type in _CARRIES_A_MASK and _masks(user.outputs[0], depth - 1))
        for user in users
    )
