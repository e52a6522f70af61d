"""FP16 and BF16 graphs: which nodes stay float32, where the types change, and that the numbers hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx_ir", reason="quantising needs the extra: pip install 'clipdeploy[export]'")
pytest.importorskip("onnxruntime", reason="running graphs needs the extra: pip install 'clipdeploy[cpu]'")

import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import ShapeInferencePass

from clipdeploy.calibration.half import HalfResult, emulated, tensors_to_measure, to_half
from clipdeploy.errors import CalibrationError, InputError
from clipdeploy.graphs.files import data_path, save_graph
from clipdeploy.spec import Precision
from tests.graph_probe import answer, cosines, largest

FLOAT, FLOAT16, BFLOAT16 = ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16
WIDTH = 16
TYPES = {"float32": "float", "int64": "int64", "int8": "int8"}


def numbers(*shape: int, size: float = 1.0) -> NDArray[np.float32]:
    return (size * np.random.default_rng(sum(shape)).standard_normal(shape)).astype(np.float32)


def one(value: float) -> NDArray[np.float32]:
    return np.array(value, dtype=np.float32)


X = numbers(3, WIDTH)
W = numbers(WIDTH, WIDTH)
GAIN, BIAS = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)


class Graph:
    """A graph from text on disk, and what becomes of it; nodes bear the name of their first output."""

    def __init__(
        self, folder: Path, body: str, *, opset: int = 19, x: NDArray[np.float32] = X, **constants: NDArray
    ) -> None:
        stored = ", ".join(f"{TYPES[str(a.dtype)]}{list(a.shape)} {n}" for n, a in constants.items())
        shape = ", ".join(map(str, ("N", *x.shape[1:])))
        head = f'<ir_version: 10, opset_import: ["": {opset}]> g (float[{shape}] x{stored and ", " + stored})'
        model = ir.from_onnx_text(f"{head} => (float[N, D] y) {{ {body} }}")
        for value in list(model.graph.inputs)[1:]:
            model.graph.inputs.remove(value)
            value.const_value = ir.tensor(constants[str(value.name)], name=value.name)
            model.graph.register_initializer(value)
        for node in model.graph:
            node.name = node.outputs[0].name
        ShapeInferencePass()(model)
        self.source, self.target = folder / "fp32.onnx", folder / "half.onnx"
        ir.save(model, self.source)
        self.x = x
        self.result: HalfResult | None = None

    def convert(
        self,
        precision: Precision = Precision.FP16,
        measured: Mapping[str, float] | None = None,
        keep: tuple[str, ...] = (),
    ) -> dict[str, str]:
        """To half, with ranges of its own input and those given instead; the nodes kept, and why."""
        stats = largest(self.source, {"x": self.x}, tensors_to_measure(self.source)) | dict(measured or {})
        self.result = to_half(self.source, self.target, precision=precision, stats=stats, keep=keep)
        onnx.checker.check_model(str(self.target), full_check=True)
        return dict(self.result.kept)

    @property
    def ops(self) -> list[str]:
        return [node.op_type for node in ir.load(self.target).graph]

    def types(self) -> dict[str, ir.DataType]:
        """Type of each tensor of the result."""
        graph = ir.load(self.target).graph
        values = [*graph.inputs, *graph.initializers.values(), *(v for n in graph for v in n.outputs)]
        return {str(v.name): v.dtype for v in values}

    def error(self) -> float:
        """Largest difference of the emulated half graph from float32, over the largest value."""
        emulated(self.target, self.target.with_name("emulated.onnx"))
        found = answer(self.target.with_name("emulated.onnx"), {"x": self.x})
        expected = answer(self.source, {"x": self.x})
        return float(np.abs(found - expected).max() / np.abs(expected).max())


NORM = "n = ReduceL2 <keepdims=1> (e, axes) c = Clip(n, tiny) y = Div(e, c)"
TINY = {"axes": np.array([-1]), "tiny": one(1e-12)}
LN = "LayerNormalization <axis=-1, epsilon=1e-5>"


def test_a_graph_in_reach_is_half_from_border_to_border(tmp_path: Path) -> None:
    graph = Graph(tmp_path, f"h = Gemm(x, w, b) a = Relu(h) e = MatMul(a, w) {NORM}", w=W, b=BIAS, **TINY)
    assert set(graph.convert()) == {"n", "c", "y"}
    assert graph.ops == ["Cast", "Gemm", "Relu", "MatMul", "Cast", "ReduceL2", "Clip", "Div"]
    types = graph.types()
    assert {types[n] for n in ("w", "b", "h", "a", "e")} == {FLOAT16}
    assert {types[n] for n in ("x", "y", "tiny", "n")} == {FLOAT}
    assert graph.error() < 2e-3
    assert graph.result is not None and (graph.result.converted, graph.result.casts, graph.result.opset) == (3, 2, 19)


def test_what_goes_beyond_the_limit_stays_float32(tmp_path: Path) -> None:
    body = "a = MatMul(x, w) b = MatMul(a, w) c = Mul(b, tall) d = MatMul(c, w) y = Relu(d)"
    graph = Graph(tmp_path, body, w=W, tall=one(1.0))
    assert set(graph.convert(measured={"b": 32000.0, "c": 32000.0, "d": 32000.0})) == set()
    kept = graph.convert(measured={"c": 33000.0})
    assert set(kept) == {"c", "d", "y"} and "c reaches 3.3e+04" in kept["c"]
    assert graph.types()["b"] is FLOAT16 and graph.types()["c"] is FLOAT
    assert {graph.types()["w"], graph.types()["w_fp16"]} == {FLOAT, FLOAT16}  # both types are wanted
    assert graph.error() < 5e-3
    assert "c reaches inf" in graph.convert(measured={"c": float("nan")})["c"]
    assert set(graph.convert(Precision.BF16, measured={"c": 1e30})) == set()


BLOCK = "l{i} = {ln} ({s}, g, o) f{i} = MatMul(l{i}, w) r{i} = Relu(f{i}) p{i} = MatMul(r{i}, w) s{i} = Add({s}, p{i})"


def test_residual_stream_is_float32_from_where_it_overflows_and_linears_are_half(tmp_path: Path) -> None:
    blocks = " ".join(BLOCK.format(i=i, s=f"s{i - 1}" if i else "x", ln=LN) for i in range(3))
    graph = Graph(tmp_path, f"{blocks} y = {LN} (s2, g, o)", w=W, g=GAIN, o=BIAS)
    kept = graph.convert(measured={"s0": 20.0, "p1": 20000.0, "s1": 1e5, "s2": 1e5})
    assert set(kept) == {"s1", "l2", "s2", "y"}
    types = graph.types()
    assert {types[n] for n in ("w", "l0", "s0", "l1", "p1", "f2", "r2", "p2")} == {FLOAT16}
    assert graph.result is not None and graph.result.casts == 5  # x, s0, p1, l2, p2
    assert graph.error() < 5e-3


def test_a_norm_whose_squares_overflow_or_whose_epsilon_vanishes_stays_float32(tmp_path: Path) -> None:
    graph = Graph(tmp_path, f"h = MatMul(x, w) l = {LN} (h, g, o) y = MatMul(l, w)", w=W, g=GAIN, o=BIAS)
    assert graph.convert(measured={"h": 180.0}) == {}
    assert "squares of h reach" in graph.convert(measured={"h": 182.0})["l"]
    assert graph.ops == ["Cast", "MatMul", "Cast", "LayerNormalization", "Cast", "MatMul", "Cast"]
    tiny = LN.replace("1e-5", "1e-12")
    graph = Graph(tmp_path, f"h = MatMul(x, w) l = {tiny} (h, g, o) y = MatMul(l, w)", w=W, g=GAIN, o=BIAS)
    assert "epsilon" in graph.convert()["l"]
    assert graph.convert(Precision.BF16) == {}


def test_a_norm_written_out_stays_float32_and_what_follows_is_half(tmp_path: Path) -> None:
    body = (
        "h = MatMul(x, w) m = ReduceMean <keepdims=1> (h, axes) d = Sub(h, m) q = Mul(d, d)"
        "v = ReduceMean <keepdims=1> (q, axes) t = Add(v, eps) r = Sqrt(t) n = Div(d, r) k = Mul(n, g) y = MatMul(k, w)"
    )
    graph = Graph(tmp_path, body, w=W, g=GAIN, eps=one(1e-5), axes=np.array([-1]))
    assert {"q", "v", "t", "r", "n"} <= set(graph.convert()) <= {"m", "d", "q", "v", "t", "r", "n", "k"}
    assert graph.types()["h"] is FLOAT16


def test_sums_inside_a_reduction_count(tmp_path: Path) -> None:
    pool = "h = MatMul(x, w) p = ReduceMean <keepdims=0> (h, axes) y = MatMul(p, w)"
    graph = Graph(tmp_path, pool, x=numbers(2, 50, WIDTH), w=W, axes=np.array([1]))
    assert graph.convert(measured={"h": 600.0}) == {}
    assert "sums of h" in graph.convert(measured={"h": 700.0})["p"]


def test_weights_too_large_or_too_small_stay_float32_and_lonely_tiny_ones_do_not(tmp_path: Path) -> None:
    for size, stays in ((1e5, True), (1.0, False), (1e-7, True), (1e-2, False)):
        graph = Graph(tmp_path, "y = MatMul(x, w)", w=W / np.abs(W).max() * np.float32(size))
        assert ("y" in graph.convert(measured={"y": 10 * size if size < 1 else 1000.0})) is stays
    some = W.copy()
    some[0, :3] = 1e-9
    assert Graph(tmp_path, "y = MatMul(x, w)", w=some).convert() == {}
    some[0] = 3.1e-8  # an input of large activations that speaks softly
    graph = Graph(tmp_path, "y = MatMul(x, w)", w=some)
    assert graph.convert(measured={"x": 20000.0, "y": 5.0}) == {}
    assert "w is too small for fp16" in graph.convert(measured={"x": 20000.0, "y": 0.05})["y"]
    bias = np.full(WIDTH, 1e-9, np.float32)
    assert Graph(tmp_path, "y = Gemm(x, w, b)", w=W, b=bias).convert() == {}
    assert "eps" in Graph(tmp_path, "h = Add(x, eps) y = MatMul(h, w)", w=W, eps=one(1e-9)).convert()["h"]


def test_cheap_nodes_between_float32_ones_add_no_casts(tmp_path: Path) -> None:
    body = (
        "a = MatMul(x, w) s = Div(a, root) e = Erf(s) i = Add(e, one_) m = Mul(a, i) b = MatMul(m, w) y = MatMul(b, w)"
    )
    graph = Graph(tmp_path, body, w=W, root=one(1.414), one_=one(1.0))
    assert set(graph.convert(keep=("a", "b"))) == {"a", "s", "e", "i", "m", "b"}
    assert graph.ops.count("Cast") == 2
    assert set(graph.convert(keep=("a",))) == {"a"}  # a Cast either way


def test_one_cast_serves_all_who_want_it(tmp_path: Path) -> None:
    graph = Graph(tmp_path, "a = MatMul(x, w) b = MatMul(x, w) c = MatMul(x, w) d = Sum(a, b, c) y = MatMul(d, w)", w=W)
    graph.convert(keep=("d",))
    assert graph.ops.count("Cast") == 1 + 3 + 1 + 1


def test_layout_follows_its_neighbours_and_masks_become_half(tmp_path: Path) -> None:
    body = (
        "b = Cast <to=9> (seen) c = Cast <to=1> (b) q = Mul(c, low) t = Transpose <perm=[1, 0]> (x)"
        "u = Transpose <perm=[1, 0]> (t) h = MatMul(u, w) z = Add(h, q) y = Softmax <axis=-1> (z)"
    )
    graph = Graph(tmp_path, body, w=W, seen=np.arange(WIDTH) % 2, low=one(-1e4))
    assert graph.convert() == {}
    assert graph.types()["q"] is FLOAT16 and graph.types()["c"] is FLOAT16
    assert [op for op in graph.ops if op == "Cast"] == ["Cast"] * 4  # two of the mask, two at the borders
    assert graph.error() < 2e-3


def test_an_infinite_mask_is_a_number_of_every_format(tmp_path: Path) -> None:
    mask = np.where(np.arange(WIDTH) % 2, 0, -np.inf).astype(np.float32)
    graph = Graph(tmp_path, "h = MatMul(x, w) z = Add(h, mask) y = Softmax <axis=-1> (z)", w=W, mask=mask)
    assert graph.convert(measured={"z": 10.0}) == {}


def test_embedding_tables_and_ids(tmp_path: Path) -> None:
    body = "i = Cast <to=7> (x) t = Gather <axis=0> (table, i) r = ReduceMean <keepdims=0> (t, axes) y = MatMul(r, w)"
    graph = Graph(tmp_path, body, table=numbers(9, WIDTH), w=W, axes=np.array([1]), x=np.abs(numbers(3, 5)))
    assert graph.convert() == {}
    assert graph.types()["table"] is FLOAT16 and graph.types()["i"] is ir.DataType.INT64


def test_a_table_is_half_even_where_that_takes_a_cast(tmp_path: Path) -> None:
    body = (
        f"i = Cast <to=7> (x) t = Gather <axis=0> (table, i) l = {LN} (t, g, o) y = ReduceMean <keepdims=0> (l, axes)"
    )
    more = {"axes": np.array([1]), "g": GAIN, "o": BIAS, "x": np.abs(numbers(3, 5))}
    for rows, dtype in ((9, FLOAT), (512, FLOAT16)):
        graph = Graph(tmp_path, body, table=numbers(rows, WIDTH), **more)
        assert "kept on request" in graph.convert(keep=("l",))["l"]
        assert graph.types()["table"] is dtype


IMAGE = numbers(2, 3, 4, 4)
CONV = "c = Conv <kernel_shape=[4, 4]> (x, k) f = Flatten(c) y = MatMul(f, w)"


def test_bf16_raises_the_opset_where_an_operator_needs_it(tmp_path: Path) -> None:
    graph = Graph(tmp_path, CONV, x=IMAGE, k=numbers(WIDTH, 3, 4, 4), w=W)
    assert graph.convert(Precision.BF16) == {} and graph.result is not None and graph.result.opset == 22
    assert graph.types()["k"] is BFLOAT16
    assert graph.error() < 3e-2
    graph.convert(Precision.FP16)
    assert graph.result.opset == 19
    old = Graph(tmp_path, CONV, opset=17, x=IMAGE, k=numbers(WIDTH, 3, 4, 4), w=W)
    assert old.convert(Precision.BF16) == {"c": "Conv takes no bf16 in this opset"}
    assert old.result is not None and old.result.opset == 17
    linear = Graph(tmp_path, "y = MatMul(x, w)", w=W)
    linear.convert(Precision.BF16)
    assert linear.result is not None and linear.result.opset == 19


QDQ = (
    "a = MatMul(x, m) q = QuantizeLinear(a, sx, zero) d = DequantizeLinear(q, sx, zero)"
    "v = DequantizeLinear <axis=0> (w, sw, zeros) h = Gemm <transB=1> (d, v, b) y = Relu(h)"
)


def quantised(folder: Path, opset: int = 19, scale: float = 0.01) -> Graph:
    w = np.clip(np.round(W * 40), -127, 127).astype(np.int8)
    return Graph(
        folder, QDQ, opset=opset, m=W, w=w, b=BIAS, zero=np.zeros((), np.int8), zeros=np.zeros(WIDTH, np.int8),
        sx=one(np.float16(0.03)), sw=np.full(WIDTH, np.float16(scale), np.float32),
    )  # fmt: skip


def test_q_and_dq_become_half_and_int8_weights_stay(tmp_path: Path) -> None:
    graph = quantised(tmp_path)
    assert graph.convert() == {}
    types = graph.types()
    assert {types[n] for n in ("sx", "sw", "d", "v", "h")} == {FLOAT16} and types["w"] is ir.DataType.INT8
    assert graph.ops == ["Cast", "MatMul", "QuantizeLinear", *["DequantizeLinear"] * 2, "Gemm", "Relu", "Cast"]
    assert graph.error() < 2e-3
    assert quantised(tmp_path).convert(Precision.BF16) == {}


def test_dq_of_a_kept_layer_stay_float32(tmp_path: Path) -> None:
    graph = quantised(tmp_path)
    assert set(graph.convert(measured={"h": 1e5})) == {"d", "v", "h", "y"}
    assert graph.ops.count("Cast") == 1  # behind it all is float32


def test_steps_that_half_cannot_hold_stay_float32(tmp_path: Path) -> None:
    graph = quantised(tmp_path)
    model = ir.load(graph.source)
    model.graph.initializers["sw"].const_value = ir.tensor(np.full(WIDTH, 1.3e-6, np.float32), name="sw")
    ir.save(model, graph.source)
    assert "sw is too small for fp16" in graph.convert()["v"]


def test_old_opsets_have_no_half_scales(tmp_path: Path) -> None:
    kept = quantised(tmp_path, opset=17).convert()
    assert "QuantizeLinear takes no fp16" in kept["q"]


def test_emulation_shows_the_overflow_that_onnxruntime_hides(tmp_path: Path) -> None:
    body = "h = MatMul(x, w) a = Mul(h, tall) b = Mul(a, tall) c = Div(b, tall) d = Div(c, tall) y = MatMul(d, w)"
    graph = Graph(tmp_path, body, w=W, tall=one(1000.0))
    graph.convert(measured=dict.fromkeys("habcdy", 1.0))
    assert np.isfinite(answer(graph.target, {"x": X})).all()
    emulated(graph.target, tmp_path / "spelled.onnx")
    assert not np.isfinite(answer(tmp_path / "spelled.onnx", {"x": X})).all()


def test_emulation_rounds_as_the_format_does(tmp_path: Path) -> None:
    third = np.eye(WIDTH, dtype=np.float32) / 3
    graph = Graph(tmp_path, "h = MatMul(x, w) y = Identity(h)", w=third)
    for precision, dtype in ((Precision.FP16, FLOAT16), (Precision.BF16, BFLOAT16)):
        graph.convert(precision)
        assert emulated(graph.target, tmp_path / "spelled.onnx") == 2
        half = dtype.numpy()
        rounded = X.astype(half).astype(np.float32) @ third.astype(half).astype(np.float32)
        np.testing.assert_array_equal(
            answer(tmp_path / "spelled.onnx", {"x": X}), rounded.astype(half).astype(np.float32)
        )


def test_only_what_does_not_follow_is_measured(tmp_path: Path) -> None:
    body = f"h = Gemm(x, w, b) t = Transpose(h) r = Relu(t) a = Transpose(r) e = MatMul(a, w) {NORM}"
    graph = Graph(tmp_path, body, w=W, b=BIAS, **TINY)
    assert tensors_to_measure(graph.source) == ("h", "e", "n", "c", "y")


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    graph = Graph(tmp_path, "h = MatMul(x, w) y = Relu(h)", w=W)
    with pytest.raises(CalibrationError, match="no range of 'h' was measured"):
        to_half(graph.source, graph.target, precision=Precision.FP16, stats={"y": 1.0})
    with pytest.raises(InputError, match="no node named 'nowhere'"):
        graph.convert(keep=("nowhere",))
    with pytest.raises(InputError, match="int8 is no format of 16 bits"):
        graph.convert(Precision.INT8)
    assert not graph.target.exists()


def test_source_may_be_the_target(tmp_path: Path) -> None:
    graph = Graph(tmp_path, "y = MatMul(x, w)", w=numbers(WIDTH, 512))
    before = graph.source.stat().st_size
    to_half(graph.source, graph.source, precision=Precision.FP16, stats={"y": 10.0})
    assert graph.source.stat().st_size < 0.55 * before


def test_weights_beside_the_graph_are_read_and_replaced(tmp_path: Path) -> None:
    graph = Graph(tmp_path, "y = MatMul(x, w)", w=numbers(WIDTH, 512))
    expected = answer(graph.source, {"x": X})
    save_graph(ir.load(graph.source), graph.source, inline_limit_bytes=100)
    assert data_path(graph.source).exists()
    to_half(graph.source, graph.source, precision=Precision.FP16, stats={"y": 20.0})
    assert not data_path(graph.source).exists()
    np.testing.assert_allclose(answer(graph.source, {"x": X}), expected, atol=0.02)


@pytest.mark.parametrize(("model", "tower"), [("rn", "visual"), ("vit", "visual"), ("vit", "textual")])
def test_towers_of_the_shipped_models(request: pytest.FixtureRequest, tmp_path: Path, model: str, tower: str) -> None:
    bundle: Path = request.getfixturevalue({"rn": "demo_bundle", "vit": "vit_bundle"}[model])
    source, target = bundle / f"{tower}.onnx", tmp_path / f"{tower}_half.onnx"
    golden = np.load(bundle / "golden" / "golden.npz")
    if tower == "visual":
        feeds = {"pixel_values": (golden["crops"].astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2).copy()}
    else:
        feeds = {"input_ids": golden["input_ids"]}
    stats, expected = largest(source, feeds, tensors_to_measure(source)), answer(source, feeds)
    for precision, floor in ((Precision.FP16, 0.99999), (Precision.BF16, 0.9995)):
        result = to_half(source, target, precision=precision, stats=stats)
        onnx.checker.check_model(str(target), full_check=True)
        emulated(target, tmp_path / "emulated.onnx")
        assert cosines(answer(tmp_path / "emulated.onnx", feeds), expected).min() > floor
        assert [reason.split(":")[0] for _, reason in result.kept] == ["norm"] * 3
        left = [v for v in ir.load(target).graph.initializers.values() if v.dtype is FLOAT]
        assert [v.const_value.numpy().size for v in left] == [1]  # the epsilon of the L2 norm
        assert target.stat().st_size < 0.51 * source.stat().st_size
    to_half(source, target, precision=Precision.FP16, stats=stats)
    assert cosines(answer(target, feeds), expected).min() > 0.9999
