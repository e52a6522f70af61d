"""Is an engine's file as large as its graph's weights make it? Weights in a wider type, or none, are seen by that."""

from __future__ import annotations

import onnx_ir as ir

from clipdeploy.engine.layers.products import expected_weight_bytes
from clipdeploy.engine.records import BuildOptions, Built
from clipdeploy.findings import Finding

REPORT_IT = "build another precision, and report this with the versions that clipdeploy doctor shows"
ROOM_BYTES, ROOM_SHARE = 24_000_000, 0.25
"""What an engine may hold beyond its weights, for each optimisation profile: kernels, and weights that are padded or
stored in two layouts. TensorRT for RTX 1.7.1 took 0.7 to 12 MB more than the weights, in five precisions of three
models; twice that is allowed. An engine with weights of twice the width is over it from 32 MB of weights on."""
LEAN_RUNTIME_BYTES = 100_000_000
"""A version-compatible TensorRT engine carries a runtime with it, of some tens of MB."""
MISSING_SHARE = 0.75
"""An engine smaller than this share of its weights cannot hold them; the builder folds a few small ones away."""


def size_finding(model: ir.Model, built: Built, options: BuildOptions) -> Finding:
    """Whether the file holds as much as the graph's weights come to."""
    weights, size, profiles = expected_weight_bytes(model), built.size_bytes, len(options.profiles)
    lean = LEAN_RUNTIME_BYTES if options.version_compatible else 0
    limit = profiles * (int(weights * (1 + ROOM_SHARE)) + ROOM_BYTES) + lean
    held = f"{_mb(size)} for weights of {_mb(weights)}"
    if options.strip_weights:
        return _stripped(held, size, weights, profiles * (int(weights * ROOM_SHARE) + ROOM_BYTES) + lean)
    if size < weights * MISSING_SHARE:
        return Finding("size", "bad", f"{held}: weights are missing from the engine", "build it again")
    if size > limit:
        message = f"{held}, expected at most {_mb(limit)}: weights are stored in a wider type, or several times"
        return Finding("size", "bad", message, REPORT_IT)
    return Finding("size", "good", held)


def _stripped(held: str, size: int, weights: int, limit: int) -> Finding:
    if size > limit:
        message = f"{held}, expected at most {_mb(limit)} without them: they are still inside"
        return Finding("size", "bad", message, "build it without --strip-weights, or report this")
    if size >= weights * MISSING_SHARE:
        return Finding("size", "note", f"{held}: too small a graph to tell whether the weights were left out")
    return Finding("size", "good", f"{held}, which were left out")


def _mb(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
