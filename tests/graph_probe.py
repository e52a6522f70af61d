"""Look into a graph: run it in ONNX Runtime and get any of its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray


def float_outputs(
    graph: Path, feeds: Mapping[str, NDArray[Any]], names: Sequence[str], *, as_written: bool = False
) -> dict[str, NDArray[Any]]:
    """The values of float32 tensors inside a graph, by name; `as_written` keeps the engine from rewriting it."""
    model = onnx.load(graph)
    given = {output.name for output in model.graph.output}
    for name in names:
        if name not in given:
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return dict(zip(names, _session(model, as_written=as_written).run(list(names), dict(feeds)), strict=True))


def largest(graph: Path, feeds: Mapping[str, NDArray[Any]], names: Sequence[str]) -> dict[str, float]:
    """Largest absolute value of float32 tensors inside a graph, by name."""
    return {name: float(np.abs(array).max()) for name, array in float_outputs(graph, feeds, names).items()}


def answer(graph: Path | onnx.ModelProto, feeds: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """The one output of a graph."""
    (out,) = _session(onnx.load(graph) if isinstance(graph, Path) else graph).run(None, dict(feeds))
    return out  # type: ignore[no-any-return]


def cosines(found: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N,) cosine of each row with its counterpart; NaN where one of them is not finite."""
    a, b = found.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray((a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)))


def _session(model: onnx.ModelProto, *, as_written: bool = False) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    if as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
