"""Constants, activations in unsigned and weights in signed 8 bits: what all rewritten layers are made of.

Processors multiply unsigned by signed bytes (VPDPBUSD on x86, AMX's TDPBUSD), so activations are unsigned with a zero
point, weights signed and symmetric. Every scale is a constant measured beforehand: what the engine answers to a picture
does not depend on the pictures that share its batch, as it does where each run takes its own range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from clipdeploy.calibration.records import Layer, Ranges
from clipdeploy.errors import CalibrationError

Attributes = dict[str, int | float | list[int]]

ENGINE_DOMAIN = "com.microsoft"
"""Of the operators that ONNX Runtime alone has."""

_UINT8_MAX = 255
_INT8_MAX = 127
_BIAS_MAX = 2.0**30
"""Of a bias counted in steps of its INT32; one bit is left for what the product adds to it."""
_SMALLEST_SCALE = 2.0**-40
"""For tensors that are zero throughout."""


@dataclass(frozen=True)
class Bytes:
    """An activation in 8 bits: itself, its bytes, and the constants that say what they mean."""

    value: ir.Value
    quantised: ir.Value
    scale: ir.Value
    zero: ir.Value
    step: float


@dataclass(frozen=True)
class Product:
    """Weights in 8 bits `(inputs, outputs)`, their scales and, in float32, the bias `(outputs,)`."""

    weight: ir.Value
    scale: ir.Value
    bias: ir.Value | None


class Writer:
    """Rewrites one graph in place.

    Args:
        model: the graph.
        ranges: of the activations that become 8 bits.
    """

    def __init__(self, model: ir.Model, ranges: Ranges) -> None:
        self.graph = model.graph
        self._opsets = model.opset_imports
        self._ranges = ranges
        self._activations: dict[str, Bytes] = {}
        self._reads: dict[int, Bytes] = {}
        self._names = {value.name for node in model.graph for value in node.outputs} | set(model.graph.initializers)
        self._names |= {value.name for value in model.graph.inputs}

    def activation(self, value: ir.Value, layer: Layer) -> Bytes:
        """A value's bytes, quantised once, right behind what makes it."""
        if id(value) in self._reads:
            return self._reads[id(value)]
        assert value.name is not None
        if value.name not in self._activations:
            if value.name not in self._ranges:
                raise CalibrationError(f"no range was measured for {value.name!r}, which {layer.name} needs in 8 bits")
            found = self._ranges[value.name]
            step = np.float32(max((found.high - found.low) / _UINT8_MAX, _SMALLEST_SCALE))
            zero = np.uint8(np.clip(np.rint(-found.low / step), 0, _UINT8_MAX))
            scale, point = self.constant(f"{value.name}_scale", step), self.constant(f"{value.name}_zero", zero)
            node = self.node("QuantizeLinear", [value, scale, point], f"{value.name}_q", ir.DataType.UINT8)
            node.outputs[0].shape = value.shape
            producer = value.producer()
            if producer is not None:
                self.graph.insert_after(producer, node)
            else:
                self.graph.insert_before(self.graph[0], node)
            self._activations[value.name] = Bytes(value, node.outputs[0], scale, point, float(step))
        return self._activations[value.name]

    def read(self, source: Bytes, before: ir.Node, value: ir.Value | None = None) -> ir.Value:
        """Bytes as float32 again, in front of a node; `value` are the bytes after a change of layout.

        Each reader has a pair's second half of its own: the engine fuses one into every product.
        """
        value = source.quantised if value is None else value
        node = self.node("DequantizeLinear", [value, source.scale, source.zero], f"{value.name}_dq", ir.DataType.FLOAT)
        node.outputs[0].shape = value.shape
        self.graph.insert_before(before, node)
        self._reads[id(node.outputs[0])] = source
        return node.outputs[0]

    def constants(
        self,
        layer: Layer,
        array: NDArray[np.float32],
        axis: int,
        bias: NDArray[np.float32] | None,
        source: Bytes,
        before: ir.Node,
    ) -> list[ir.Value]:
        """Weights and, where there is one, the bias, stored in 8 and 32 bits behind DequantizeLinear."""
        scales, values = bytes_of_weights(array, axis, bias, source.step)
        stored: dict[str, NDArray[Any]] = {"int8": values, "scale": scales, "zero": np.zeros(scales.shape, np.int8)}
        inputs = [self.constant(f"{layer.weight}_{suffix}", constant) for suffix, constant in stored.items()]
        found = [self._stored(inputs, f"{layer.weight}_dq", axis, before)]
        if bias is not None:
            steps = (scales * np.float32(source.step)).astype(np.float32)
            whole = np.rint(bias / steps).astype(np.int32)
            name = f"{layer.weight}_bias"
            inputs = [self.constant(f"{name}_int32", whole), self.constant(f"{name}_scale", steps)]
            found.append(self._stored(inputs, f"{name}_dq", 0, before))
        return found

    def product_constants(self, layer: Layer, array: NDArray[np.float32], bias: NDArray[np.float32] | None) -> Product:
        """Weights `(inputs, outputs)` and, where there is one, the bias, for the engine's own operators."""
        scales, values = bytes_of_weights(array, 1, None, 0.0)
        return Product(
            self.constant(f"{layer.weight}_int8", values),
            self.constant(f"{layer.weight}_scale", scales),
            None if bias is None else self.constant(f"{layer.weight}_bias", bias.astype(np.float32)),
        )

    def node(
        self,
        kind: str,
        inputs: Sequence[ir.Value | None],
        output: str,
        dtype: ir.DataType,
        attributes: Attributes | None = None,
        domain: str = "",
    ) -> ir.Node:
        """A new node with one output, not in the graph yet; its name is that of its output."""
        output = self.free(output)
        node = ir.node(kind, inputs, attributes=attributes or {}, domain=domain, name=f"{output}_{kind}")
        node.outputs[0].name, node.outputs[0].dtype = output, dtype
        return node

    def engine_node(
        self, kind: str, inputs: Sequence[ir.Value | None], output: str, attributes: Attributes | None = None
    ) -> ir.Node:
        """The same, of an operator that ONNX Runtime alone has, with a float32 output."""
        self._opsets.setdefault(ENGINE_DOMAIN, 1)
        return self.node(kind, inputs, output, ir.DataType.FLOAT, attributes, ENGINE_DOMAIN)

    def constant(self, name: str, array: NDArray[np.generic] | np.generic) -> ir.Value:
        """A stored constant under a free name."""
        name = self.free(name)
        value = ir.val(name, const_value=ir.tensor(np.asarray(array), name=name))
        self.graph.register_initializer(value)
        return value

    def _stored(self, inputs: list[ir.Value], output: str, axis: int, before: ir.Node) -> ir.Value:
        node = self.node("DequantizeLinear", inputs, output, ir.DataType.FLOAT, {"axis": axis})
        node.outputs[0].shape = inputs[0].shape
        self.graph.insert_before(before, node)
        return node.outputs[0]

    def free(self, name: str) -> str:
        """A name that nothing in the graph has; taken from now on."""
        while name in self._names:
            name += "_"
        self._names.add(name)
        return name


def bytes_of_weights(
    array: NDArray[np.float32], axis: int, bias: NDArray[np.float32] | None, step: float
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Scales `(channels,)` and bytes of weights, symmetric per channel of `axis`.

    A channel of tiny weights and a large bias takes a larger scale, so that the bias fits into 32 bits, counted in
    products of the scale and the activation's `step`.
    """
    scales = np.maximum(largest_pair(array, axis) / _INT8_MAX, _SMALLEST_SCALE)
    if bias is not None:
        scales = np.maximum(scales, np.abs(bias) / (step * _BIAS_MAX))
    scales = scales.astype(np.float32)
    shape = [-1 if i == axis else 1 for i in range(array.ndim)]
    return scales, np.clip(np.rint(array / scales.reshape(shape)), -_INT8_MAX, _INT8_MAX).astype(np.int8)


def largest_pair(array: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """`(channels,)`: what two neighbours of one sign amount to at most, in the order in which products add them.

    Processors without VNNI add the products of two neighbours in 16 bits (VPMADDUBSW), and cut off what is larger.
    Neighbours that amount to 127, 128 after rounding, times 255 are 32,640: nothing is ever cut off, and all
    processors give the same answer. Limiting each weight to 64 would do so too, at twice the rounding error.
    """
    rows = np.moveaxis(array, axis, 0)  # (channels, inputs), or (channels, inputs, height, width)
    rows = np.moveaxis(rows, 1, -1).reshape(len(rows), -1)  # the engine sums up channels last
    if rows.shape[1] % 2:
        rows = np.pad(rows, ((0, 0), (0, 1)))
    first, second = rows[:, 0::2], rows[:, 1::2]
    above = np.maximum(first, 0) + np.maximum(second, 0)
    below = np.minimum(first, 0) + np.minimum(second, 0)
    pairs: NDArray[np.float32] = np.maximum(above, -below).max(axis=1, initial=0.0)
    return pairs
