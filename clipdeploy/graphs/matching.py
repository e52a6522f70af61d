"""What rewrites of a graph ask of it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def single_user(node: ir.Node | None) -> ir.Node | None:
    """The one node that uses the first output of `node`; None where there are more, or where it leaves the graph."""
    if node is None:
        return None
    value = node.outputs[0]
    users = value.consumers()
    return users[0] if len(users) == 1 and not value.is_graph_output() else None


def other_input(node: ir.Node, value: ir.Value) -> ir.Value | None:
    """The input of a two-sided node that is not `value`."""
    a, b = node.inputs
    return b if a is value else a


def constant_array(value: ir.Value | None) -> np.ndarray | None:
    """The value of a constant; None for everything that is computed."""
    if value is None:
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def scalar(value: ir.Value | None) -> float | None:
    """The value of a constant that holds one number."""
    array = constant_array(value)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def new_constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """A stored constant of the graph, under a name that is still free."""
    while name in graph.initializers:
        name += "_"
    value = ir.val(name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value


def replace_constant(graph: ir.Graph, value: ir.Value, array: np.ndarray) -> None:
    """Give a stored constant another value of the same shape and type."""
    old = value.const_value
    if old is None or value.name not in graph.initializers:
        raise ValueError(f"{value.name!r} is no stored constant")
    value.const_value = ir.tensor(
        array.astype(old.numpy().dtype, copy=False).reshape(old.shape.numpy()), name=value.name
    )
