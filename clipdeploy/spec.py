"""Frozen records that describe a CLIP: what goes in, what comes out, and what the numbers mean.

A record is checked when it is made, so whoever holds one can trust it. `to_dict` and `from_dict` carry
records to and from JSON; unknown and missing keys are errors, never ignored.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any, Literal, TypeVar

from clipdeploy.errors import InputError

R = TypeVar("R")

ResizeMode = Literal["shortest", "squash"]
Interpolation = Literal["bicubic", "bilinear"]
TextPooling = Literal["eot_argmax", "eot_first", "last", "cls", "other"]
TextCleaning = Literal["whitespace", "lower", "canonicalize", "none"]
CropRounding = Literal["round", "floor"]
RgbConversion = Literal["after_resize", "before_resize", "on_white"]
FrameColor = Literal["rgb", "bgr", "nv12"]
Target = Literal["tensorrt", "cpu"]
"""What a quantised graph is placed and typed for; it is never passed off for another."""
BATCH_AXIS, LENGTH_AXIS = "batch", "length"
"""Names of the axes of a graph that may have any size; the length is that of texts, `TokenSpec.context_length` at most.
"""
LONGEST_NOTE = "context_length"
"""In the metadata of a graph whose length is free: how many ids a text may have."""
_LARGEST_FRAME = 16384


class Precision(str, Enum):
    """The number format that a graph computes in."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    FP8 = "fp8"

    @property
    def quantised(self) -> bool:
        """Whether it has 8 bits, so that its graphs are made for a target."""
        return self in (Precision.INT8, Precision.FP8)

    @classmethod
    def parse(cls, value: str | Precision) -> Precision:
        """Read a precision from its name; raises InputError with the accepted names."""
        try:
            return cls(value)
        except ValueError:
            names = ", ".join(p.value for p in cls)
            raise InputError(f"unknown precision {value!r}; expected one of {names}") from None


class Tower(str, Enum):
    """One of the two encoders."""

    IMAGE = "image"
    TEXT = "text"

    def graph_name(self, precision: Precision = Precision.FP32, target: Target | None = None) -> str:
        """File name of this tower's graph in a bundle, such as `visual.onnx`, `visual_int8.onnx` or, quantised for
        processors, `visual_int8_cpu.onnx`."""
        stem = "visual" if self is Tower.IMAGE else "textual"
        parts = [stem] + ([precision.value] if precision is not Precision.FP32 else [])
        return "_".join([*parts, target] if target == "cpu" else parts) + ".onnx"


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of a graph input or output; a string in `shape` is a dynamic axis."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class PixelSpec:
    """How a picture becomes `(N, 3, height, width)` float32, RGB, normalised.

    Attributes:
        height: output height in px.
        width: output width in px.
        resize: `shortest` scales the shortest side to the target and crops the centre; `squash` scales both sides.
        interpolation: the Pillow filter of the resize, antialiased.
        mean: per channel, subtracted after scaling to 0..1.
        std: per channel, divided by after the subtraction.
        crop_rounding: where an odd margin is cut: `round` to the even pixel as torchvision does, `floor` as
            transformers does. Means nothing for `squash`.
        rgb: when pictures of other modes become RGB: open_clip converts `after_resize`, transformers
            `before_resize`; `on_white` is before too, with what is transparent laid on white (transformers from 5 on).
    """

    height: int
    width: int
    resize: ResizeMode
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop_rounding: CropRounding = "round"
    rgb: RgbConversion = "after_resize"

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise InputError(f"image size must be positive, got {self.height}x{self.width}")
        if any(s <= 0 or not math.isfinite(s) for s in self.std):
            raise InputError(f"std must be positive and finite, got {self.std}")


@dataclass(frozen=True)
class FrameSpec:
    """A camera's frames, as a graph takes them that resizes and normalises by itself.

    Attributes:
        width: in px.
        height: in px.
        color: `rgb` or `bgr`, (height, width, 3) uint8; or `nv12`, (height * 3 / 2, width) uint8: a plane of luma, and
            below it one of chroma at half the size, U and V in turn, as decoders and cameras give it.
    """

    width: int
    height: int
    color: FrameColor = "rgb"

    def __post_init__(self) -> None:
        if not (1 <= self.width <= _LARGEST_FRAME and 1 <= self.height <= _LARGEST_FRAME):
            raise InputError(
                f"a frame's sides must be in 1..{_LARGEST_FRAME} px, got {self.width}x{self.height}",
                fix="give width x height, such as 1920x1080",
            )
        if self.color == "nv12" and (self.width % 2 or self.height % 2):
            raise InputError(
                f"an nv12 frame has even sides, got {self.width}x{self.height}",
                fix="give the size that the decoder gives, such as 1920x1080, or take its frames as rgb or bgr",
            )

    @classmethod
    def parse(cls, text: str | FrameSpec) -> FrameSpec:
        """Read `WIDTHxHEIGHT` or `WIDTHxHEIGHT:COLOR`; raises InputError."""
        if isinstance(text, FrameSpec):
            return text
        size, _, color = text.strip().lower().partition(":")
        width, _, height = size.partition("x")
        if not (width.isdecimal() and height.isdecimal()):
            raise InputError(
                f"{text!r} is no size of a frame", fix="give WIDTHxHEIGHT[:rgb|bgr|nv12], such as 1920x1080:bgr"
            )
        if color not in ("", *typing.get_args(FrameColor)):
            raise InputError(
                f"{text!r}: unknown colour order {color!r}", fix="give rgb, bgr or nv12, such as 1920x1080:bgr"
            )
        return cls(int(width), int(height), typing.cast(FrameColor, color or "rgb"))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one frame, uint8."""
        if self.color == "nv12":
            return (self.height * 3 // 2, self.width)
        return (self.height, self.width, 3)

    @property
    def tensor(self) -> TensorSpec:
        """The graph's input: N frames."""
        return TensorSpec("frame", "uint8", ("batch", *self.shape))

    @property
    def graph_name(self) -> str:
        """File name in a bundle of the graph that makes pixels of these frames."""
        return f"frames/{self.width}x{self.height}-{self.color}.onnx"

    def __str__(self) -> str:
        return f"{self.width}x{self.height}:{self.color}"


@dataclass(frozen=True)
class BakedSpec:
    """What a baked bundle answers by itself: its image graph takes frames or pixels and gives a number a label.

    Attributes:
        labels: K distinct texts, in the order of the answers; empty where the graph gives embeddings.
        templates: that the labels were put into.
        frame: what goes in; None where it is pixels that are ready for the model.
        embedding_space: of the bundle that it was baked from.
    """

    labels: tuple[str, ...]
    templates: tuple[str, ...]
    frame: FrameSpec | None
    embedding_space: str


@dataclass(frozen=True)
class TokenSpec:
    """How a text becomes `(N, context_length)` token ids.

    Attributes:
        context_length: ids per text; longer texts are cut and keep their end token in the last place.
        vocab_size: ids lie in `0 .. vocab_size - 1`.
        start_id: id put in front, or None when the tokenizer adds none.
        end_id: id put behind.
        pad_id: id that fills the rest.
        cleaning: text rules applied before the tokenizer, named as open_clip names them; `none` leaves all to
            `tokenizer.json`.
        pooling: which position the text tower reads its embedding from.
        erased_id: id that becomes 0 wherever it stands (CLIPA drops its separator so), None where none does.
        last_id: id in the last place, behind the padding (CLIPS puts its class token there), None where there is none.
    """

    context_length: int
    vocab_size: int
    start_id: int | None
    end_id: int
    pad_id: int
    cleaning: TextCleaning
    pooling: TextPooling
    erased_id: int | None = None
    last_id: int | None = None

    def __post_init__(self) -> None:
        if self.context_length < 3:
            raise InputError(f"context_length must be at least 3, got {self.context_length}")


@dataclass(frozen=True)
class TowerSpec:
    """One encoder: its family, its size, and the tensors of its graph.

    Where the length of a text encoder's input is free (`LENGTH_AXIS`), what stands behind the token that
    `TokenSpec.pooling` reads changes no embedding and may be left out.
    """

    tower: Tower
    architecture: str
    parameters: int
    input: TensorSpec
    output: TensorSpec

    @property
    def any_length(self) -> bool:
        """Whether texts may be cut behind the token that is read."""
        return LENGTH_AXIS in self.input.shape


@dataclass(frozen=True)
class ModelSpec:
    """Everything that a runtime must know of a CLIP besides its weights.

    Attributes:
        name: architecture or repository name, for people.
        embed_dim: D, the width of the shared space.
        activation: activation function of the MLPs, as the checkpoint was trained.
        logit_scale: already exponentiated; logits = logit_scale * cosine + logit_bias.
        logit_bias: 0.0 where the checkpoint has none.
        probability: how logits become probabilities; `sigmoid` for SigLIP-trained checkpoints.
    """

    name: str
    embed_dim: int
    image: TowerSpec
    text: TowerSpec
    pixels: PixelSpec
    tokens: TokenSpec
    activation: str
    logit_scale: float
    logit_bias: float
    probability: Literal["softmax", "sigmoid"]

    def __post_init__(self) -> None:
        if not (math.isfinite(self.logit_scale) and self.logit_scale > 0 and math.isfinite(self.logit_bias)):
            raise InputError(
                f"logit_scale must be finite and positive, logit_bias finite; got {self.logit_scale}, {self.logit_bias}"
            )

    def tower(self, tower: Tower) -> TowerSpec:
        """The record of one tower."""
        return self.image if tower is Tower.IMAGE else self.text


def to_dict(record: Any) -> Any:
    """A record as plain JSON types."""
    if dataclasses.is_dataclass(record):
        return {f.name: to_dict(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, Enum):
        return record.value
    if isinstance(record, (tuple, list)):
        return [to_dict(item) for item in record]
    if isinstance(record, dict):
        return {key: to_dict(value) for key, value in record.items()}
    return record


def from_dict(kind: type[R], data: Any, *, where: str = "") -> R:
    """A record from plain JSON types; raises InputError naming the place (`where`) that does not fit."""
    where = where or kind.__name__
    if not isinstance(data, dict):
        raise InputError(f"{where}: expected an object, got {type(data).__name__}")
    hints, required = _fields(typing.cast(Any, kind))
    unknown, missing = data.keys() - hints.keys(), required - data.keys()
    if unknown or missing:
        parts = [f"unknown key {k!r}" for k in sorted(unknown)] + [f"missing key {k!r}" for k in sorted(missing)]
        raise InputError(f"{where}: " + ", ".join(parts))
    return kind(**{name: _convert(hints[name], value, f"{where}.{name}") for name, value in data.items()})


@cache
def _fields(kind: type[Any]) -> tuple[dict[str, Any], frozenset[str]]:
    """The fields of a record with their types, which Python takes long to look up; and those that must be given."""
    hints, fields = typing.get_type_hints(kind), dataclasses.fields(kind)
    required = {field.name for field in fields if field.default is field.default_factory is dataclasses.MISSING}
    return {field.name: hints[field.name] for field in fields}, frozenset(required)


def _convert(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type `hint` says, or InputError."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert_union(args, value, where)
    if origin is Literal:
        if value not in args:
            raise InputError(f"{where}: expected one of {', '.join(map(repr, args))}, got {value!r}")
        return value
    if origin is tuple and isinstance(value, list):
        if args[-1] is not Ellipsis and len(args) != len(value):
            raise InputError(f"{where}: expected {len(args)} values, got {len(value)}")
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        return tuple(_convert(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if origin is dict and isinstance(value, dict):
        return {key: _convert(args[1], item, f"{where}[{key!r}]") for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where=where)  # type: ignore[arg-type]
    if isinstance(hint, type) and issubclass(hint, Enum):
        try:
            return hint(value)
        except ValueError:
            names = ", ".join(repr(m.value) for m in hint)
            raise InputError(f"{where}: expected one of {names}, got {value!r}") from None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool):
        return value
    raise InputError(f"{where}: expected {getattr(hint, '__name__', hint)}, got {type(value).__name__} {value!r}")


def _convert_union(options: tuple[Any, ...], value: Any, where: str) -> Any:
    """`value` as the first of `options` that takes it."""
    if value is None and type(None) in options:
        return None
    error: InputError | None = None
    for option in options:
        if option is not type(None):
            try:
                return _convert(option, value, where)
            except InputError as caught:
                error = caught
    raise error or InputError(f"{where}: expected a value, got {value!r}")
