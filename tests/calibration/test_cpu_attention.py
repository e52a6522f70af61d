"""Self-attention in one operator: found where it is exactly that, and the same numbers as without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from clipdeploy.bundle import Bundle
from clipdeploy.calibration.cpu import quantise, quantise_cpu
from clipdeploy.calibration.cpu.attention import SelfAttention, self_attention
from clipdeploy.calibration.layers import find_layers
from clipdeploy.calibration.records import Layer, Range
from clipdeploy.graphs.files import load_graph
from clipdeploy.runtime.ort import OrtSession
from clipdeploy.spec import Tower
from tests.graph_probe import answer, cosines

HEADS, WIDTH, LENGTH = 3, 8, 5
INNER = HEADS * WIDTH


def causal(floor: float = -1e4) -> NDArray[np.float32]:
    return np.triu(np.full((LENGTH, LENGTH), floor, np.float32), 1)


def write(
    path: Path,
    *,
    mask: NDArray[np.float32] | None = None,
    bias: bool = True,
    as_matmul: bool = False,
    sharp: float = 1.0,
    change: Callable[[list[onnx.NodeProto], dict[str, np.ndarray]], None] | None = None,
    outputs: tuple[str, ...] = ("y",),
) -> Path:
    """`x` (N, L, D) -> attention as it is exported -> `y` (N * L, D); `sharp` multiplies Q."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((INNER, 3 * INNER)).astype(np.float32) / INNER**0.5
    weight[:, :INNER] *= sharp
    constants = {
        "w": weight if as_matmul else np.ascontiguousarray(weight.T),
        "flat": np.array([-1, INNER]),
        "apart": np.array([-1, LENGTH, 3 * HEADS, WIDTH]),
    }
    if bias:
        constants["b"] = rng.standard_normal(3 * INNER).astype(np.float32)
    if mask is not None:
        constants["mask"] = mask
    node = helper.make_node
    if as_matmul:
        nodes = [node("MatMul", ["x", "w"], ["plain" if bias else "qkv"], name="product")]
        nodes += [node("Add", ["plain", "b"], ["qkv"], name="shift")] if bias else []
    else:
        nodes = [
            node("Reshape", ["x", "flat"], ["rows"], name="rows"),
            node("Gemm", ["rows", "w", *(["b"] if bias else [])], ["qkv"], name="product", transB=1),
        ]
    nodes += [
        node("Reshape", ["qkv", "apart"], ["heads"], name="heads"),
        node("Transpose", ["heads"], ["first"], name="first", perm=[0, 2, 1, 3]),
        node("Split", ["first"], ["q", "k", "v"], name="split", axis=1, num_outputs=3),
        node("Transpose", ["k"], ["kt"], name="turn", perm=[0, 1, 3, 2]),
        node("MatMul", ["q", "kt"], ["scores"], name="scores"),
        *([node("Add", ["scores", "mask"], ["masked"], name="hide")] if mask is not None else []),
        node("Softmax", ["masked" if mask is not None else "scores"], ["p"], name="softmax", axis=-1),
        node("MatMul", ["p", "v"], ["values"], name="values"),
        node("Transpose", ["values"], ["back"], name="back", perm=[0, 2, 1, 3]),
        node("Reshape", ["back", "flat"], ["y"], name="join"),
    ]
    if change is not None:
        change(nodes, constants)
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", LENGTH, INNER])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def found(path: Path) -> SelfAttention | None:
    return self_attention(next(node for node in load_graph(path).graph if node.name == "product"))


def quantised(source: Path, target: Path) -> Path:
    model = onnx.load(source)
    product = next(node for node in model.graph.node if node.name == "product")
    given, made = product.input[0], product.output[0]
    layer = Layer("qkv", "qkv", "block", "product", given, "w", made, 0)
    quantise_cpu(source, target, [layer], {given: Range(-4.0, 4.0)})
    return target


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def unfused(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same layer in 8 bits, the attention behind it left as it is."""
    with monkeypatch.context() as patch:
        patch.setattr(quantise, "self_attention", lambda _: None)
        quantised(source, target)
    assert "QAttention" not in operators(target)
    assert "Softmax" in operators(target)
    return target


@pytest.mark.parametrize("as_matmul", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_same_numbers_as_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_matmul: bool, bias: bool, masked: bool
) -> None:
    source = write(tmp_path / "a.onnx", mask=causal() if masked else None, bias=bias, as_matmul=as_matmul, sharp=4.0)
    fused, plain = quantised(source, tmp_path / "b.onnx"), unfused(source, tmp_path / "c.onnx", monkeypatch)
    assert not {"Softmax", "MatMul", "Gemm", "Split", "Transpose"} & set(operators(fused))
    onnx.checker.check_model(onnx.load(fused), full_check=True)
    x = np.random.default_rng(1).standard_normal((4, LENGTH, INNER)).astype(np.float32)
    both = answer(fused, {"x": x})
    np.testing.assert_allclose(both, answer(plain, {"x": x}), rtol=0, atol=1e-5)
    assert 0.98 < cosines(both, answer(source, {"x": x})).min() < 1
    alone = np.concatenate([answer(fused, {"x": x[i : i + 1]}) for i in range(len(x))])
    np.testing.assert_allclose(alone, both, rtol=0, atol=1e-6)


def test_causal_attention_does_not_see_what_follows(tmp_path: Path) -> None:
    graph = quantised(write(tmp_path / "a.onnx", mask=causal()[None, None]), tmp_path / "b.onnx")
    x = np.random.default_rng(2).standard_normal((1, LENGTH, INNER)).astype(np.float32)
    other = x.copy()
    other[:, 3:] = 2.0
    same, changed = answer(graph, {"x": x}), answer(graph, {"x": other})
    np.testing.assert_array_equal(same[:3], changed[:3])
    assert np.abs(same[3:] - changed[3:]).max() > 0.1


def test_is_found_with_its_sizes(tmp_path: Path) -> None:
    plain, masked = found(write(tmp_path / "a.onnx")), found(write(tmp_path / "b.onnx", mask=causal(-1e9)))
    assert plain is not None and masked is not None
    assert (plain.length, plain.heads, plain.causal) == (LENGTH, HEADS, False)
    assert (masked.length, masked.heads, masked.causal) == (LENGTH, HEADS, True)


def test_sizes_of_a_split_may_be_given(tmp_path: Path) -> None:
    def given(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> None:
        constants["sizes"] = np.array([HEADS] * 3)
        split = next(node for node in nodes if node.name == "split")
        split.input.append("sizes")
        del split.attribute[:]
        split.attribute.append(helper.make_attribute("axis", 1))

    assert found(write(tmp_path / "a.onnx", change=given)) is not None


def _insert(before: str, node: onnx.NodeProto, index: int = 0) -> Callable[..., None]:
    def change(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> None:
        place = next(i for i, each in enumerate(nodes) if each.name == before)
        nodes[place].input[index] = node.output[0]
        nodes.insert(place, node)
        constants["two"] = np.array(2.0, np.float32)

    return change


def _set(name: str, attribute: str, value: object) -> Callable[..., None]:
    def change(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> None:
        node = next(each for each in nodes if each.name == name)
        kept = [each for each in node.attribute if each.name != attribute]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(attribute, value)])

    return change


def _swap(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> None:
    """Keys ask queries."""
    by_name = {node.name: node for node in nodes}
    by_name["turn"].input[0], by_name["scores"].input[0] = "q", "k"


def _both_roles(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> None:
    """Keys are values too."""
    next(node for node in nodes if node.name == "values").input[1] = "k"


def _copied_size(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> None:
    """The last Reshape takes the number of samples from its input."""
    constants["joined"] = np.array([0, -1, INNER])
    next(node for node in nodes if node.name == "join").input[1] = "joined"


def _mul(source: str) -> onnx.NodeProto:
    return helper.make_node("Mul", [source, "two"], ["more"], name="more")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_insert("softmax", _mul("scores")), id="scaled scores"),
        pytest.param(_insert("scores", _mul("q")), id="something on the queries"),
        pytest.param(_insert("turn", _mul("k")), id="something on the keys"),
        pytest.param(_insert("values", _mul("v"), 1), id="something on the values"),
        pytest.param(_insert("join", _mul("back")), id="something on what heads give"),
        pytest.param(_set("softmax", "axis", 2), id="softmax over queries"),
        pytest.param(_swap, id="keys ask queries"),
        pytest.param(_both_roles, id="keys are values"),
        pytest.param(_copied_size, id="a shape that is copied"),
    ],
)
def test_anything_else_is_not_found_and_stays(tmp_path: Path, change: Callable[..., None]) -> None:
    source = write(tmp_path / "a.onnx", change=change)
    assert found(source) is None
    made = quantised(source, tmp_path / "b.onnx")
    assert {"Softmax", "MatMulIntegerToFloat"} <= set(operators(made))
    x = np.random.default_rng(3).standard_normal((2, LENGTH, INNER)).astype(np.float32)
    kept = cosines(answer(made, {"x": x}), answer(source, {"x": x}))
    assert 0.995 < kept.min() < 1


@pytest.mark.parametrize("seen", ["qkv", "heads", "first", "q", "k", "v", "kt", "scores", "p", "values", "back"])
def test_what_something_else_reads_is_not_found(tmp_path: Path, seen: str) -> None:
    assert found(write(tmp_path / "a.onnx", outputs=("y", seen))) is None


def _part(row: int, column: int, value: float) -> NDArray[np.float32]:
    mask = causal()
    mask[row, column] = value
    return mask


@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(np.zeros((LENGTH, LENGTH), np.float32), id="hides nothing"),
        pytest.param(_part(0, 1, -50.0), id="hides a little"),
        pytest.param(_part(2, 3, 0.0), id="lets one see what follows"),
        pytest.param(_part(3, 1, -1e4), id="hides what came before"),
        pytest.param(_part(2, 2, 1.0), id="adds to what is seen"),
        pytest.param(causal().T.copy(), id="the other way round"),
        pytest.param(np.stack([causal()] * HEADS), id="one for each head"),
        pytest.param(causal()[:1], id="the same for all"),
    ],
)
def test_other_masks_are_not_found(tmp_path: Path, mask: NDArray[np.float32]) -> None:
    assert found(write(tmp_path / "a.onnx", mask=mask)) is None


def test_encoders_that_clipdeploy_exports(vit_bundle: Path) -> None:
    """All blocks but the last, where one token asks."""
    for name, tower, masked in (("visual", Tower.IMAGE, False), ("textual", Tower.TEXT, True)):
        model: ir.Model = load_graph(vit_bundle / f"{name}.onnx")
        nodes = {node.name: node for node in model.graph}
        layers = [layer for layer in find_layers(model, tower) if layer.kind == "qkv"]
        blocks = [layer.block for layer in layers]
        fused = [each for layer in layers if (each := self_attention(nodes[layer.node])) is not None]
        assert len(fused) == len(set(blocks)) - 1 > 0
        assert {each.causal for each in fused} == {masked}


def test_texts_of_any_length_have_the_answers_of_whole_ones(vit_bundle: Path, tmp_path: Path) -> None:
    """Quantised, and cut behind their end."""
    source = vit_bundle / "textual.onnx"
    layers = find_layers(load_graph(source), Tower.TEXT)
    ids = np.zeros((4, 77), np.int64)
    for row, length in zip(ids, (3, 8, 20, 77), strict=True):
        row[: length - 1] = np.random.default_rng(length).integers(1, 200, length - 1)
        row[length - 1] = Bundle.open(vit_bundle).model.tokens.end_id
    ranges = {layer.input: Range(-4.0, 4.0) for layer in layers}
    quantise_cpu(source, tmp_path / "cpu.onnx", layers, ranges)
    kinds = [node.op_type for node in load_graph(tmp_path / "cpu.onnx").graph]
    assert kinds.count("QAttention") == 2
    session = OrtSession(tmp_path / "cpu.onnx")
    assert session.input.shape == ("batch", "length")
    whole = session.run(ids)
    for row, length in enumerate((3, 8, 20, 77)):
        np.testing.assert_allclose(session.run(ids[row : row + 1, :length]), whole[row : row + 1], atol=1e-5)
