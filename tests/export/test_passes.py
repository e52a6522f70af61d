"""Each pass alone, on the smallest graph that needs it, and on near misses that it must leave alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("onnx_ir", reason="exporting needs the extra: pip install 'clipdeploy[export]'")
pytest.importorskip("onnxruntime", reason="running graphs needs the extra: pip install 'clipdeploy[cpu]'")

import onnx_ir as ir
import onnxruntime
from onnx_ir.passes.common import ShapeInferencePass

from clipdeploy.export.graph.passes.finite_masks import finite_masks
from clipdeploy.export.graph.passes.fold_scale import fold_scale
from clipdeploy.export.graph.passes.gelu_order import gelu_order
from clipdeploy.export.graph.passes.slices_to_split import slices_to_split

HEADER = '<ir_version: 8, opset_import: ["": 19]>'
WIDTH = 4


def graph(body: str, given: str = "float[N, 4] x", gives: str = "float[N, 4] y", **constants: np.ndarray) -> ir.Model:
    """A graph from text; `constants` are stored in it, with the shapes of all values known."""
    types = {"float32": "float", "int64": "int64"}
    stored = ", ".join(f"{types[str(a.dtype)]}{list(a.shape)} {n}" for n, a in constants.items())
    model = ir.from_onnx_text(f"{HEADER} g ({given}, {stored}) => ({gives}) {{ {body} }}")
    for value in list(model.graph.inputs)[1:]:
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(constants[str(value.name)], name=value.name)
        model.graph.register_initializer(value)
    ShapeInferencePass()(model)
    return model


def run(model: ir.Model, *shape: int) -> list[np.ndarray]:
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x})  # type: ignore[no-any-return]


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def check(make: Callable[[], ir.Model], apply: Callable[[ir.Model], int], after: list[str], *shape: int) -> None:
    """Once: the same numbers from the operators named. Twice: nothing more to do."""
    model = make()
    before = run(model, *shape)
    assert apply(model) > 0
    assert kinds(model) == after
    for found, expected in zip(run(model, *shape), before, strict=True):
        assert np.abs(found - expected).max() <= 1e-6 * max(1.0, np.abs(expected).max())
    assert apply(model) == 0


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def scalar(value: float) -> np.ndarray:
    return np.array(value, dtype=np.float32)


MASK = "a = Where(seen, zero, low) b = Unsqueeze(a, axis) c = Add(x, b) y = Softmax <axis=-1> (c)"


def masked(body: str = MASK, low: float = float(np.finfo(np.float32).min)) -> ir.Model:
    return graph(
        f"seen = Cast <to=9> (visible) {body}",
        visible=np.array([1, 0, 1, 0]), zero=scalar(0), low=scalar(low), axis=np.array([0]), axes=np.array([-1]),
    )  # fmt: skip


@pytest.mark.parametrize("low", [float(np.finfo(np.float32).min), -np.inf])
def test_finite_masks(low: float) -> None:
    check(lambda: masked(low=low), finite_masks, ["Cast", "Where", "Unsqueeze", "Add", "Softmax"], 3, WIDTH)
    model = masked(low=low)
    finite_masks(model)
    assert model.graph.initializers["low"].const_value.numpy() == np.float32(-1e4)


@pytest.mark.parametrize(
    "other",
    [
        lambda: masked(low=-1e4),
        lambda: masked(MASK.replace("Softmax <axis=-1> (c)", "Clip(c, low)")),  # no attention
        lambda: masked("a = Where(seen, x, low) b = ReduceMax(a, axes) c = Sub(x, b) y = Softmax <axis=-1> (c)"),
    ],
)
def test_finite_masks_leaves_alone(other: Callable[[], ir.Model]) -> None:
    model = other()
    before = run(model, 3, WIDTH)
    assert finite_masks(model) == 0
    assert np.array_equal(run(model, 3, WIDTH)[0], before[0])


GELU = "a = Div(x, r) b = Erf(a) c = Add(b, one) d = Mul(c, half) y = Mul(d, x)"


def gelu(body: str = GELU, half: float = 0.5) -> ir.Model:
    return graph(body, r=scalar(2**0.5), one=scalar(1.0), half=scalar(half))


def test_gelu_order() -> None:
    check(gelu, gelu_order, ["Div", "Erf", "Add", "Mul", "Mul"], 3, WIDTH)
    model = gelu()
    gelu_order(model)
    first, second = list(model.graph)[-2:]
    assert "x" in [v.name for v in first.inputs]
    assert "half" in [v.name for v in second.inputs]


@pytest.mark.parametrize(
    "other",
    [
        lambda: gelu(half=0.25),
        lambda: gelu(GELU.replace("Mul(d, x)", "Mul(d, a)")),
        lambda: gelu("a = Div(x, r) b = Erf(a) c = Add(b, one) d = Mul(c, half) e = Mul(d, x) y = Add(e, d)"),
        lambda: gelu("a = Div(x, r) b = Erf(a) c = Add(b, one) d = Mul(c, x) y = Mul(d, half)"),
    ],
)
def test_gelu_order_leaves_alone(other: Callable[[], ir.Model]) -> None:
    model = other()
    before = run(model, 3, WIDTH)
    assert gelu_order(model) == 0
    assert np.array_equal(run(model, 3, WIDTH)[0], before[0])


def test_fold_scale_into_matmul_and_bias() -> None:
    def make() -> ir.Model:
        return graph(
            "a = MatMul(x, w) b = Add(a, v) y = Mul(b, g)",
            given="float[N, 2, 4] x", gives="float[N, 2, 5] y",
            w=numbers(4, 5), v=numbers(5), g=numbers(5),
        )  # fmt: skip

    check(make, fold_scale, ["MatMul", "Add"], 3, 2, 4)


@pytest.mark.parametrize("transposed", [0, 1])
def test_fold_scale_into_gemm_through_layout(transposed: int) -> None:
    def make() -> ir.Model:
        return graph(
            f"a = Gemm <transB={transposed}> (x, w, v) b = Reshape(a, s) "
            "c = Transpose <perm=[0, 3, 1, 2]> (b) y = Mul(g, c)",
            gives="float[M, 5, 2, 2] y",
            w=numbers(5, 4) if transposed else numbers(4, 5), v=numbers(5),
            s=np.array([-1, 2, 2, 5]), g=numbers(1, 5, 1, 1),
        )  # fmt: skip

    check(make, fold_scale, ["Gemm", "Reshape", "Transpose"], 8, 4)


def test_fold_scale_into_conv() -> None:
    def make() -> ir.Model:
        return graph(
            "a = Conv (x, w, v) y = Mul(a, g)",
            given="float[N, 3, 4, 4] x", gives="float[N, 5, 4, 4] y",
            w=numbers(5, 3, 1, 1), v=numbers(5), g=numbers(5, 1, 1),
        )  # fmt: skip

    check(make, fold_scale, ["Conv"], 2, 3, 4, 4)


@pytest.mark.parametrize(
    ("body", "scale"),
    [
        ("a = MatMul(x, w) y = Mul(a, g)", numbers(3, 1)),  # varies along the rows
        ("a = MatMul(x, w) y = Mul(a, a)", numbers(4)),  # no constant
        ("a = MatMul(x, w) b = Mul(a, g) y = Add(a, b)", numbers(4)),  # the unscaled result is used too
        ("a = MatMul(x, w) b = Mul(a, g) y = MatMul(b, w)", numbers(4)),  # the weight is used too
        ("a = MatMul(x, w) b = Reshape(a, s) y = Mul(b, g)", numbers(4)),  # the channels are mixed
    ],
)
def test_fold_scale_leaves_alone(body: str, scale: np.ndarray) -> None:
    constants = {"w": numbers(4, 4), "g": scale} | ({"s": np.array([4, -1])} if "Reshape" in body else {})
    gives = "float[4, M] y" if "Reshape" in body else "float[N, 4] y"
    rows = 4 if "Reshape" in body else 3
    model = graph(body, gives=gives, **constants)
    before = run(model, rows, WIDTH)
    assert fold_scale(model) == 0
    assert np.array_equal(run(model, rows, WIDTH)[0], before[0])


def sliced(*ranges: tuple[int, int], axis: int = 1, steps: bool = False) -> ir.Model:
    cuts = {f"{name}{i}": np.array([value]) for i, r in enumerate(ranges) for name, value in zip("se", r, strict=True)}
    more = {"axis": np.array([axis])} | ({"two": np.array([2])} if steps else {})
    body = " ".join(f"y{i} = Slice(x, s{i}, e{i}, axis{', two' if steps else ''})" for i in range(len(ranges)))
    gives = ", ".join(f"float[N, M{i}] y{i}" for i in range(len(ranges)))
    return graph(body, gives=gives, **cuts, **more)


def test_slices_to_split() -> None:
    check(lambda: sliced((0, 1), (1, 3), (3, 4)), slices_to_split, ["Split"], 3, WIDTH)
    check(lambda: sliced((2, 2**62), (0, 2)), slices_to_split, ["Split"], 3, WIDTH)
    model = sliced((0, 1), (1, 3), (3, 4))
    slices_to_split(model)
    assert [tuple(out.shape)[1] for out in run(model, 3, WIDTH)] == [1, 2, 1]


@pytest.mark.parametrize(
    "other",
    [
        lambda: sliced((0, 2), (3, 4)),  # a gap
        lambda: sliced((0, 2), (1, 4)),  # an overlap
        lambda: sliced((0, 4)),  # one slice
        lambda: sliced((0, 2), (2, 4), steps=True),
        lambda: sliced((0, 1), (1, 4), axis=0),  # along an axis of unknown size
    ],
)
def test_slices_to_split_leaves_alone(other: Callable[[], ir.Model]) -> None:
    model = other()
    assert slices_to_split(model) == 0
    assert set(kinds(model)) == {"Slice"}
