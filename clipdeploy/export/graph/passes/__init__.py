"""Small rewrites behind onnxsim, in the order in which they run.

Each file holds one: a function that rewrites a graph in place and returns how often it did. Whoever calls them checks
the numbers (`simplify.py`); a pass only has to be right, and to leave alone what it does not know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from clipdeploy.export.graph.passes.finite_masks import finite_masks
from clipdeploy.export.graph.passes.fold_scale import fold_scale
from clipdeploy.export.graph.passes.gelu_order import gelu_order
from clipdeploy.export.graph.passes.slices_to_split import slices_to_split


@dataclass(frozen=True)
class GraphPass:
    """A named rewrite; `apply` changes the graph in place and returns the number of places changed."""

    name: str
    apply: Callable[[ir.Model], int]


PASSES = (
    GraphPass("finite_masks", finite_masks),
    GraphPass("gelu_order", gelu_order),
    GraphPass("fold_scale", fold_scale),
    GraphPass("slices_to_split", slices_to_split),
)
"""In the order in which they run."""
