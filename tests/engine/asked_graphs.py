"""A tiny encoder of each tower, typed in each precision: one attention block and an MLP, as CLIP's graphs have.

The files in `data/layers` are what TensorRT for RTX 1.7.1 logged when it built engines of these graphs on a machine
without a GPU, for batches of 1 to 32, in detail: the message that begins with `Layers:`. This module wrote them:

    python -m tests.engine.asked_graphs tests/engine/data/layers
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from clipdeploy.spec import Precision, Tower

TOKENS, WIDTH, HEADS, VOCABULARY = 16, 64, 2, 50
LINEARS = ("node_qkv", "node_out", "node_fc1", "node_fc2")
PRODUCTS = ("node_qkv", "node_scores", "node_values", "node_out", "node_fc1", "node_fc2", "node_proj")
"""The products that both towers have; the image tower's first is `node_patch`."""
_NUMPY: dict[Precision, Any] = {
    Precision.FP32: np.float32,
    Precision.FP16: np.float16,
    Precision.BF16: ml_dtypes.bfloat16,
    Precision.INT8: np.float16,
    Precision.FP8: np.float16,
}


class Encoder:
    """Builds one graph; `nodes` and `constants` grow as it goes."""

    def __init__(self, precision: Precision, *, width: int = WIDTH, quantised: tuple[str, ...] = LINEARS) -> None:
        self.precision, self.width = precision, width
        self.quantised = quantised if precision.quantised else ()
        self.dtype = _NUMPY[precision]
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(0)

    def constant(self, name: str, value: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(self, name: str, *shape: int) -> str:
        return self.constant(name, (self.random.normal(size=shape) * 0.1).astype(self.dtype))

    def node(self, operator: str, name: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        made = [name] if outputs == 1 else [f"{name}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), made, name=f"node_{name}", **attributes))
        return made[0]

    def linear(self, name: str, value: str, inputs: int, outputs: int) -> str:
        bias = self.constant(f"{name}.bias", np.zeros(outputs, self.dtype))
        if f"node_{name}" not in self.quantised:
            return self.node("Gemm", name, value, self.weight(f"{name}.weight", inputs, outputs), bias)
        eight = np.int8 if self.precision is Precision.INT8 else ml_dtypes.float8_e4m3fn
        scale = self.constant(f"{name}_scale", np.asarray(0.05, self.dtype))
        zero = self.constant(f"{name}_zero", np.zeros((), eight))
        held = self.constant(f"{name}.weight", self.random.integers(-9, 9, (inputs, outputs)).astype(eight))
        value = self.node(
            "DequantizeLinear", f"{name}_dq", self.node("QuantizeLinear", f"{name}_q", value, scale, zero), scale, zero
        )
        return self.node(
            "Gemm", name, value, self.node("DequantizeLinear", f"{name}_weight_dq", held, scale, zero), bias
        )

    def norm(self, name: str, value: str) -> str:
        ones = self.constant(f"{name}.weight", np.ones(self.width, self.dtype))
        return self.node(
            "LayerNormalization", name, value, ones, self.constant(f"{name}.bias", np.zeros(self.width, self.dtype))
        )

    def heads(self, name: str, value: str) -> str:
        shape = self.constant(f"{name}_shape", np.array([-1, TOKENS, HEADS, self.width // HEADS]))
        return self.node(
            "Transpose", f"{name}_heads", self.node("Reshape", f"{name}_split", value, shape), perm=[0, 2, 1, 3]
        )

    def block(self, value: str) -> str:
        """(N * TOKENS, width) to the same."""
        self.node(
            "Split",
            "qkv_parts",
            self.linear("qkv", self.norm("norm1", value), self.width, 3 * self.width),
            outputs=3,
            axis=1,
            num_outputs=3,
        )
        q, k, v = (self.heads(name, f"qkv_parts_{index}") for index, name in enumerate("qkv"))
        scores = self.node("MatMul", "scores", q, self.node("Transpose", "k_turned", k, perm=[0, 1, 3, 2]))
        mixed = self.node("MatMul", "values", self.node("Softmax", "softmax", scores, axis=-1), v)
        flat = self.constant("flat", np.array([-1, self.width]))
        joined = self.node("Reshape", "joined", self.node("Transpose", "joined_heads", mixed, perm=[0, 2, 1, 3]), flat)
        value = self.node("Add", "add1", value, self.linear("out", joined, self.width, self.width))
        hidden = self.node("Relu", "relu", self.linear("fc1", self.norm("norm2", value), self.width, 4 * self.width))
        return self.node("Add", "add2", value, self.linear("fc2", hidden, 4 * self.width, self.width))

    def tokens(self, tower: Tower) -> str:
        """The input to (N * TOKENS, width)."""
        flat = self.constant("tokens_shape", np.array([-1, self.width]))
        if tower is Tower.TEXT:
            return self.node(
                "Reshape",
                "tokens",
                self.node("Gather", "embedding", self.weight("embedding.weight", VOCABULARY, self.width), "input_ids"),
                flat,
            )
        pixels = "pixel_values"
        if self.dtype is not np.float32:
            pixels = self.node("Cast", "cast_pixels", pixels, to=helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype)))
        patches = self.node("Conv", "patch", pixels, self.weight("patch.weight", self.width, 3, 8, 8), strides=[8, 8])
        return self.node("Reshape", "tokens", self.node("Transpose", "patches_last", patches, perm=[0, 2, 3, 1]), flat)


def make_graph(
    path: Path,
    precision: Precision = Precision.FP32,
    tower: Tower = Tower.IMAGE,
    *,
    width: int = WIDTH,
    quantised: tuple[str, ...] = LINEARS,
) -> Path:
    """Write one graph; `quantised` names the products that have 8 bits where the precision has."""
    encoder = Encoder(precision, width=width, quantised=quantised)
    value = encoder.block(encoder.tokens(tower))
    each = encoder.constant("each_shape", np.array([-1, TOKENS, width]))
    pooled = encoder.node(
        "ReduceMean",
        "pooled",
        encoder.node("Reshape", "each", value, each),
        encoder.constant("token_axis", np.array([1])),
        keepdims=0,
    )
    value = encoder.node("MatMul", "proj", pooled, encoder.weight("proj.weight", width, width))
    if encoder.dtype is not np.float32:
        value = encoder.node("Cast", "cast_out", value, to=TensorProto.FLOAT)
    length = encoder.node("ReduceL2", "length", value, encoder.constant("last_axis", np.array([-1])))
    clamped = encoder.node("Max", "clamped", length, encoder.constant("epsilon", np.float32(1e-12)))
    output = "image_embeds" if tower is Tower.IMAGE else "text_embeds"
    encoder.nodes.append(helper.make_node("Div", [value, clamped], [output], name="node_div"))
    entry = (
        helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, 32, 32])
        if tower is Tower.IMAGE
        else helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", TOKENS])
    )
    graph = helper.make_graph(
        encoder.nodes,
        "tiny",
        [entry],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", width])],
        encoder.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def recorded(name: str) -> list[str]:
    """The lines that a builder logged of an engine's layers, such as `recorded("image_fp16")`."""
    return (Path(__file__).parent / "data" / "layers" / f"{name}.log").read_text(encoding="utf-8").splitlines()


def build(graph: Path) -> tuple[int, str]:
    """Build an engine with TensorRT for RTX; its size, and what the builder logged of its layers."""
    import tensorrt_rtx as trt

    messages: list[str] = []

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, msg: str) -> None:
            messages.append(msg)

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    assert parser.parse_from_file(str(graph)), [parser.get_error(i).desc() for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    profile, entry = builder.create_optimization_profile(), network.get_input(0)
    shape = list(entry.shape)[1:]
    profile.set_shape(entry.name, [1, *shape], [8, *shape], [32, *shape])
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    return engine.nbytes, next(message for message in messages if message.startswith("Layers:"))


def main(folder: Path) -> None:
    """Record what the builder logs of each graph's engine; the text tower's in one precision."""
    for tower in Tower:
        for precision in Precision if tower is Tower.IMAGE else (Precision.FP16,):
            graph = make_graph(folder / "graph.onnx", precision, tower)
            log = build(graph)[1]
            (folder / f"{tower.value}_{precision.value}.log").write_text(log.rstrip() + "\n", encoding="utf-8")
            graph.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
