"""An encoder to ONNX: torch's dynamo exporter; the batch is free, and of text encoders that allow it the length."""

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
from clipdeploy.graphs.length import state_longest
from clipdeploy.spec import LENGTH_AXIS, TensorSpec, TowerSpec

TRACE_BATCH = 2
"""Batch size that is traced with; one of 1 would be taken for a constant."""


def trace_tower(
    tower: nn.Module,
    spec: TowerSpec,
    path: Path,
    *,
    opset: int,
    longest: int | None = None,
    inline_limit_bytes: int = INLINE_LIMIT_BYTES,
) -> None:
    """Write an encoder as ONNX, its weights beside it where they exceed `inline_limit_bytes`.

    Args:
        tower: from `towers.py`; its one input and one output are `spec.input` and `spec.output`.
        spec: names, dtypes and shapes; the axes named there are the dynamic ones: the batch, and perhaps `LENGTH_AXIS`.
        path: the file; written under a temporary name and renamed.
        opset: 17 to 23.
        longest: where the length is free, how many ids a text may have.

    Raises:
        ExportError: the opset is not supported, the network cannot be traced, or its output is not what `spec` says.
    """
    check_opset(opset)
    model = _trace(tower.eval(), spec, max(opset, MIN_TRACED_OPSET), longest)
    tidy(model)
    _name(model, spec)
    if longest is not None:
        state_longest(model, longest)
    lower_opset(model, opset)
    save_graph(model, path, inline_limit_bytes=inline_limit_bytes)
    for value in model.graph.initializers.values():
        value.const_value = None  # the exporter's rules hold on to the last graph they met, and so to its weights


def _trace(tower: nn.Module, spec: TowerSpec, opset: int, longest: int | None) -> ir.Model:
    axes = _free_axes(spec.input, longest)
    try:
        with torch.no_grad(), _without_chatter():
            program = torch.onnx.export(
                tower,
                (_example(spec.input, longest),),
                dynamo=True,
                opset_version=opset,
                dynamic_shapes=(axes,),
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


def _free_axes(spec: TensorSpec, longest: int | None) -> dict[int, Any]:
    """The axes of the input that are not fixed, by their place, as torch names them."""
    batch, *others = spec.shape
    named = [axis for axis in others if isinstance(axis, str)]
    if not isinstance(batch, str) or named != ([] if longest is None else [LENGTH_AXIS]):
        raise ExportError(f"input {spec.name!r} has shape {spec.shape}; expected a named batch axis, then fixed sizes")
    axes = {0: torch.export.Dim(batch)}
    if longest is not None:
        axes[spec.shape.index(LENGTH_AXIS)] = torch.export.Dim(LENGTH_AXIS, min=2, max=longest)
    return axes


def _example(spec: TensorSpec, longest: int | None) -> Tensor:
    """An input of batch `TRACE_BATCH`; zeros are a valid picture and valid ids. A free length is not traced at its
    limit, where cutting a table to it would be taken for doing nothing."""
    rest = [longest - 1 if longest is not None and n == LENGTH_AXIS else n for n in spec.shape[1:]]
    return torch.zeros([TRACE_BATCH, *(int(n) for n in rest)], dtype=getattr(torch, spec.dtype))


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
