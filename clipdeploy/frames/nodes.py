"""A graph, written operator by operator."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from clipdeploy.spec import TensorSpec

Value = str
"""The name of something that a node gives or takes."""
_TYPES = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}


class Nodes:
    """Nodes and constants as they come; equal constants are stored once.

    Args:
        prefix: of every name, so that the graph can be joined to another.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix, self._nodes = prefix, list[onnx.NodeProto]()
        self._stored: dict[tuple[str, tuple[int, ...], bytes], onnx.TensorProto] = {}

    def __call__(self, op: str, *inputs: Value | NDArray[Any], **attributes: Any) -> Value:
        """Another node, with one output; arrays become constants."""
        name = f"{self._prefix}{op.lower()}_{len(self._nodes)}"
        taken = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        self._nodes.append(helper.make_node(op, taken, [name], name=f"{self._prefix}node_{name}", **attributes))
        return name

    def integers(self, *values: int) -> NDArray[np.int64]:
        """A constant of shapes, axes and indices."""
        return np.array(values, np.int64)

    def reshape(self, value: Value, *shape: int) -> Value:
        """`value` as (batch, *shape)."""
        return self("Reshape", value, self.integers(0, *shape))

    def transpose(self, value: Value, *axes: int) -> Value:
        """`value` with the axes behind the batch in another order."""
        return self("Transpose", value, perm=[0, *axes])

    def slice(self, value: Value, axis: int, start: int, stop: int, size: int) -> Value:
        """Those from `start` to `stop` of an axis of `size`; all of them need no node."""
        if (start, stop) == (0, size):
            return value
        return self("Slice", value, self.integers(start), self.integers(stop), self.integers(axis))

    def floats(self, value: Value) -> Value:
        """`value` as float32."""
        return self("Cast", value, to=TensorProto.FLOAT)

    def model(self, source: TensorSpec, target: TensorSpec, opset: int, ir_version: int) -> onnx.ModelProto:
        """The whole, whose last node gives `target`."""
        self._nodes[-1].output[0] = target.name
        graph = helper.make_graph(self._nodes, "frames", [_port(source)], [_port(target)], list(self._stored.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
        model.producer_name = "clipdeploy"
        onnx.checker.check_model(model, full_check=True)
        return model

    def _constant(self, array: NDArray[Any]) -> Value:
        array = np.ascontiguousarray(array)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._stored:
            name = f"{self._prefix}constant_{len(self._stored)}"
            self._stored[key] = numpy_helper.from_array(array.reshape(key[1]), name)
        return str(self._stored[key].name)


def _port(tensor: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, _TYPES[tensor.dtype], tensor.shape)
