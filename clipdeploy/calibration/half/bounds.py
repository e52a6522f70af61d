"""How large the tensors of a graph get: measured, or known from where they come from."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from clipdeploy.calibration.half.ports import is_constant, is_float32
from clipdeploy.errors import CalibrationError

LAYOUT = frozenset(
    (
        "DepthToSpace", "Expand", "Flatten", "Gather", "GatherND", "Identity", "Reshape", "Slice", "SpaceToDepth",
        "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    )
)  # fmt: skip
"""Move numbers, never change them."""

_NEVER_LARGER = LAYOUT | frozenset(
    ("Abs", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "Neg", "ReduceMax", "ReduceMean", "Relu")
)
"""What they give is never larger than the first input."""

_ONE_OF_ITS_INPUTS = frozenset(("Concat", "Max", "Min", "Pad", "Where"))

_AT_MOST_ONE = frozenset(("Cos", "Erf", "HardSigmoid", "Sigmoid", "Sin", "Softmax", "Tanh"))

LARGEST_PIXEL = 4.0
"""Normalised pixels of every family stay below; they are the only float inputs of our graphs."""


class Bounds:
    """Upper bounds of |x| for the float tensors of a graph.

    Args:
        measured: largest absolute value of tensors, by name. Not asked for what follows from others.
    """

    def __init__(self, measured: Mapping[str, float]) -> None:
        self._measured = measured
        self._constants: dict[ir.Value, float] = {}

    def of(self, value: ir.Value) -> float:
        """The bound of one tensor; infinite where the measurement was not finite.

        Raises:
            CalibrationError: it was not measured.
        """
        if is_constant(value):
            if value not in self._constants:
                self._constants[value] = largest_finite(constant_array(value))
            return self._constants[value]
        if value.name in self._measured:
            found = float(self._measured[value.name])
            return math.inf if math.isnan(found) else found
        if value.producer() is None:
            return LARGEST_PIXEL
        sources = comes_from(value)
        if sources is None:
            raise CalibrationError(
                f"no range of {value.name!r} was measured, which decides about its type",
                fix="measure the tensors that tensors_to_measure(graph) names",
            )
        return max((self._source(source) for source in sources), default=1.0)

    def _source(self, value: ir.Value) -> float:
        node = value.producer()
        if node is not None and node.op_type == "QuantizeLinear":
            return self.of(node.inputs[0])
        if is_constant(value) and not is_float32(value):  # quantised weights
            user = next(u for u in value.consumers() if u.op_type == "DequantizeLinear")
            return largest_finite(constant_array(value).astype(np.float32)) * self.of(user.inputs[1])
        return self.of(value)


def comes_from(value: ir.Value) -> tuple[ir.Value, ...] | None:
    """The tensors that bound this one; none where it is within -1..1; None where it must be measured."""
    node = value.producer()
    if node is None:  # a graph input
        return ()
    first = node.inputs[0] if node.inputs else None
    if node.op_type == "DequantizeLinear" and first is not None:
        producer = first.producer()
        quantised = producer is not None and producer.op_type == "QuantizeLinear"
        return (first,) if quantised or is_constant(first) else None
    from_bool = node.op_type == "Cast" and first is not None and first.dtype == ir.DataType.BOOL
    if node.op_type in _AT_MOST_ONE or from_bool:
        return ()
    if node.op_type in _NEVER_LARGER or (node.op_type == "Cast" and is_float32(first)):
        return (first,) if first is not None else None
    if node.op_type in _ONE_OF_ITS_INPUTS:
        return tuple(v for v in node.inputs if v is not None and is_float32(v))
    return None


def constant_array(value: ir.Value) -> NDArray[np.generic]:
    """The numbers of a stored tensor."""
    if value.const_value is None:
        raise ValueError(f"{value.name!r} is no stored constant")
    array: NDArray[np.generic] = value.const_value.numpy()
    return array


def largest_finite(array: NDArray[np.generic]) -> float:
    """Largest |x|; -inf in a mask is a number of every format."""
    if array.size == 0:
        return 0.0
    low, high = float(array.min()), float(array.max())
    if math.isfinite(low) and math.isfinite(high):
        return max(-low, high)
    return float(np.abs(array[np.isfinite(array)]).max(initial=0))
