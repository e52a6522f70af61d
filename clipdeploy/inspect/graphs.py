"""What is in an ONNX graph."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipdeploy.errors import InputError, MissingExtraError
from clipdeploy.spec import TensorSpec


@dataclass(frozen=True)
class GraphInfo:
    """What is in an ONNX graph.

    Attributes:
        opsets: operator domain -> version; the standard domain is `ai.onnx`.
        nodes: operator -> how often, most frequent first; nodes of subgraphs and functions included.
        initializers: how many constant tensors.
        initializer_bytes: their bytes by dtype, most first.
        external: files beside the graph that hold tensors.
        size_bytes: of the graph's file.
    """

    path: Path
    producer: str
    ir_version: int
    opsets: dict[str, int]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    nodes: dict[str, int]
    initializers: int
    initializer_bytes: dict[str, int]
    external: tuple[str, ...]
    size_bytes: int


def inspect_graph(path: Path) -> GraphInfo:
    """What is in the ONNX file at `path`; weights in other files are not read."""
    if not path.is_file():
        raise InputError(f"{path} does not exist or is no file", fix="check the path of the graph")
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", extra="export", needed_for="inspecting a graph") from error
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError as error:
        raise InputError(f"{path} is no ONNX graph: {error}", fix="copy or export the graph again") from error
    if not model.graph.node and not model.graph.output:
        raise InputError(f"{path} is no ONNX graph: it has no nodes and no outputs", fix="copy or export it again")
    nodes: Counter[str] = Counter()
    tensors: list[Any] = []
    _walk(model.graph, nodes, tensors)
    for function in model.functions:
        nodes.update(node.op_type for node in function.node)
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        dtype, bits = _dtype(tensor.data_type)
        sizes[dtype] += math.ceil(math.prod(tensor.dims) * bits / 8)
    constants = {tensor.name for tensor in model.graph.initializer}
    return GraphInfo(
        path=path,
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        ir_version=model.ir_version,
        opsets={opset.domain or "ai.onnx": opset.version for opset in model.opset_import},
        inputs=tuple(_tensor_spec(value) for value in model.graph.input if value.name not in constants),
        outputs=tuple(_tensor_spec(value) for value in model.graph.output),
        nodes=dict(nodes.most_common()),
        initializers=len(tensors),
        initializer_bytes=dict(sizes.most_common()),
        external=tuple(sorted({e.value for t in tensors for e in t.external_data if e.key == "location"})),
        size_bytes=path.stat().st_size,
    )


def _walk(graph: Any, nodes: Counter[str], tensors: list[Any]) -> None:
    """Collect operators and constant tensors of a graph and of the graphs inside it."""
    tensors.extend(graph.initializer)
    for node in graph.node:
        nodes[node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"] += 1
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs] if attribute.HasField("g") or attribute.graphs else []:
                _walk(inner, nodes, tensors)


def _dtype(data_type: int) -> tuple[str, int]:
    """Name and bits of an ONNX element type, such as `("float16", 16)` or `("float8e4m3fn", 8)`."""
    import onnx

    name = onnx.TensorProto.DataType.Name(data_type).lower()
    name = {"float": "float32", "double": "float64"}.get(name, name)
    digits = re.search(r"\d+", name)
    return name, int(digits[0]) if digits else {"bool": 8}.get(name, 0)


def _tensor_spec(value: Any) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(d.dim_param or (d.dim_value if d.HasField("dim_value") else "?") for d in tensor.shape.dim)
    return TensorSpec(value.name, _dtype(tensor.elem_type)[0], shape)
