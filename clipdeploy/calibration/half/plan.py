"""Which nodes compute in half, so that types change as rarely as possible."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir

from clipdeploy.calibration.half.ports import Ports, is_constant, is_float32

_WORTH_A_CAST = frozenset(("Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"))
"""These are why one wants half; they never stay float32 to save a Cast."""

_TABLE_NUMBERS = 4096
"""Nor does what reads a stored tensor of this size, such as the embeddings of words: it fills the file."""

ALONE = "its neighbours are float32"


class Plan:
    """The type of every node: half, or float32 with a reason.

    Args:
        graph: all of whose nodes are half to begin with, but those in `forced`.
        ports: what of each node can be half.
        forced: nodes that must stay float32, and why.
    """

    def __init__(self, graph: ir.Graph, ports: Mapping[ir.Node, Ports], forced: Mapping[ir.Node, str]) -> None:
        self._ports = ports
        self._nodes = list(graph)
        self._outputs = set(graph.outputs)
        self.kept = dict(forced)
        self.half = {node for node in self._nodes if ports[node] and node not in forced}

    def gives_half(self, value: ir.Value) -> bool:
        """Whether a computed tensor comes out as half."""
        node = value.producer()
        return node is not None and node in self.half and value.index() in self._ports[node].outputs

    def takes_half(self, node: ir.Node, index: int) -> bool:
        """Whether a node wants an input as half."""
        return node in self.half and index in self._ports[node].inputs

    def casts(self, value: ir.Value) -> int:
        """How many Casts a tensor needs: one for the other type, if anyone wants it."""
        if is_constant(value):
            return 0
        wanted = {self.takes_half(use.node, use.idx) for use in value.uses()}
        if value in self._outputs:
            wanted.add(False)
        return len(wanted - {self.gives_half(value)})

    def settle(self) -> None:
        """Leave in float32 what only adds Casts: first whole regions between the products, then single nodes."""
        for region in self._regions():
            self._leave(region)
        while sum(self._leave({node}) for node in self._nodes if self._may_leave(node)):
            pass

    def _may_leave(self, node: ir.Node) -> bool:
        if node not in self.half or node.op_type in _WORTH_A_CAST:
            return False
        return not any(is_float32(v) and is_constant(v) and v.const_value.size >= _TABLE_NUMBERS for v in node.inputs)

    def _leave(self, region: set[ir.Node]) -> bool:
        """Type a region float32 if that saves Casts; whether it did."""
        touched = {v for node in region for v in _tensors(node)}
        before = sum(map(self.casts, touched))
        self.half -= region
        if sum(map(self.casts, touched)) < before:
            self.kept |= dict.fromkeys(region, ALONE)
            return True
        self.half |= region
        return False

    def _regions(self) -> Iterable[set[ir.Node]]:
        """Half nodes that may leave, grouped by the tensors that join them."""
        left = {node for node in self._nodes if self._may_leave(node)}
        while left:
            region, edge = set(), [left.pop()]
            while edge:
                node = edge.pop()
                region.add(node)
                joined = {n for v in _tensors(node) for n in (v.producer(), *v.consumers()) if n in left}
                left -= joined
                edge += joined
            yield region


def _tensors(node: ir.Node) -> list[ir.Value]:
    """The computed float32 tensors at a node."""
    return [v for v in (*node.inputs, *node.outputs) if v is not None and is_float32(v) and not is_constant(v)]
