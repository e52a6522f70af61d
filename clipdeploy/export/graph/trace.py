"""An encoder to ONNX: torch's dynamo exporter, batch the only dynamic axis."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from onnxscript import opset18
from torch import Tensor, nn

import clipdeploy
import clipdeploy.export.towers.blocks  # registers take_row
from clipdeploy.errors import ExportError
from clipdeploy.export.graph.opset import MIN_TRACED_OPSET, check_opset, lower_opset
from clipdeploy.graphs.files import INLINE_LIMIT_BYTES, save_graph, tidy
from clipdeploy.spec import TensorSpec, TowerSpec

TRACE_BATCH = 2
"""Batch size that is traced with; one of 1 would be taken for a constant."""


def trace_tower(
    tower: nn.Module, spec: TowerSpec, path: Path, *, opset: int, inline_limit_bytes: int = INLINE_LIMIT_BYTES
) -> None:
    """Write an encoder as ONNX, its weights beside it where they exceed `inline_limit_bytes`.

    Args:
        tower: from `towers.py`; its one input and one output are `spec.input` and `spec.output`.
        spec: names, dtypes and shapes; the axis named there is the only dynamic one.
        path: the file; written under a temporary name and renamed.
        opset: 17 to 23.

    Raises:
        ExportError: the opset is not supported, the network cannot be traced, or its output is not what `spec` says.
    """
    check_opset(opset)
    model = _trace(tower.eval(), spec, max(opset, MIN_TRACED_OPSET))
    tidy(model)
    _name(model, spec)
    lower_opset(model, opset)
    save_graph(model, path, inline_limit_bytes=inline_limit_bytes)
    for value in model.graph.initializers.values():
        value.const_value = None  # the exporter's rules hold on to the last graph they met, and so to its weights


def _trace(tower: nn.Module, spec: TowerSpec, opset: int) -> ir.Model:
    batch = torch.export.Dim(_batch_axis(spec.input))
    try:
        with torch.no_grad(), _without_chatter():
            program = torch.onnx.export(
                tower,
                (_example(spec.input),),
                dynamo=True,
                opset_version=opset,
                dynamic_shapes=({0: batch},),
                input_names=[spec.input.name],
                output_names=[spec.output.name],
                custom_translation_table={torch.ops.clipdeploy.take_row.default: _take_row},
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ExportError(
            f"the {spec.tower.value} encoder ({spec.architecture}) cannot be traced at opset {opset}: "
            f"{_first_line(error)}",
            fix="try another --opset, or report the architecture",
        ) from error
    if program is None:
        raise ExportError(f"tracing the {spec.tower.value} encoder ({spec.architecture}) gave no graph")
    return program.model


def _name(model: ir.Model, spec: TowerSpec) -> None:
    """Names of the model and its tensors; raises ExportError where these are not what `spec` says."""
    model.producer_name, model.producer_version = "clipdeploy", clipdeploy.__version__
    model.graph.name = f"{spec.architecture} {spec.tower.value}"
    for found, wanted in ((model.graph.inputs, spec.input), (model.graph.outputs, spec.output)):
        shapes = [_shape(value) for value in found]
        if shapes != [wanted.shape]:
            raise ExportError(
                f"the {spec.tower.value} encoder ({spec.architecture}) traced with shapes {shapes} at {wanted.name!r}; "
                f"expected {wanted.shape}",
                fix="export a checkpoint whose encoder gives one embedding per sample",
            )
        found[0].name = wanted.name


def _shape(value: ir.Value) -> tuple[int | str, ...]:
    return tuple(d if isinstance(d, int) else str(d.value) for d in value.shape or ())


def _batch_axis(spec: TensorSpec) -> str:
    axis, *others = spec.shape
    if not isinstance(axis, str) or not all(isinstance(n, int) for n in others):
        raise ExportError(f"input {spec.name!r} has shape {spec.shape}; expected a named batch axis, then fixed sizes")
    return axis


def _example(spec: TensorSpec) -> Tensor:
    """An input of batch `TRACE_BATCH`; zeros are a valid picture and valid ids."""
    shape = [TRACE_BATCH, *(n for n in spec.shape if isinstance(n, int))]
    return torch.zeros(shape, dtype=getattr(torch, spec.dtype))


def _take_row(x: Any, row: Any) -> Any:
    """`take_row` in ONNX: `(N, L, D)` and `(N, 1)` -> `(N, D)`."""
    return opset18.GatherND(x, row, batch_dims=1)


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Silence what the exporter's optimizer says of every Split it meets; nothing is wrong with them."""
    logger = logging.getLogger("onnxscript.optimizer._constant_folding")

    def keep(record: logging.LogRecord) -> bool:
        return not record.msg.startswith("Skipping constant folding for op")

    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def _first_line(error: BaseException) -> str:
    cause = error.__cause__ or error
    return str(cause).strip().split("\n", 1)[0]
