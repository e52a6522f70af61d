"""The hard checkpoint is the demo model still, and what large CLIPs do to naive quantisers it does too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="exporting needs the extra: pip install 'clipdeploy[export]'")
pytest.importorskip("onnxruntime", reason="running graphs needs the extra: pip install 'clipdeploy[cpu]'")

import onnx_ir as ir
from numpy.typing import NDArray

import clipdeploy
from clipdeploy.bundle import Bundle
from clipdeploy.calibration.half import emulated, tensors_to_measure, to_half
from clipdeploy.demo.captions import TEMPLATE, class_name
from clipdeploy.demo.paint import render
from clipdeploy.demo.world import PAIRS, sample_scene
from clipdeploy.spec import Precision
from tests.graph_probe import answer, cosines, float_outputs, largest
from tests.hard_checkpoint import NEURON_PEAK, STREAM_PEAK, HardRecipe, make_hard_bundle

PICTURES = 120


@dataclass(frozen=True)
class Hard:
    """Both image graphs, pictures, and the texts of all classes.

    Attributes:
        pixels: (PICTURES, 3, H, W), one picture a class.
        texts: (PICTURES, D), the class of each picture.
    """

    easy: Path
    folder: Path
    recipe: HardRecipe
    pixels: NDArray[np.float32]
    texts: NDArray[np.float32]
    expected: NDArray[np.float32]

    @property
    def graph(self) -> Path:
        return self.folder / "visual.onnx"

    def ask(self, graph: Path) -> NDArray[np.float32]:
        return answer(graph, {"pixel_values": self.pixels})

    def top1(self, embeds: NDArray[np.float32]) -> float:
        """Share of pictures whose class is found."""
        return float(((np.nan_to_num(embeds) @ self.texts.T).argmax(1) == np.arange(PICTURES)).mean())


@pytest.fixture(scope="module")
def hard(vit_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Hard:
    folder = tmp_path_factory.mktemp("hard") / "bundle"
    pictures = [
        render(sample_scene(np.random.default_rng([5, i]), pair=pair, clear=True)) for i, pair in enumerate(PAIRS)
    ]
    with clipdeploy.load(vit_bundle, backend="onnxruntime") as clip:
        texts = clip.encode_text([TEMPLATE.format(class_name(pair)) for pair in PAIRS])
        pixels = clip.images(pictures)
    recipe = make_hard_bundle(vit_bundle, folder, probe=pixels[:32])
    easy = vit_bundle / "visual.onnx"
    return Hard(easy, folder, recipe, pixels, texts, answer(easy, {"pixel_values": pixels}))


def test_function_stays(hard: Hard) -> None:
    found = hard.ask(hard.graph)
    assert cosines(found, hard.expected).min() > 0.9999999
    assert hard.top1(found) == hard.top1(hard.expected) > 0.8


def test_copy_is_a_bundle_whose_files_check_out(hard: Hard) -> None:
    assert Bundle.open(hard.folder).manifest.files["visual.onnx"].size_bytes == hard.graph.stat().st_size


def test_it_has_what_the_recipe_says(hard: Hard) -> None:
    model = ir.load(hard.graph)
    norms = [n.outputs[0].name for n in model.graph if n.op_type == "LayerNormalization"]
    seen = float_outputs(hard.graph, {"pixel_values": hard.pixels[:8]}, norms)
    outlying = [np.abs(x).reshape(-1, x.shape[-1]).max(0) for x in seen.values()]
    assert sum(bool(x.max() > 20 * np.median(x)) for x in outlying) >= len(hard.recipe.outliers)
    down = [n.inputs[0].name for n in model.graph if n.op_type == "Gemm" and n.inputs[0].producer().op_type == "Mul"]
    peaks = largest(hard.graph, {"pixel_values": hard.pixels[:32]}, down)
    assert sum(peak > 0.9 * NEURON_PEAK for peak in peaks.values()) == len(hard.recipe.neurons) == len(down) - 1
    assert hard.recipe.stream_peak >= STREAM_PEAK


def test_the_same_seed_makes_the_same_graph(hard: Hard, vit_bundle: Path, tmp_path: Path) -> None:
    recipe = make_hard_bundle(vit_bundle, tmp_path / "again", probe=hard.pixels[:32])
    assert recipe == hard.recipe
    assert (tmp_path / "again" / "visual.onnx").read_bytes() == hard.graph.read_bytes()
    other = make_hard_bundle(vit_bundle, tmp_path / "other", seed=1, probe=hard.pixels[:32])
    assert other.outliers != hard.recipe.outliers


def test_naive_int8_collapses_on_it_and_not_on_the_easy_one(hard: Hard, tmp_path: Path) -> None:
    easy = hard.ask(naive_int8(hard.easy, hard.pixels[:32], tmp_path / "easy.onnx"))
    assert cosines(easy, hard.expected).mean() > 0.98
    found = hard.ask(naive_int8(hard.graph, hard.pixels[:32], tmp_path / "hard.onnx"))
    assert cosines(found, hard.expected).mean() < 0.7
    assert hard.top1(found) < 0.5 * hard.top1(hard.expected)


def test_naive_fp16_overflows_on_it_and_not_on_the_easy_one(hard: Hard, tmp_path: Path) -> None:
    assert np.isfinite(hard.ask(naive_fp16(hard.easy, tmp_path / "easy.onnx"))).all()
    assert not np.isfinite(hard.ask(naive_fp16(hard.graph, tmp_path / "hard.onnx"))).any()


def test_half_holds_it(hard: Hard, tmp_path: Path) -> None:
    measured = largest(hard.graph, {"pixel_values": hard.pixels[:32]}, tensors_to_measure(hard.graph))
    for precision, floor in ((Precision.FP16, 0.99999), (Precision.BF16, 0.999)):
        graph = tmp_path / f"{precision.value}.onnx"
        result = to_half(hard.graph, graph, precision=precision, stats=measured)
        emulated(graph, tmp_path / "emulated.onnx")
        assert cosines(hard.ask(tmp_path / "emulated.onnx"), hard.expected).min() > floor
        products = {n.name for n in ir.load(hard.graph).graph if n.op_type in ("Gemm", "MatMul", "Conv")}
        assert len(products & {name for name, _ in result.kept}) <= 2  # what overflows is the stream between them


def naive_fp16(source: Path, target: Path) -> Path:
    """Every float32 constant and tensor as FP16, spelled out for an engine that computes it in float32."""
    model = ir.load(source)
    graph = model.graph
    for value in graph.initializers.values():
        if value.dtype == ir.DataType.FLOAT:
            value.const_value = ir.tensor(value.const_value.numpy().astype(np.float16), name=value.name)
            value.dtype = ir.DataType.FLOAT16
    for node in graph:
        for value in node.outputs:
            if value.dtype == ir.DataType.FLOAT:
                value.dtype = ir.DataType.FLOAT16
    pixels, (end,) = graph.inputs[0], graph.outputs
    entry = ir.node("Cast", [pixels], attributes={"to": ir.DataType.FLOAT16}, name="entry")
    exit_ = ir.node("Cast", [end], attributes={"to": ir.DataType.FLOAT}, name="exit")
    for cast, name, dtype in ((entry, "pixels_fp16", ir.DataType.FLOAT16), (exit_, end.name, ir.DataType.FLOAT)):
        cast.outputs[0].name, cast.outputs[0].dtype = name, dtype
    end.name = "embeds_fp16"
    for use in [use for use in pixels.uses() if use.node is not entry]:
        use.node.replace_input_with(use.idx, entry.outputs[0])
    graph.insert_before(graph[0], entry)
    graph.append(exit_)
    graph.outputs[0] = exit_.outputs[0]
    ir.save(model, target)
    emulated(target, target)
    return target


def naive_int8(source: Path, pixels: NDArray[np.float32], target: Path) -> Path:
    """Q/DQ at the input and the weight of every Linear, one step size a tensor, ranges from minimum to maximum."""
    model = ir.load(source)
    graph = model.graph
    linears = [n for n in graph if n.op_type in ("Gemm", "MatMul") and n.inputs[1].const_value is not None]
    ranges = largest(source, {"pixel_values": pixels}, sorted({n.inputs[0].name for n in linears}))
    for node in linears:
        weight = node.inputs[1].const_value.numpy()
        step = np.abs(weight).max() / 127
        rounded = (np.round(weight / step) * step).astype(np.float32)
        node.inputs[1].const_value = ir.tensor(rounded, name=node.inputs[1].name)
        name = f"{node.name}_in"
        scale = constant(graph, f"{name}_scale", np.float32(ranges[node.inputs[0].name] / 127))
        zero = constant(graph, f"{name}_zero", np.int8(0))
        quantise = ir.node("QuantizeLinear", [node.inputs[0], scale, zero], name=f"{name}_q")
        restore = ir.node("DequantizeLinear", [quantise.outputs[0], scale, zero], name=f"{name}_dq")
        node.replace_input_with(0, restore.outputs[0])
        graph.insert_before(node, [quantise, restore])
    ir.save(model, target)
    return target


def constant(graph: ir.Graph, name: str, value: np.generic) -> ir.Value:
    stored = ir.val(name, const_value=ir.tensor(np.array(value), name=name))
    graph.register_initializer(stored)
    return stored
