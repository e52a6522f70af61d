"""Rewrites to the form that every TensorRT computes right, one file a subject.

Each is a function that rewrites a graph in place and returns how often it did; what it does not know it leaves alone.
The graph has its shapes and types inferred before, and again after each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from clipdeploy.engine.targets.rewrites.activations import lower_gelu, lower_mish, lower_swish
from clipdeploy.engine.targets.rewrites.attention import explicit_attention
from clipdeploy.engine.targets.rewrites.norm import lower_rms_norm
from clipdeploy.engine.targets.rewrites.scale import scale_into_query
from clipdeploy.engine.targets.rewrites.single_row import single_row_as_sums
from clipdeploy.graphs.floats_first import floats_first


@dataclass(frozen=True)
class Rewrite:
    """A named rewrite; `told` says what it does."""

    name: str
    apply: Callable[[ir.Model], int]
    told: str


REWRITES = {
    rewrite.name: rewrite
    for rewrite in (
        Rewrite("explicit_attention", explicit_attention, "Attention written out, the scale on the queries"),
        Rewrite("lower_gelu", lower_gelu, "Gelu written out"),
        Rewrite("lower_mish", lower_mish, "Mish written out"),
        Rewrite("lower_swish", lower_swish, "Swish written out"),
        Rewrite("lower_rms_norm", lower_rms_norm, "RMSNormalization written out"),
        Rewrite("scale_into_query", scale_into_query, "attention's scale on the queries alone"),
        Rewrite("single_row_as_sums", single_row_as_sums, "attention of a single query as products and sums"),
        Rewrite("floats_first", floats_first, "frames made float32 before anything else"),
    )
}
"""By name, in the order in which they run."""

LOWERINGS = {
    "Attention": "explicit_attention",
    "Gelu": "lower_gelu",
    "Mish": "lower_mish",
    "Swish": "lower_swish",
    "RMSNormalization": "lower_rms_norm",
}
"""Operator -> the rewrite for a parser that lacks it."""
