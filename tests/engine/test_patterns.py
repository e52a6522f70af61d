"""Patterns that some TensorRT miscompiles, found where they are and nowhere else."""

from __future__ import annotations

import pytest

pytest.importorskip("onnx_ir", reason="checking graphs needs the extra: pip install 'clipdeploy[export]'")

import onnx_ir as ir

from clipdeploy.engine.targets.patterns import PATTERNS, attention_blocks
from tests.engine.attention_graphs import heads, model_text, plain, read, sdpa


def found(model: ir.Model) -> set[str]:
    return {name for name, pattern in PATTERNS.items() if pattern(model)}


def test_attention_in_its_forms() -> None:
    assert found(sdpa()) == {"scale_on_both_sides"}
    assert found(sdpa(rows=1, columns=7)) == {"scale_on_both_sides", "single_row_query"}
    assert found(sdpa(dtype="float16")) == {"scale_on_both_sides", "half_attention"}
    assert found(plain(rows=1)) == {"single_row_query"}
    assert found(plain(rows=5)) == set()
    assert found(plain(rows=1, columns=1)) == set()
    operator = model_text("y = Attention (q, k, v)", inputs=heads(5, 5), outputs="float[N,2,5,4] y", opset=23)
    assert found(read(operator)) == {"attention_operator"}


def test_what_may_stand_between_the_products() -> None:
    body = """
        scaled = Mul (q, small)
        scores = MatMul (scaled, k)
        wide = Cast <to = 1> (scores)
        masked = Add (mask, wide)
        weights = Softmax <axis = -1> (masked)
        narrow = Cast <to = 10> (weights)
        y = MatMul (narrow, v)
    """
    inputs = "float16[N,2,5,4] q, float16[N,2,4,5] k, float16[N,2,5,4] v, float[5,5] mask, float16 small"
    model = read(model_text(body, inputs=inputs, outputs="float16[N,2,5,4] y"))
    (block,) = attention_blocks(model)
    assert (block.rows, block.columns) == (5, 5)
    assert found(model) == {"half_attention"}  # the scale is on one side


def test_a_softmax_alone_is_no_attention() -> None:
    body = "logits = MatMul (x, w) y = Softmax <axis = -1> (logits)"
    assert attention_blocks(read(model_text(body, inputs="float[N,4] x, float[4,3] w", outputs="float[N,3] y"))) == ()


def test_a_scale_per_channel_is_not_folded() -> None:
    body = """
        queries = Mul (q, s) keys = Mul (k, s)
        turned = Transpose <perm = [0, 1, 3, 2]> (keys)
        scores = MatMul (queries, turned) weights = Softmax <axis = -1> (scores) y = MatMul (weights, v)
    """
    model = read(model_text(body, inputs=heads(5, 5) + ", float[4] s", outputs="float[N,2,5,4] y"))
    assert found(model) == set()


def test_learned_queries() -> None:
    body = """
        latent = Constant <value = float[1,2,1,4] {1, 2, 3, 4, 5, 6, 7, 8}> ()
        each = Expand (latent, sizes)
        scores = MatMul (each, k) weights = Softmax <axis = -1> (scores) y = MatMul (weights, v)
    """
    inputs = "float[N,2,4,6] k, float[N,2,6,4] v, int64[4] sizes"
    assert found(read(model_text(body, inputs=inputs, outputs="float[N,2,1,4] y"))) >= {"constant_query"}


ROTARY = """
    cos = Constant <value = float[2,2] {CA, CB, CA, CB}> ()
    sin = Constant <value = float[2,2] {SA, SB, SA, SB}> ()
    turned = Neg (x)
    a = Mul (x, cos) b = Mul (sin, turned) y = Add (a, b)
"""


@pytest.mark.parametrize(("sines", "is_rotary"), [((0.6, 1.0), True), ((0.6, 0.6), False)])
def test_rotary_positions(sines: tuple[float, float], is_rotary: bool) -> None:
    body = ROTARY.replace("CA", "0.8").replace("CB", "0.0").replace("SA", str(sines[0])).replace("SB", str(sines[1]))
    model = read(model_text(body, inputs="float[2,2] x", outputs="float[2,2] y"))
    assert found(model) == ({"rotary_positions"} if is_rotary else set())
