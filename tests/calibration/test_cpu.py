"""INT8 for processors: close to float32, computed in integers, the same answer whatever the batch and the processor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import clipdeploy
from clipdeploy.calibration.cpu import pixel_range, place_cpu, quantise_cpu, ranges_needed
from clipdeploy.calibration.cpu.writer import bytes_of_weights, largest_pair
from clipdeploy.calibration.layers import find_layers
from clipdeploy.calibration.placement import Choice
from clipdeploy.calibration.ranges import collect
from clipdeploy.calibration.records import Layer, Range
from clipdeploy.demo import class_names, write_images
from clipdeploy.errors import CalibrationError
from clipdeploy.graphs.files import load_graph
from clipdeploy.runtime.ort import OrtSession
from clipdeploy.spec import Tower
from tests.graph_probe import answer, cosines

MADE_OF_BYTES = {"QAttention", "QLinearConv", "MatMulIntegerToFloat"}


@dataclass(frozen=True)
class Made:
    """A demo model's image encoder in float32 and INT8, and what both say about pictures it never saw."""

    source: Path
    graph: Path
    choices: tuple[Choice, ...]
    pixels: NDArray[np.float32]
    expected: NDArray[np.float32]
    found: NDArray[np.float32]
    bank: NDArray[np.float32]


@pytest.fixture(scope="module", params=["vit", "rn"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    bundle: Path = request.getfixturevalue("vit_bundle" if request.param == "vit" else "demo_bundle")
    folder = tmp_path_factory.mktemp(f"cpu-{request.param}")
    clip = clipdeploy.load(bundle, backend="onnxruntime")
    seen = clip.images(write_images(folder / "seen", count=96, split="seen", seed=5).paths)
    pixels = clip.images(write_images(folder / "new", count=192, seed=9).paths)
    source, graph = bundle / "visual.onnx", folder / "visual_int8.onnx"
    model = load_graph(source)
    choices = place_cpu(model, find_layers(model, Tower.IMAGE))
    layers = [choice.layer for choice in choices if choice.quantise]
    names = [name for name in ranges_needed(model, layers) if name != "pixel_values"]
    statistics = collect(source, names, [{"pixel_values": seen[i : i + 8]} for i in range(0, len(seen), 8)])
    ranges = {name: statistics.range(name, "max", symmetric=False) for name in names}
    ranges["pixel_values"] = pixel_range(clip.spec.pixels)
    result = quantise_cpu(source, graph, layers, ranges)
    assert result.layers == len(layers)
    assert result.size_bytes == graph.stat().st_size
    bank = clip.encode_labels(list(class_names()))
    return Made(source, graph, choices, pixels, embed(source, pixels), embed(graph, pixels), bank)


def embed(graph: Path, pixels: NDArray[np.float32], batch: int = 8) -> NDArray[np.float32]:
    session = OrtSession(graph, threads=1)
    return np.concatenate([session.run(pixels[i : i + batch]) for i in range(0, len(pixels), batch)])


def test_embeddings_hold_the_default_budget(made: Made) -> None:
    found = cosines(made.found, made.expected)
    assert found.mean() > 0.9995
    assert found.min() > 0.997
    agree = (made.found @ made.bank.T).argmax(1) == (made.expected @ made.bank.T).argmax(1)
    assert agree.mean() >= 0.99


def test_embeddings_are_float32_of_length_one(made: Made) -> None:
    assert made.found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(made.found, axis=1), 1.0, atol=1e-6)


def test_answer_does_not_depend_on_the_batch(made: Made) -> None:
    """Scales are constants: only the order in which float32 numbers are added may differ between batch sizes."""
    alone = embed(made.graph, made.pixels[:24], batch=1)
    np.testing.assert_allclose(alone, made.found[:24], atol=1e-6)
    brighter = np.concatenate([made.pixels[:1], 1.5 * made.pixels[1:8]])
    np.testing.assert_allclose(embed(made.graph, brighter)[0], alone[0], atol=1e-6)


def test_every_layer_is_computed_in_integers(made: Made, tmp_path: Path) -> None:
    kinds = Counter(fused(made.graph, tmp_path))
    placed = sum(choice.quantise for choice in made.choices)
    assert sum(kinds[kind] for kind in MADE_OF_BYTES) == placed
    assert kinds["Gemm"] + kinds["FusedGemm"] <= len(made.choices) - placed


def test_only_the_projection_and_the_stem_stay_float(made: Made) -> None:
    kept = {choice.layer.kind for choice in made.choices if not choice.quantise}
    assert kept <= {"projection", "patch_embed", "conv"}
    assert all(choice.reason for choice in made.choices if not choice.quantise)


def test_file_is_a_third_of_float32(made: Made) -> None:
    """The demo models are so small that names and biases count; a ViT-B/32 comes to 0.26."""
    assert made.graph.stat().st_size < 0.32 * made.source.stat().st_size


def test_graph_says_whose_operators_it_has(made: Made) -> None:
    model = onnx.load(made.graph)
    onnx.checker.check_model(model, full_check=True)
    special = {node.op_type for node in model.graph.node if node.domain not in ("", "ai.onnx")}
    assert special <= {"QAttention", "MatMulIntegerToFloat"}
    assert {opset.domain: opset.version for opset in model.opset_import} == {"": 19, "com.microsoft": 1}
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param


def test_no_processor_cuts_off_a_sum(made: Made) -> None:
    """Two neighbouring products are added in 16 bits where there is no VNNI."""
    stored = [i for i in onnx.load(made.graph).graph.initializer if i.name.rstrip("_").endswith("_int8")]
    assert len(stored) == sum(choice.quantise for choice in made.choices)
    for tensor in stored:
        weights = numpy_helper.to_array(tensor).astype(np.float32)
        worst = 255 * largest_pair(weights, 0 if weights.ndim == 4 else 1).max()
        assert worst <= np.iinfo(np.int16).max, tensor.name


def test_neighbours_are_those_that_a_product_adds() -> None:
    weights = np.array([[3, 4, -5, 6, 7]], np.float32)
    assert largest_pair(weights, 0).tolist() == [7.0]  # 3 + 4, -5 | 6, 7 + nothing
    assert largest_pair(weights.T, 1).tolist() == [7.0]
    convolution = np.zeros((1, 2, 1, 2), np.float32)  # channels are neighbours, places are not
    convolution[0, :, 0, 0], convolution[0, :, 0, 1] = (1, 2), (4, -4)
    assert largest_pair(convolution, 0).tolist() == [4.0]


def test_pixels_are_never_clipped(vit_bundle: Path) -> None:
    spec = clipdeploy.load(vit_bundle, backend="onnxruntime").spec.pixels
    found = pixel_range(spec)
    assert found.high == max((1 - m) / s for m, s in zip(spec.mean, spec.std, strict=True))
    assert found.low == min((0 - m) / s for m, s in zip(spec.mean, spec.std, strict=True))


RNG = np.random.default_rng(0)


def constant(name: str, *shape: int, scale: float = 1.0) -> onnx.TensorProto:
    return numpy_helper.from_array((scale * RNG.standard_normal(shape)).astype(np.float32), name)


def write(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    constants: Sequence[onnx.TensorProto],
    shape: Sequence[int | str],
    *,
    opset: int = 19,
) -> tuple[Path, Layer]:
    """A graph from x to y, and its first node as a layer."""
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "small", [given], [made], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    kind = "conv" if nodes[0].op_type == "Conv" else "fc1"
    return path, Layer("small", kind, "small", "product", "x", "w", nodes[0].output[0], 0)


def small_product(path: Path, *, opset: int = 19, bias: float = 1.0) -> tuple[Path, Layer]:
    """A MatMul on three axes and an Add behind it, as Transformers' encoders have them."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="product"),
        helper.make_node("Add", ["b", "m"], ["s"], name="bias"),
        helper.make_node("Relu", ["s"], ["y"], name="relu"),
    ]
    return write(path, nodes, [constant("w", 32, 48), constant("b", 48, scale=bias)], ["batch", 5, 32], opset=opset)


def check_small(source: Path, layer: Layer, target: Path, shape: Sequence[int], *, made_of: str) -> None:
    x = RNG.standard_normal(shape).astype(np.float32)
    needed = ranges_needed(load_graph(source), [layer])
    ranges = {name: Range(-4.5, 4.5) if name == "x" else Range(-8.0, 8.0) for name in needed}
    quantise_cpu(source, target, [layer], ranges)
    onnx.checker.check_model(onnx.load(target), full_check=True)
    expected, found = answer(source, {"x": x}), answer(target, {"x": x})
    assert found.shape == expected.shape
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert 0 < error < 0.02
    assert made_of in fused(target, target.parent)


def test_product_on_three_axes(tmp_path: Path) -> None:
    source, layer = small_product(tmp_path / "a.onnx")
    check_small(source, layer, tmp_path / "b.onnx", (3, 5, 32), made_of="MatMulIntegerToFloat")


def test_bias_far_beyond_32_bits(tmp_path: Path) -> None:
    source, layer = small_product(tmp_path / "a.onnx", bias=1e9)
    x = RNG.standard_normal((2, 5, 32)).astype(np.float32)
    quantise_cpu(source, tmp_path / "b.onnx", [layer], {"x": Range(-4.5, 4.5)})
    np.testing.assert_allclose(answer(tmp_path / "b.onnx", {"x": x}), answer(source, {"x": x}), rtol=1e-5)


def test_bias_of_a_convolution_far_beyond_32_bits() -> None:
    """It is counted in steps of an INT32, so the weights' scale grows until it fits."""
    weights, bias = np.full((1, 4), 1e-6, np.float32), np.array([1e9], np.float32)
    scales, _ = bytes_of_weights(weights, 0, bias, step=0.02)
    steps = np.rint(bias / (scales * 0.02))
    assert 2**29 < steps[0] <= 2**30
    assert bytes_of_weights(weights, 0, None, step=0.02)[0][0] < 1e-6


@pytest.mark.parametrize(("stride", "made_of"), [(2, "MatMulIntegerToFloat"), (1, "QLinearConv")])
def test_convolutions(tmp_path: Path, stride: int, made_of: str) -> None:
    """Windows that tile their input become a product with a float32 result; others stay convolutions."""
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["c"], name="product", strides=[stride, stride])]
    nodes.append(helper.make_node("Sigmoid", ["c"], ["y"], name="after"))
    constants = [constant("w", 16, 8, 2, 2, scale=0.2), constant("b", 16)]
    source, layer = write(tmp_path / "a.onnx", nodes, constants, ["batch", 8, 6, 10])
    check_small(source, layer, tmp_path / "b.onnx", (3, 8, 6, 10), made_of=made_of)


def test_refuses_to_go_without_ranges(tmp_path: Path) -> None:
    source, layer = small_product(tmp_path / "a.onnx")
    with pytest.raises(CalibrationError, match="others in its batch"):
        quantise_cpu(source, tmp_path / "b.onnx", [layer], None)
    with pytest.raises(CalibrationError, match="no range was measured for 'x'"):
        quantise_cpu(source, tmp_path / "b.onnx", [layer], {})
    assert not (tmp_path / "b.onnx").exists()


def test_refuses_graphs_that_do_not_suit(tmp_path: Path) -> None:
    ranges = {"x": Range(-4.0, 4.0)}
    old, layer = small_product(tmp_path / "old.onnx", opset=12)
    with pytest.raises(CalibrationError, match="opset 12"):
        quantise_cpu(old, tmp_path / "b.onnx", [layer], ranges)
    source, layer = small_product(tmp_path / "a.onnx")
    quantise_cpu(source, tmp_path / "b.onnx", [layer], ranges)
    with pytest.raises(CalibrationError, match="quantised already"):
        quantise_cpu(tmp_path / "b.onnx", tmp_path / "c.onnx", [layer], ranges)
    other = Layer("other", "fc1", "other", "elsewhere", "x", "w", "m", 1)
    with pytest.raises(CalibrationError, match="no node 'elsewhere'"):
        quantise_cpu(source, tmp_path / "c.onnx", [other], ranges)
    depthwise = helper.make_node("Conv", ["x", "w"], ["y"], name="product", group=8)
    grouped, layer = write(tmp_path / "g.onnx", [depthwise], [constant("w", 8, 1, 3, 3)], ["batch", 8, 6, 6])
    with pytest.raises(CalibrationError, match="grouped convolution"):
        quantise_cpu(grouped, tmp_path / "c.onnx", [layer], ranges)
    assert not (tmp_path / "c.onnx").exists()


def fused(graph: Path, folder: Path) -> list[str]:
    """The operators that ONNX Runtime makes of a graph."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "fused.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "fused.onnx").graph.node]
