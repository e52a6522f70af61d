"""What the stages of quantisation hand to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

LayerKind = Literal["qkv", "out_proj", "fc1", "fc2", "conv", "projection", "patch_embed", "pool", "other"]


@dataclass(frozen=True)
class Layer:
    """A product with constant weights in a graph.

    Attributes:
        name: for people, such as `blocks.3.fc2`.
        kind: what it is for in the encoder.
        block: the residual block it belongs to, such as `blocks.3`; what is given back together.
        node: name of its node: a Gemm, a MatMul or a Conv.
        input: name of the activation it takes.
        weight: name of its weights.
        output: name of what it gives.
        channel_axis: the axis of the weights that counts the output channels.
    """

    name: str
    kind: LayerKind
    block: str
    node: str
    input: str
    weight: str
    output: str
    channel_axis: int


@dataclass(frozen=True)
class Range:
    """Between which values an activation is represented; beyond it is clipped. `low <= 0 <= high`."""

    low: float
    high: float


Ranges = Mapping[str, Range]
"""Name of a tensor -> its range."""
