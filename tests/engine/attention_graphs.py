"""Small graphs with attention in the forms that exporters write it, and a way to run them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

SEED = 5
Feeds = dict[str, np.ndarray]


def read(text: str) -> ir.Model:
    """A model from ONNX's text form, its shapes inferred."""
    model = ir.serde.deserialize_model(onnx.parser.parse_model(text))
    return ShapeInferencePass()(model).model


def model_text(body: str, *, inputs: str, outputs: str, opset: int = 19, extra: str = "") -> str:
    """The text of a model."""
    return f'<ir_version: 10, opset_import: ["": {opset}{extra}]> g ({inputs}) => ({outputs}) {{ {body} }}'


def sdpa(rows: int = 5, columns: int = 5, dtype: str = "float") -> ir.Model:
    """Attention as PyTorch exports SDPA: the root of the scale on queries and on keys; in float16 a computed one."""
    root = "root = Constant <value = float {0.5}> ()"
    if dtype == "float16":
        root = "wide = Constant <value = float {0.5}> () root = Cast <to = 10> (wide)"
    body = f"""
        {root}
        queries = Mul (q, root)
        turned = Transpose <perm = [0, 1, 3, 2]> (k)
        keys = Mul (turned, root)
        scores = MatMul (queries, keys)
        weights = Softmax <axis = -1> (scores)
        y = MatMul (weights, v)
    """
    return read(model_text(body, inputs=heads(rows, columns, dtype), outputs=f"{dtype}[N,2,{rows},4] y"))


def plain(rows: int = 1, columns: int = 7, dtype: str = "float") -> ir.Model:
    """Attention without a scale, as it is when the weights hold it."""
    body = """
        turned = Transpose <perm = [0, 1, 3, 2]> (k)
        scores = MatMul (q, turned)
        weights = Softmax <axis = -1> (scores)
        y = MatMul (weights, v)
    """
    return read(model_text(body, inputs=heads(rows, columns, dtype), outputs=f"{dtype}[N,2,{rows},4] y"))


def heads(rows: int, columns: int, dtype: str = "float") -> str:
    """Queries, keys and values of two heads."""
    return f"{dtype}[N,2,{rows},4] q, {dtype}[N,2,{columns},4] k, {dtype}[N,2,{columns},4] v"


def feeds(model: ir.Model, batch: int = 3) -> Feeds:
    """Seeded inputs for a model."""
    rng = np.random.default_rng(SEED)
    made: Feeds = {}
    for value in model.graph.inputs:
        assert value.shape is not None and value.dtype is not None and value.name is not None
        shape = [size if isinstance(size, int) else batch for size in value.shape]
        if value.dtype == ir.DataType.BOOL:
            made[value.name] = rng.random(shape) > 0.3
        else:
            made[value.name] = rng.standard_normal(shape).astype(value.dtype.numpy())
    return made


def run(model: ir.Model, given: Feeds) -> np.ndarray:
    """The first output, computed by ONNX Runtime as the graph is written."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    proto = ir.serde.serialize_model(model)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    answer = session.run(None, given)[0]
    assert isinstance(answer, np.ndarray)
    return answer


def ops(model: ir.Model) -> list[str]:
    """The operators, in the order of the graph."""
    return [node.op_type for node in model.graph]


def save(model: ir.Model, path: Path) -> Path:
    """Write a model."""
    ir.save(model, path)
    return path
