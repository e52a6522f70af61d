"""A graph of others made to keep the bundle's contract: names, types, a free batch, embeddings of length 1.

    pixel_values (batch, 3, H, W) float32  ->  image_embeds (batch, D) float32
    input_ids    (batch, L) int64          ->  text_embeds  (batch, D) float32

What the graph computes stays; only its borders are built on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.importing.graphs import import_onnx, names, opset, rename
from clipdeploy.importing.ports import ImagePort, TextPort, elem_type
from clipdeploy.spec import PixelSpec, TensorSpec, TokenSpec

NORM_FLOOR = 1e-12
"""As torch's `normalize` has it."""


class Border:
    """Nodes and constants to be put before or behind a graph, under names of their own."""

    def __init__(self, model: Any) -> None:
        self._onnx = import_onnx()
        self._model = model
        self._taken = names(model)
        self.nodes: list[Any] = []

    def constant(self, value: NDArray[Any], hint: str) -> str:
        """An initializer."""
        name = self._fresh(hint)
        self._model.graph.initializer.append(self._onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, op: str, inputs: list[str], *, output: str | None = None, **attributes: Any) -> str:
        """A node of one output, whose name it returns."""
        name = output or self._fresh(op.lower())
        self.nodes.append(self._onnx.helper.make_node(op, inputs, [name], name=f"import_{name}", **attributes))
        return name

    def before(self) -> None:
        """Put the nodes in front."""
        rest = list(self._model.graph.node)
        del self._model.graph.node[:]
        self._model.graph.node.extend([*self.nodes, *rest])

    def behind(self) -> None:
        """Put the nodes at the end."""
        self._model.graph.node.extend(self.nodes)

    def _fresh(self, hint: str) -> str:
        name, number = f"clipdeploy_{hint}", 1
        while name in self._taken:
            name, number = f"clipdeploy_{hint}_{number}", number + 1
        self._taken.add(name)
        return name


def adapt_image_input(model: Any, port: ImagePort, pixels: PixelSpec, spec: TensorSpec) -> None:
    """Make the picture input `spec`, in place; a graph that takes bytes gets them back from the normalised values."""
    old = _take_name(model, port.port.name, spec.name)
    border = Border(model)
    value = spec.name
    if port.port.dtype == "uint8":
        value = _bytes_again(border, value, pixels)
    elif port.port.dtype != "float32":
        value = border.node("Cast", [value], to=elem_type(port.port.dtype))
    if port.channels_last:
        value = border.node("Transpose", [value], perm=[0, 2, 3, 1])
    _join(model, border, value, old, spec.name)
    _set_inputs(model, spec)


def adapt_text_input(model: Any, port: TextPort, tokens: TokenSpec, spec: TensorSpec, *, masks: bool) -> None:
    """Make the ids the only input, in place; what else the graph asks for follows from them.

    Args:
        masks: False gives a graph that asks for a mask one that hides nothing.
    """
    others = [p for p in (port.mask, port.positions, port.types) if p is not None]
    kept = {p.name: _take_name(model, p.name, spec.name) for p in (port.ids, *others)}
    border = Border(model)
    ids, length = spec.name, tokens.context_length
    if port.ids.dtype != "int64":
        ids = border.node("Cast", [ids], to=elem_type(port.ids.dtype))
    if port.mask is not None:
        mask = padding_mask(border, spec.name, tokens) if masks else None
        if mask is None:
            mask = border.node("Equal", [spec.name, spec.name])
        _join(model, border, border.node("Cast", [mask], to=elem_type(port.mask.dtype)), kept[port.mask.name], None)
    if port.types is not None:
        zero = border.constant(np.asarray(0, np.int64), "zero")
        nothing = border.node("Mul", [spec.name, zero])
        _join(
            model, border, border.node("Cast", [nothing], to=elem_type(port.types.dtype)), kept[port.types.name], None
        )
    if port.positions is not None:
        places = np.arange(length, dtype=port.positions.dtype)[None]
        name = border.constant(places, "positions")
        shape = border.node("Shape", [spec.name])
        _join(model, border, border.node("Expand", [name, shape]), kept[port.positions.name], None)
    _join(model, border, ids, kept[port.ids.name], spec.name)
    _set_inputs(model, spec)


def padding_mask(border: Border, ids: str, tokens: TokenSpec) -> str:
    """A bool (batch, L) that is true where an id is no padding.

    Where texts are padded with their end token, the first one is the text's own: then the mask ends behind it.
    """
    if tokens.pad_id != tokens.end_id:
        pad = border.constant(np.asarray(tokens.pad_id, np.int64), "pad")
        return border.node("Not", [border.node("Equal", [ids, pad])])
    end = border.constant(np.asarray(tokens.end_id, np.int64), "end")
    ends = border.node("Cast", [border.node("Equal", [ids, end])], to=elem_type("int32"))
    first = border.node(
        "Cast", [border.node("ArgMax", [ends], axis=1, keepdims=1)], to=elem_type("int32")
    )  # (batch, 1)
    places = border.constant(np.arange(tokens.context_length, dtype=np.int32)[None], "places")
    return border.node("Not", [border.node("Greater", [places, first])])


def adapt_output(model: Any, spec: TensorSpec, dtype: str, *, normalise: bool) -> None:
    """Make the only output `spec`, in place: float32, and of length 1 where it is not yet."""
    onnx = import_onnx()
    old = _take_name(model, model.graph.output[0].name, spec.name)
    border = Border(model)
    value = old
    if dtype != "float32":
        value = border.node("Cast", [value], to=elem_type("float32"))
    if normalise:
        value = _normalised(border, value, opset(model))
    if border.nodes:
        border.nodes[-1].output[0] = spec.name
        border.behind()
    else:
        rename(model, old, spec.name)
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(spec.name, elem_type(spec.dtype), list(spec.shape)))


def _normalised(border: Border, value: str, version: int) -> str:
    """`value` over its L2 norm along the last axis."""
    if version >= 18:
        norm = border.node("ReduceL2", [value, border.constant(np.asarray([-1], np.int64), "axes")], keepdims=1)
    else:
        norm = border.node("ReduceL2", [value], axes=[-1], keepdims=1)
    floor = border.constant(np.asarray(NORM_FLOOR, np.float32), "floor")
    return border.node("Div", [value, border.node("Max", [norm, floor])])


def _bytes_again(border: Border, value: str, pixels: PixelSpec) -> str:
    """Normalised float32 values -> the bytes they came of: exact, since a byte step is far above float32's error."""
    std, mean = (np.asarray(three, np.float32).reshape(1, 3, 1, 1) for three in (pixels.std, pixels.mean))
    value = border.node("Mul", [value, border.constant(std * np.float32(255), "std")])
    value = border.node("Add", [value, border.constant(mean * np.float32(255), "mean")])
    return border.node("Cast", [border.node("Round", [value])], to=elem_type("uint8"))


def _take_name(model: Any, port: str, new: str) -> str:
    """Free the name `new` for the contract; returns what the port is called now."""
    if new in names(model):
        free = f"imported_{new}"
        rename(model, new, free)
        return free if port == new else port
    return port


def _join(model: Any, border: Border, value: str, old: str, new: str | None) -> None:
    """Let what read `old` read `value`. With `new`, the border is whole: put it in front."""
    rename(model, old, value)
    if new is not None and border.nodes:
        border.before()


def _set_inputs(model: Any, spec: TensorSpec) -> None:
    onnx = import_onnx()
    del model.graph.input[:]
    model.graph.input.append(onnx.helper.make_tensor_value_info(spec.name, elem_type(spec.dtype), list(spec.shape)))
