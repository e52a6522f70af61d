"""Q/DQ in a graph: the numbers they make, to the last bit, and what is stored."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

pytest.importorskip("onnxruntime", reason="running graphs needs the extra: pip install 'clipdeploy[cpu]'")

from clipdeploy.calibration.accuracy import embeddings
from clipdeploy.calibration.layers import find_layers
from clipdeploy.calibration.placement import place
from clipdeploy.calibration.qdq import FP8_MAX, FP8_OPSET, INT8_MAX, insert_qdq, quantise_weights, step
from clipdeploy.calibration.records import Range
from clipdeploy.calibration.smooth import smooth, smoothable
from clipdeploy.calibration.split import Rows
from clipdeploy.errors import CalibrationError
from clipdeploy.runtime.ort import OrtSession
from clipdeploy.spec import Precision, Tower
from tests.calibration.graphs import pixels, write_mlp_tower
from tests.graph_probe import answer, float_outputs

FORMATS = (Precision.INT8, Precision.FP8)


@pytest.fixture
def tower(tmp_path: Path) -> Path:
    return write_mlp_tower(tmp_path / "tower.onnx", outlier=40.0)


def quantised(source: Path, target: Path, precision: Precision, limit: float = 2.0) -> ir.Model:
    model = ir.load(source)
    layers = [choice.layer for choice in place(model, find_layers(model, Tower.IMAGE)) if choice.quantise]
    assert [layer.name for layer in layers] == [f"blocks.{i}.{fc}" for i in (0, 1) for fc in ("fc1", "fc2")]
    insert_qdq(model, layers, {layer.input: Range(-limit, limit) for layer in layers}, precision=precision)
    ir.save(model, target)
    onnx.checker.check_model(str(target), full_check=True)
    return model


def rounded(values: np.ndarray, scale: np.ndarray, precision: Precision) -> np.ndarray:
    """What 8 bits leave of values, in NumPy."""
    scaled = values / scale
    if precision is Precision.INT8:
        return (np.clip(np.rint(scaled), -128, 127) * scale).astype(np.float32)
    return np.clip(scaled, -FP8_MAX, FP8_MAX).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * scale


@pytest.mark.parametrize("precision", FORMATS)
def test_a_layer_computes_what_numpy_says(tower: Path, tmp_path: Path, precision: Precision) -> None:
    target = tmp_path / "q.onnx"
    quantised(tower, target, precision)
    batch = {"pixel_values": pixels()}
    session = OrtSession(target, fuse_qdq=False)
    assert np.isfinite(session.run(batch["pixel_values"])).all()
    names = ["blocks.0_norm", "blocks.0_norm_dq", "visual.blocks.0.fc1.weight_dq"]
    found = float_outputs(target, batch, names, as_written=True)
    scale = step(2.0, precision)
    np.testing.assert_array_equal(found["blocks.0_norm_dq"], rounded(found["blocks.0_norm"], scale, precision))
    weight = ir.load(tower).graph.initializers["visual.blocks.0.fc1.weight"].const_value.numpy()
    values, scales = quantise_weights(weight, 0, precision)
    expected = values.astype(np.float32) * (scales[:, None] if scales.ndim else scales)
    np.testing.assert_array_equal(found["visual.blocks.0.fc1.weight_dq"], expected)


def test_int8_weights_have_a_scale_a_channel_and_lose_half_a_step() -> None:
    weight = np.random.default_rng(0).standard_normal((6, 40)).astype(np.float32) * np.logspace(-3, 0, 6)[:, None]
    weight = weight.astype(np.float32)
    values, scales = quantise_weights(weight, 0, Precision.INT8)
    assert (values.dtype, values.shape, scales.shape) == (np.int8, (6, 40), (6,))
    assert np.abs(values).max(axis=1).min() >= INT8_MAX - 1  # every channel uses its whole range
    assert (np.abs(values * scales[:, None] - weight).max(axis=1) <= 0.51 * scales).all()
    np.testing.assert_array_equal(scales, scales.astype(np.float16).astype(np.float32))
    other, _ = quantise_weights(weight.T.copy(), 1, Precision.INT8)
    np.testing.assert_array_equal(other, values.T)


def test_fp8_weights_have_one_scale_and_keep_small_numbers() -> None:
    weight = np.array([[448.0, 1.0], [0.5, -3.3]], np.float32)
    values, scale = quantise_weights(weight, 0, Precision.FP8)
    assert (values.dtype, scale.shape, float(scale)) == (ml_dtypes.float8_e4m3fn, (), 1.0)
    np.testing.assert_array_equal(values.astype(np.float32), [[448.0, 1.0], [0.5, -3.25]])


def test_a_channel_of_zeros_and_an_enormous_one() -> None:
    values, scales = quantise_weights(np.array([[0.0, 0.0], [1e7, -1e7]], np.float32), 0, Precision.INT8)
    assert np.isfinite(scales).all() and (scales > 0).all()
    assert values.tolist() == [[0, 0], [127, -127]]


def test_weights_are_stored_in_8_bits_and_the_file_shrinks(tower: Path, tmp_path: Path) -> None:
    model = quantised(tower, tmp_path / "q.onnx", Precision.INT8)
    stored = {name: v.const_value.dtype for name, v in model.graph.initializers.items() if name.endswith("_int8")}
    assert set(stored.values()) == {ir.DataType.INT8} and len(stored) == 4
    assert "visual.blocks.0.fc1.weight" not in model.graph.initializers
    assert "visual.embed.weight" in model.graph.initializers
    assert model.opset_imports[""] == 19


def test_fp8_gets_the_opset_that_tensorrt_asks_for(tower: Path, tmp_path: Path) -> None:
    assert quantised(tower, tmp_path / "q.onnx", Precision.FP8).opset_imports[""] == FP8_OPSET


def test_an_old_opset_is_refused(tmp_path: Path) -> None:
    old = write_mlp_tower(tmp_path / "old.onnx", opset=18)
    with pytest.raises(CalibrationError, match="opset 18; int8 needs 19 or later"):
        quantised(old, tmp_path / "q.onnx", Precision.INT8)


def test_a_range_that_was_not_measured(tower: Path) -> None:
    model = ir.load(tower)
    layers = [choice.layer for choice in place(model, find_layers(model, Tower.IMAGE)) if choice.quantise]
    with pytest.raises(
        CalibrationError, match=r"no range was measured for 'blocks\.0_norm', the input of blocks\.0\.fc1"
    ):
        insert_qdq(model, layers, {}, precision=Precision.INT8)


def test_the_engine_keeps_a_relu_in_front_of_fp8(tmp_path: Path) -> None:
    """ONNX Runtime removes it, taking FP8 for a format without negative numbers; computed as written it must stay."""
    tower, target = write_mlp_tower(tmp_path / "plain.onnx"), tmp_path / "q.onnx"
    quantised(tower, target, Precision.FP8, limit=4.0)
    batch = pixels()
    one = Rows([{"pixel_values": batch}], tuple(range(len(batch))))
    found = embeddings(target, one, fuse_qdq=False)
    cosines = (found * answer(tower, {"pixel_values": batch})).sum(axis=1)
    assert cosines.min() > 0.98


def test_smoothing_leaves_the_function_and_shrinks_the_outlier(tower: Path, tmp_path: Path) -> None:
    model = ir.load(tower)
    layers = [choice.layer for choice in place(model, find_layers(model, Tower.IMAGE)) if choice.quantise]
    names = smoothable(model, layers)
    assert names == ("blocks.0_norm", "blocks.1_norm")
    batch = {"pixel_values": pixels()}
    before = float_outputs(tower, batch, list(names))
    seen = {name: np.abs(values).max(axis=0) for name, values in before.items()}
    told = smooth(model, layers, seen)
    ir.save(model, tmp_path / "smooth.onnx")
    onnx.checker.check_model(str(tmp_path / "smooth.onnx"), full_check=True)
    np.testing.assert_allclose(answer(tmp_path / "smooth.onnx", batch), answer(tower, batch), atol=1e-5, rtol=0)
    after = float_outputs(tmp_path / "smooth.onnx", batch, list(names))
    for name in names:
        spread = [np.abs(values[name]).max() / np.median(np.abs(values[name])) for values in (before, after)]
        assert spread[1] < spread[0] / 4
        np.testing.assert_allclose(np.abs(after[name]).max(axis=0), told[name], rtol=1e-4)


def test_smoothing_spares_a_norm_that_others_read(tower: Path) -> None:
    model = ir.load(tower)
    layers = [choice.layer for choice in place(model, find_layers(model, Tower.IMAGE)) if choice.quantise]
    norm = next(node for node in model.graph if node.name == "blocks.1_norm")
    total = next(node for node in model.graph if node.name == "blocks.1_sum")
    total.replace_input_with(0, norm.outputs[0])
    assert smoothable(model, layers) == ("blocks.0_norm",)
