"""Tiny ONNX files for tests of the builder: one matrix, and whatever is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 8


def matrix(name: str = "w", dtype: Any = np.float32) -> onnx.TensorProto:
    """An identity of `WIDTH`."""
    return numpy_helper.from_array(np.eye(WIDTH, dtype=dtype), name)


def write_graph(
    path: Path,
    nodes: Sequence[onnx.NodeProto] | None = None,
    *,
    batch: int | str = "batch",
    width: int | str = WIDTH,
    stored: Sequence[onnx.TensorProto] | None = None,
    domains: Sequence[str] = (),
    inputs: Sequence[str] = ("x",),
) -> Path:
    """A graph from `x` (batch, WIDTH) to `y` (batch, WIDTH), both float32; by default y = x @ w."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="node_product")] if nodes is None else nodes
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [value(name, TensorProto.FLOAT, [batch, width]) for name in inputs],
        [value("y", TensorProto.FLOAT, [batch, WIDTH])],
        list(stored if stored is not None else [matrix()]),
    )
    opsets = [helper.make_opsetid("", 19), *(helper.make_opsetid(domain, 1) for domain in domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def write_beside(path: Path) -> Path:
    """The same graph with its weights in `NAME.onnx.data`; returns that file."""
    onnx.save(
        onnx.load(write_graph(path)),
        path,
        save_as_external_data=True,
        location=path.name + ".data",
        size_threshold=0,
    )
    return path.with_name(path.name + ".data")
