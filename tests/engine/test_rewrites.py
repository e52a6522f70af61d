"""Rewrites give the numbers that the graph gave, computed by ONNX Runtime on the same inputs."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="running graphs needs the extra: pip install 'clipdeploy[cpu]'")
pytest.importorskip("onnx_ir", reason="rewriting graphs needs the extra: pip install 'clipdeploy[export]'")

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, ShapeInferencePass

from clipdeploy.engine.targets.patterns import PATTERNS
from clipdeploy.engine.targets.rewrites import LOWERINGS, REWRITES
from tests.engine.attention_graphs import feeds, heads, model_text, ops, plain, read, run, sdpa

TOLERANCE = 1e-5


def rewrite(model: ir.Model, name: str) -> int:
    count = REWRITES[name].apply(model)
    RemoveUnusedNodesPass()(model)
    ShapeInferencePass()(model)
    return count


def assert_same(model: ir.Model, name: str, *, tolerance: float = TOLERANCE) -> None:
    given = feeds(model)
    before = run(model, given)
    assert rewrite(model, name) == 1
    after = run(model, given)
    assert after.shape == before.shape and after.dtype == before.dtype
    assert np.abs(after.astype(np.float64) - before).max() <= tolerance
    assert rewrite(model, name) == 0  # once is enough


FLAT = "float[N,5,8] q, float[N,7,8] k, float[N,7,8] v"
ATTENTION = {
    "plain": ("", heads(5, 5), "float[N,2,5,4] y"),
    "cross": ("", heads(3, 7), "float[N,2,3,4] y"),
    "scale": ("<scale = 0.3>", heads(5, 7), "float[N,2,5,4] y"),
    "causal": ("<is_causal = 1>", heads(5, 5), "float[N,2,5,4] y"),
    "mask": ("mask", heads(5, 7) + ", float[5,7] mask", "float[N,2,5,4] y"),
    "boolean mask": ("mask", heads(5, 7) + ", bool[N,1,5,7] mask", "float[N,2,5,4] y"),
    "flat": ("<q_num_heads = 2, kv_num_heads = 2>", FLAT, "float[N,5,8] y"),
}


@pytest.mark.parametrize("form", ATTENTION)
@pytest.mark.parametrize("opset", [23, 24])
def test_attention_written_out(form: str, opset: int) -> None:
    attributes, inputs, outputs = ATTENTION[form]
    values = "q, k, v" + (", mask" if attributes == "mask" else "")
    body = f"y = Attention {attributes.removeprefix('mask')} ({values})"
    model = read(model_text(body, inputs=inputs, outputs=outputs, opset=opset))
    assert_same(model, "explicit_attention")
    assert "Attention" not in ops(model)
    assert ops(model).index("Mul") < ops(model).index("MatMul")  # the scale is on the queries
    assert not PATTERNS["scale_on_both_sides"](model)


def test_attention_in_half_with_a_wide_softmax() -> None:
    body = "y = Attention <softmax_precision = 1> (q, k, v)"
    outputs = "float16[N,2,5,4] y"
    model = read(model_text(body, inputs=heads(5, 5, "float16"), outputs=outputs, opset=23))
    assert_same(model, "explicit_attention", tolerance=2**-9)  # two units of the last place at 1
    assert ops(model)[-4:] == ["Cast", "Softmax", "Cast", "MatMul"]


@pytest.mark.parametrize(
    ("body", "inputs", "outputs"),
    [
        ("y = Attention <softcap = 2.0> (q, k, v)", heads(5, 5), "float[N,2,5,4] y"),
        (
            "y, pk, pv = Attention (q, k, v, , a, b)",
            heads(5, 5) + ", float[N,2,3,4] a, float[N,2,3,4] b",
            "float[N,2,5,4] y",
        ),
        (
            "y = Attention <q_num_heads = 4, kv_num_heads = 2> (q, k, v)",
            "float[N,5,16] q, float[N,5,8] k, float[N,5,8] v",
            "float[N,5,16] y",
        ),
    ],
    ids=["softcap", "past keys", "grouped heads"],
)
def test_attention_that_is_not_plain_stays(body: str, inputs: str, outputs: str) -> None:
    model = read(model_text(body, inputs=inputs, outputs=outputs, opset=23))
    assert rewrite(model, "explicit_attention") == 0
    assert ops(model) == ["Attention"]


def test_the_scale_goes_to_the_queries() -> None:
    model = sdpa()
    assert_same(model, "scale_into_query")
    assert ops(model).count("Mul") == 1
    assert not PATTERNS["scale_on_both_sides"](model)


def test_a_computed_scale_goes_to_the_queries() -> None:
    model = sdpa(dtype="float16")
    assert_same(model, "scale_into_query", tolerance=0.0)  # 0.5 * 0.5 is exact
    assert not PATTERNS["scale_on_both_sides"](model)


@pytest.mark.parametrize("columns", [2, 7, 50])
def test_a_single_row_as_sums(columns: int) -> None:
    model = plain(rows=1, columns=columns)
    assert_same(model, "single_row_as_sums")
    assert "MatMul" not in ops(model)


def test_a_single_row_of_three_axes() -> None:
    body = "scores = MatMul (q, k) w = Softmax <axis = -1> (scores) y = MatMul (w, v)"
    inputs = "float[N,1,4] q, float[N,4,6] k, float[N,6,4] v"
    assert_same(read(model_text(body, inputs=inputs, outputs="float[N,1,4] y")), "single_row_as_sums")


def test_a_single_row_in_half_is_summed_in_float32() -> None:
    model = plain(rows=1, columns=50, dtype="float16")
    given = feeds(model)
    exact = run(plain(rows=1, columns=50), {name: array.astype(np.float32) for name, array in given.items()})
    before = np.abs(run(model, given) - exact).max()
    assert rewrite(model, "single_row_as_sums") == 1
    assert np.abs(run(model, given) - exact).max() <= max(before, 2**-10)
    assert all(node.inputs[0].dtype == ir.DataType.FLOAT for node in model.graph if node.op_type == "ReduceSum")


def test_several_rows_stay() -> None:
    model = plain(rows=5)
    assert rewrite(model, "single_row_as_sums") == 0
    assert ops(model).count("MatMul") == 2


@pytest.mark.parametrize(
    ("body", "opset", "name"),
    [
        ("y = Gelu (x)", 20, "lower_gelu"),
        ('y = Gelu <approximate = "tanh"> (x)', 20, "lower_gelu"),
        ("y = Mish (x)", 18, "lower_mish"),
        ("y = Swish <alpha = 1.702> (x)", 24, "lower_swish"),
        ("y = Swish (x)", 24, "lower_swish"),
        ("y = RMSNormalization <epsilon = 0.001> (x, s)", 23, "lower_rms_norm"),
        ("y = RMSNormalization <axis = 1> (x, s)", 23, "lower_rms_norm"),
    ],
)
@pytest.mark.parametrize("dtype", ["float", "float16"])
def test_operators_of_later_opsets(body: str, opset: int, name: str, dtype: str) -> None:
    scale = f", {dtype}[{'5,6' if 'axis = 1' in body else 6}] s" if "RMS" in body else ""
    model = read(model_text(body, inputs=f"{dtype}[N,5,6] x{scale}", outputs=f"{dtype}[N,5,6] y", opset=opset))
    (operator,) = ops(model)
    assert LOWERINGS[operator] == name
    assert_same(model, name, tolerance=TOLERANCE if dtype == "float" else 2**-8)  # of values up to 4
    assert operator not in ops(model)


def test_gelu_is_written_in_the_order_that_engines_fuse() -> None:
    model = read(model_text("y = Gelu (x)", inputs="float[N,5] x", outputs="float[N,5] y", opset=20))
    rewrite(model, "lower_gelu")
    assert ops(model) == ["Div", "Erf", "Add", "Mul", "Mul"]
    assert model.graph.outputs[0].name == "y"
