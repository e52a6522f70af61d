"""How rewrites put nodes in place of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from clipdeploy.graphs.matching import new_constant


class Chain:
    """Nodes that take the place of one, put in front of it one after the other."""

    def __init__(self, model: ir.Model, node: ir.Node) -> None:
        self.graph, self.node = model.graph, node
        self.stem = node.name or node.outputs[0].name or node.op_type.lower()
        self._count = 0

    def add(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """Put an operator there; its output."""
        self._count += 1
        name = f"{self.stem}_{op_type.lower()}_{self._count}"
        node = ir.node(op_type, list(inputs), attributes, num_outputs=1, name=name)
        node.outputs[0].name = name
        self.graph.insert_before(self.node, node)
        return node.outputs[0]

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """The value in this type."""
        if value.dtype == dtype:
            return value
        cast = self.add("Cast", value, to=int(dtype))
        cast.dtype, cast.shape = dtype, value.shape
        return cast

    def number(self, number: float, dtype: ir.DataType) -> ir.Value:
        """A constant number."""
        return self.constant("number", np.array(number, dtype=np.float32), dtype)

    def sizes(self, *sizes: int) -> ir.Value:
        """Constant sizes or axes."""
        return self.constant("sizes", np.array(sizes, dtype=np.int64), ir.DataType.INT64)

    def constant(self, name: str, array: np.ndarray, dtype: ir.DataType) -> ir.Value:
        """A constant of this type."""
        self._count += 1
        return new_constant(self.graph, f"{self.stem}_{name}_{self._count}", array.astype(dtype.numpy()))

    def finish(self, value: ir.Value) -> None:
        """Let this value stand for the node's first output, and take the node away."""
        old = self.node.outputs[0]
        name = old.name
        old.replace_all_uses_with(value, replace_graph_outputs=True)
        value.shape, value.dtype = old.shape, old.dtype
        self.graph.remove(self.node, safe=True)
        value.name = name


def swapped(rank: int) -> Sequence[int]:
    """The permutation that swaps the last two axes."""
    return [*range(rank - 2), rank - 1, rank - 2]
