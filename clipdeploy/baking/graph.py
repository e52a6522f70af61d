"""The baked graph: frames, encoder and labels as one.

    frame (batch, ...) uint8 -> [frame graph] -> pixel_values -> [encoder, as it is typed] -> image_embeds
        -> MatMul labels * logit_scale -> + logit_bias -> logits -> Softmax or Sigmoid -> probabilities

What is before and behind the encoder is float32 whatever the encoder is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from clipdeploy.graphs.files import load_graph, save_graph
from clipdeploy.graphs.floats_first import floats_first
from clipdeploy.graphs.join import join_models
from clipdeploy.runtime.session import LOGITS
from clipdeploy.spec import ModelSpec

PROBABILITIES = "probabilities"
PREFIX = "labels/"
"""Of the names of what follows the encoder."""
_OPSET = 13
"""From here to 23 MatMul, Add, Softmax and Sigmoid are the same."""


def write_baked(
    encoder: Path,
    target: Path,
    *,
    front: Path | None,
    head: ir.Model | None,
    for_processors: bool,
    inline_limit_bytes: int | None = None,
) -> tuple[int, Path | None]:
    """Write an encoder with what goes before and behind it; returns its opset, and the file of weights beside it.

    Args:
        encoder: the graph as it is typed.
        target: the file to write.
        front: the graph that makes pixels of frames.
        head: see `head_model`; it is used up.
        for_processors: leave frames 8 bits for as long as they are only moved.
        inline_limit_bytes: weights beyond this lie beside the graph.

    Raises:
        InputError: the parts do not fit.
    """
    model = load_graph(encoder)
    if front is not None:
        frames = load_graph(front)
        if not for_processors:
            floats_first(frames)
        model = join_models(frames, model)
    if head is not None:
        model = join_models(model, head)
    model.graph.name = "baked"
    more = {} if inline_limit_bytes is None else {"inline_limit_bytes": inline_limit_bytes}
    return model.opset_imports[""], save_graph(model, target, **more)


def head_model(rows: NDArray[np.float32], spec: ModelSpec) -> ir.Model:
    """Embeddings of pictures to logits and probabilities.

    Args:
        rows: (K, D) float32, the labels' embeddings, L2-normalised.
        spec: of the model, for scale, bias, and which of softmax and sigmoid.
    """
    count, columns = rows.shape
    weights = np.ascontiguousarray((spec.logit_scale * rows.astype(np.float64)).T, dtype=np.float32)  # (D, K)
    float32, batch = ir.TensorType(ir.DataType.FLOAT), ir.SymbolicDim("batch")
    embeds = ir.Value(name=spec.image.output.name, type=float32, shape=ir.Shape([batch, columns]))
    logits = ir.Value(name=LOGITS, type=float32, shape=ir.Shape([batch, count]))
    chances = ir.Value(name=PROBABILITIES, type=float32, shape=ir.Shape([batch, count]))
    labels = _stored("weights", weights)
    constants = [labels]
    if spec.logit_bias:
        bias = _stored("bias", np.full((count,), spec.logit_bias, np.float32))
        constants.append(bias)
        scaled = ir.Value(name=f"{PREFIX}scaled", type=float32, shape=ir.Shape([batch, count]))
        nodes = [
            ir.Node("", "MatMul", [embeds, labels], outputs=[scaled], name=f"{PREFIX}matmul"),
            ir.Node("", "Add", [scaled, bias], outputs=[logits], name=f"{PREFIX}add"),
        ]
    else:
        nodes = [ir.Node("", "MatMul", [embeds, labels], outputs=[logits], name=f"{PREFIX}matmul")]
    if spec.probability == "softmax":
        axis = [ir.AttrInt64("axis", -1)]
        nodes.append(ir.Node("", "Softmax", [logits], axis, outputs=[chances], name=f"{PREFIX}softmax"))
    else:
        nodes.append(ir.Node("", "Sigmoid", [logits], outputs=[chances], name=f"{PREFIX}sigmoid"))
    graph = ir.Graph(
        [embeds], [chances, logits], nodes=nodes, initializers=constants, opset_imports={"": _OPSET}, name="labels"
    )
    return ir.Model(graph, ir_version=8, producer_name="clipdeploy")


def _stored(name: str, array: NDArray[np.float32]) -> ir.Value:
    name = f"{PREFIX}{name}"
    return ir.Value(
        name=name,
        type=ir.TensorType(ir.DataType.FLOAT),
        shape=ir.Shape(array.shape),
        const_value=ir.tensor(array, name=name),
    )
