"""Where ONNX Runtime placed the operators of a graph: those that do the work must not be left to the CPU.

`session.disable_cpu_ep_fallback` would refuse too much: providers leave the arithmetic of shapes to the CPU by design.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clipdeploy.errors import BackendError

RECORD = ("session.record_ep_graph_assignment_info", "1")
"""Session configuration that has the placement recorded, from ONNX Runtime 1.24 on; earlier ones ignore it."""

_CPU = "CPUExecutionProvider"
# what nearly all of a CLIP's time goes to, under the names that the graph or the engine's rewriting gives
_WORK = (
    "Attention",
    "BiasGelu",
    "BiasSoftmax",
    "Conv",
    "ConvInteger",
    "ConvTranspose",
    "Einsum",
    "Erf",
    "FastGelu",
    "FusedConv",
    "FusedGemm",
    "FusedMatMul",
    "Gelu",
    "Gemm",
    "LayerNormalization",
    "MatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "MultiHeadAttention",
    "NhwcConv",
    "NhwcFusedConv",
    "QGemm",
    "QLinearConv",
    "QLinearMatMul",
    "QuickGelu",
    "SkipLayerNormalization",
    "Softmax",
)


def can_tell(session_class: Any) -> bool:
    """Whether the engine records a placement; if not, one run has to be profiled."""
    return hasattr(session_class, "get_provider_graph_assignment_info")


def profiled(options: Any) -> tempfile.TemporaryDirectory[str]:
    """Have a session write its profile; the folder that it is written to."""
    folder = tempfile.TemporaryDirectory(prefix="clipdeploy-placement-")
    options.enable_profiling = True
    options.profile_file_prefix = str(Path(folder.name) / "run")
    return folder


def check_placement(session: Any, provider: str, graph: Path, run_once: Callable[[], object]) -> None:
    """Raise BackendError when operators that do the work were left to the CPU.

    Args:
        session: of the engine, opened with `RECORD`, or where it cannot tell with `profiled`.
        provider: that was asked for.
        graph: for the message.
        run_once: a run of one row, for an engine that has to be watched.
    """
    placed = _recorded(session) if can_tell(session) else _watched(session, run_once)
    left = Counter({name: count for (where, name), count in placed.items() if where == _CPU and name in _WORK})
    if not left:
        return
    worst = ", ".join(f"{count} {name}" for name, count in left.most_common(5))
    raise BackendError(
        f"{provider} does not take all of {graph}: {left.total()} operators that do the work were left to the CPU: "
        f"{worst}",
        fix="take a precision that the provider has kernels for, such as fp32 or fp16, or another backend",
    )


def _recorded(session: Any) -> Counter[tuple[str, str]]:
    """(provider, operator) -> how many, as the engine recorded it."""
    return Counter(
        (part.ep_name, node.op_type)
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    )


def _watched(session: Any, run_once: Callable[[], object]) -> Counter[tuple[str, str]]:
    """(provider, operator) -> how many ran, from the profile of one run; ends the profiling."""
    run_once()
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    told = [event["args"] for event in events if event.get("cat") == "Node"]
    return Counter((args["provider"], args["op_name"]) for args in told if "provider" in args and "op_name" in args)
