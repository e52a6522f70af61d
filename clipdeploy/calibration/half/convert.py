"""From a float32 graph, or one with Q/DQ, to a strongly typed half graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass, ShapeInferencePass

from clipdeploy.calibration.half.bounds import LAYOUT, Bounds, comes_from
from clipdeploy.calibration.half.formats import HalfFormat, half_format
from clipdeploy.calibration.half.plan import Plan
from clipdeploy.calibration.half.ports import Ports, float_ports, half_ports, is_float32
from clipdeploy.calibration.half.rewrite import rewrite
from clipdeploy.calibration.half.rules import why_float32
from clipdeploy.errors import CalibrationError, InputError
from clipdeploy.graphs.files import load_graph, save_graph
from clipdeploy.graphs.opset import raise_opset
from clipdeploy.spec import Precision

_UNTOLD = LAYOUT | {"Cast"}
"""They only move numbers, or are types themselves."""


@dataclass(frozen=True)
class HalfResult:
    """What became of a graph.

    Attributes:
        kept: nodes that stay float32, each with why; those that only move numbers are left out.
        converted: how many nodes compute in half.
        casts: how many Casts stand between the types.
        opset: of the graph written.
    """

    kept: tuple[tuple[str, str], ...]
    converted: int
    casts: int
    opset: int


def tensors_to_measure(graph: Path) -> tuple[str, ...]:
    """Names of the float tensors whose largest absolute value `to_half` asks for; others follow from them."""
    model = _read(graph)
    values = (v for node in model.graph for v in node.outputs)
    return tuple(str(v.name) for v in values if is_float32(v) and comes_from(v) is None)


def to_half(
    source: Path,
    target: Path,
    *,
    precision: Precision,
    stats: Mapping[str, float],
    keep: Collection[str] = (),
) -> HalfResult:
    """Write a graph that stores and computes in FP16 or BF16 wherever the measured ranges allow it.

    Inputs and outputs keep their types (`pixel_values` float32, ids int64, embeddings float32). FP16 keeps the opset;
    BF16 gets 22 where an operator needs it (convolutions do) and all mean the same there. A graph with Q/DQ keeps its
    quantised weights; its scales become half, which needs opset 19.

    Args:
        source: a float32 graph, or one with Q/DQ in float32.
        target: may be the same file.
        precision: FP16 or BF16.
        stats: largest absolute value of each tensor in `tensors_to_measure(source)`, over the calibration samples.
        keep: names of nodes that shall stay float32.

    Raises:
        CalibrationError: a tensor was not measured, or the graph is none of ours.
        InputError: `keep` names no node, or the precision has not 16 bits.
    """
    fmt = half_format(precision)
    model = _read(source)
    graph = model.graph
    _check_names(graph, keep, source)
    ports = _ports(model, fmt)
    plan = Plan(graph, ports, why_float32(graph, ports, Bounds(stats), fmt, keep))
    plan.settle()
    kept = tuple((_name(n), plan.kept[n]) for n in graph if n in plan.kept and n.op_type not in _UNTOLD)
    casts = rewrite(model, plan, fmt)
    save_graph(model, target)
    return HalfResult(kept, len(plan.half), casts, model.opset_imports[""])


def _read(path: Path) -> ir.Model:
    """A graph all of whose tensors have known types, and whose constants are all stored ones."""
    model = load_graph(path)
    if model.functions or any(True for _ in model.graph.subgraphs()):
        raise CalibrationError(
            f"{path} holds functions or control flow, which a typed graph of ours never does",
            fix="export the checkpoint with clipdeploy export",
        )
    LiftConstantsToInitializersPass(lift_all_constants=True)(model)
    if any(v.dtype is None for node in model.graph for v in node.outputs):
        ShapeInferencePass()(model)
    untyped = next((v for node in model.graph for v in node.outputs if v.dtype is None and v.name), None)
    if untyped is not None:
        raise CalibrationError(
            f"{path}: the type of {untyped.name!r} is not known", fix="export the checkpoint with clipdeploy export"
        )
    return model


def _ports(model: ir.Model, fmt: HalfFormat) -> dict[ir.Node, Ports]:
    """What of each node may be half, in a higher opset where the graph's own lacks the format."""
    for raised in (False, True):
        if raised and not raise_opset(model):
            break
        opset = model.opset_imports[""]
        ports = {node: half_ports(node, opset, fmt) for node in model.graph}
        if all(ports[node] or not float_ports(node) for node in model.graph):
            break
    return ports


def _check_names(graph: ir.Graph, keep: Collection[str], source: Path) -> None:
    unknown = sorted(set(keep) - {node.name for node in graph})
    if unknown:
        raise InputError(f"{source} has no node named {', '.join(map(repr, unknown))}, to be kept in float32")


def _name(node: ir.Node) -> str:
    return node.name or f"{node.op_type} of {node.outputs[0].name}"
