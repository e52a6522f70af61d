"""What goes in and out of a graph of others: which input is the picture, which the ids, which output the embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from clipdeploy.errors import CheckpointError
from clipdeploy.importing.graphs import import_onnx
from clipdeploy.spec import Tower

_EMBEDDINGS = {
    Tower.IMAGE: ("image_embeds", "image_embedding", "image_embeddings", "image_features", "unnorm_image_features"),
    Tower.TEXT: ("text_embeds", "text_embedding", "text_embeddings", "text_features", "unnorm_text_features"),
}
_EITHER = ("embedding", "embeddings", "sentence_embedding")
_POOLED = ("pooler_output", "pooled_output")
_IDS = ("input_ids", "text", "ids", "tokens", "input", "texts")
_FLOATS = ("float32", "float16")
_INTEGERS = ("int32", "int64")


@dataclass(frozen=True)
class Port:
    """An input or output: its name, dtype, and shape, where an axis left open is None and unknown rank is no shape."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        axes = "unknown shape" if self.shape is None else ", ".join("?" if n is None else str(n) for n in self.shape)
        return f"{self.name} {self.dtype} ({axes})"


@dataclass(frozen=True)
class ImagePort:
    """The picture input. `uint8` pictures are normalised inside the graph; `channels_last` is (N, H, W, 3)."""

    port: Port
    channels_last: bool
    height: int | None
    width: int | None

    @property
    def batch(self) -> int | None:
        return self.port.shape[0] if self.port.shape else None


@dataclass(frozen=True)
class TextPort:
    """The ids, and what else a text tower asks for: a mask over padding, positions, token types."""

    ids: Port
    mask: Port | None
    positions: Port | None
    types: Port | None

    @property
    def batch(self) -> int | None:
        return self.ids.shape[0] if self.ids.shape else None

    @property
    def length(self) -> int | None:
        return self.ids.shape[1] if self.ids.shape else None


def inputs(model: Any) -> list[Port]:
    return [_port(value) for value in model.graph.input]


def outputs(model: Any) -> list[Port]:
    return [_port(value) for value in model.graph.output]


def choose_output(model: Any, tower: Tower, wanted: str | None, *, projects: bool | None, label: str) -> str:
    """The output that is the embedding.

    Args:
        wanted: the user's choice.
        projects: whether a projection belongs behind the pooling.
        label: the graph, for messages.

    Raises:
        CheckpointError: none can be the embedding, or several can; the message lists them.
    """
    found = outputs(model)
    listed, flag = "; ".join(map(str, found)), f"--{tower.value}-output NAME"
    if wanted is not None:
        if wanted not in [port.name for port in found]:
            raise CheckpointError(f"{label} has no output {wanted!r}; it gives {listed}", fix=f"choose one: {flag}")
        return wanted
    able = [p for p in found if p.dtype in _FLOATS and (p.shape is None or len(p.shape) == 2)]
    named = [p for p in able if p.name in _EMBEDDINGS[tower]] or [p for p in able if p.name in _EITHER]
    chosen = named or able
    if len(chosen) != 1:
        why = "several outputs that can be" if chosen else "no output (batch, D) that can be"
        raise CheckpointError(f"{label} has {why} the {tower.value} embedding: {listed}", fix=f"choose one: {flag}")
    (port,) = chosen
    if port.name in _POOLED and projects:
        raise CheckpointError(
            f"{label} stops before the projection: its output {port.name} is the pooled hidden state, which lies in "
            "no space that the other tower shares",
            fix="export the model with its projection (transformers: CLIPTextModelWithProjection and "
            "CLIPVisionModelWithProjection)",
        )
    return port.name


def image_port(model: Any, label: str) -> ImagePort:
    """The picture input of a graph cut to its image tower; raises CheckpointError when that is none."""
    found = inputs(model)
    if len(found) != 1 or found[0].shape is None or len(found[0].shape) != 4:
        raise CheckpointError(
            f"{label}: the image tower must take one input (batch, 3, H, W), it takes " + _list(found),
            fix="name the embedding with --image-output, or export a graph that takes pictures alone",
        )
    (port,) = found
    shape = port.shape or ()
    last = shape[3] == 3 and shape[1] != 3
    if shape[1] not in (3, None) and not last:
        raise CheckpointError(f"{label}: {port} takes no three colour channels", fix="export a graph that takes RGB")
    if port.dtype not in (*_FLOATS, "uint8"):
        raise CheckpointError(f"{label}: {port} has an unknown type", fix="export it with float32 pictures")
    height, width = (shape[1], shape[2]) if last else (shape[2], shape[3])
    return ImagePort(port, last, height, width)


def text_port(model: Any, label: str) -> TextPort:
    """The inputs of a graph cut to its text tower; raises CheckpointError for what is none of them."""
    found = inputs(model)
    rest = {port.name: port for port in found if port.dtype in (*_INTEGERS, "bool", *_FLOATS)}
    mask = next((rest.pop(n) for n in list(rest) if "mask" in n), None)
    positions = next((rest.pop(n) for n in list(rest) if "position" in n), None)
    types = next((rest.pop(n) for n in list(rest) if "token_type" in n), None)
    ids = [port for port in rest.values() if port.dtype in _INTEGERS and (port.shape is None or len(port.shape) == 2)]
    named = [port for port in ids if port.name in _IDS] or ids
    if len(named) != 1 or len(rest) != 1 or len(found) != 1 + sum(p is not None for p in (mask, positions, types)):
        raise CheckpointError(
            f"{label}: the text tower must take ids (batch, L) int64 or int32, and at most a mask, positions and "
            "token types; it takes " + _list(found),
            fix="name the embedding with --text-output, or export a graph that takes ids alone",
        )
    return TextPort(named[0], mask, positions, types)


def _list(ports: list[Port]) -> str:
    return "; ".join(map(str, ports)) or "nothing"


def dtype_name(elem_type: int) -> str:
    """`float32`, `float16`, `int64`, ... of ONNX's number."""
    name: str = import_onnx().TensorProto.DataType.Name(elem_type).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def elem_type(dtype: str) -> int:
    """ONNX's number of `float32`, `float16`, `int64`, ..."""
    names: dict[str, Literal["FLOAT"]] = {"float32": "FLOAT"}
    return int(import_onnx().TensorProto.DataType.Value(names.get(dtype, dtype.upper())))


def _port(value: Any) -> Port:
    tensor = value.type.tensor_type
    shape = None
    if tensor.HasField("shape"):
        shape = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim)
    return Port(value.name, dtype_name(tensor.elem_type), shape)
