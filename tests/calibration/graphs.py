"""Small float32 graphs in the layout of our own, for tests that look at every number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH, HIDDEN, DIM = 16, 32, 8


def write_mlp_tower(path: Path, *, blocks: int = 2, outlier: float = 1.0, opset: int = 19, seed: int = 0) -> Path:
    """`pixel_values` (N, 3, 2, 2) -> Linear -> blocks of LayerNorm, Linear, Relu, Linear, sum -> L2 norm (N, 8).

    Args:
        outlier: factor of one channel of each norm, taken back in the weights behind it.
    """
    rng = np.random.default_rng(seed)
    constants: dict[str, np.ndarray] = {}
    nodes = []

    def gemm(name: str, source: str, rows: int, columns: int) -> str:
        constants[f"visual.{name}.weight"] = rng.standard_normal((rows, columns)).astype(np.float32) / columns**0.5
        constants[f"visual.{name}.bias"] = rng.standard_normal(rows).astype(np.float32) * 0.1
        inputs = [source, f"visual.{name}.weight", f"visual.{name}.bias"]
        nodes.append(helper.make_node("Gemm", inputs, [f"{name}_out"], name=f"node_{name}", transB=1))
        return f"{name}_out"

    nodes.append(helper.make_node("Flatten", ["pixel_values"], ["flat"], name="flatten"))
    stream = gemm("embed", "flat", WIDTH, 12)
    for index in range(blocks):
        name = f"blocks.{index}"
        gain = rng.uniform(0.5, 1.5, WIDTH).astype(np.float32)
        gain[3] *= outlier
        constants[f"{name}.gain"], constants[f"{name}.shift"] = gain, np.zeros(WIDTH, np.float32)
        norm = f"{name}_norm"
        nodes.append(
            helper.make_node(
                "LayerNormalization", [stream, f"{name}.gain", f"{name}.shift"], [norm], name=norm, axis=-1
            )
        )
        hidden = gemm(f"{name}.fc1", norm, HIDDEN, WIDTH)
        constants[f"visual.{name}.fc1.weight"][:, 3] /= outlier
        nodes.append(helper.make_node("Relu", [hidden], [f"{name}_relu"], name=f"{name}_relu"))
        back = gemm(f"{name}.fc2", f"{name}_relu", WIDTH, HIDDEN)
        nodes.append(helper.make_node("Add", [stream, back], [f"{name}_sum"], name=f"{name}_sum"))
        stream = f"{name}_sum"
    features = gemm("proj", stream, DIM, WIDTH)
    constants |= {"axis": np.array([-1]), "tiny": np.array(1e-12, np.float32)}
    nodes += [
        helper.make_node("ReduceL2", [features, "axis"], ["norm"], name="norm", keepdims=1),
        helper.make_node("Max", ["norm", "tiny"], ["safe"], name="safe"),
        helper.make_node("Div", [features, "safe"], ["image_embeds"], name="div"),
    ]
    graph = helper.make_graph(
        nodes,
        "tower",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, 2, 2])],
        [helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["batch", DIM])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    model = onnx.shape_inference.infer_shapes(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    return path


def pixels(count: int = 32, seed: int = 1) -> np.ndarray:
    """(count, 3, 2, 2) float32."""
    return np.random.default_rng(seed).standard_normal((count, 3, 2, 2)).astype(np.float32)
