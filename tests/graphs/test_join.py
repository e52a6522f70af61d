"""Two graphs joined give what they give one behind the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ir = pytest.importorskip("onnx_ir")
ort = pytest.importorskip("onnxruntime")

from clipdeploy.errors import InputError  # noqa: E402
from clipdeploy.graphs.files import load_graph, save_graph  # noqa: E402
from clipdeploy.graphs.join import join_files, join_graphs, join_models  # noqa: E402

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((3, 4), dtype=np.float32)

FRONT = """<ir_version: 9, opset_import: ["" : 17]>
front (uint8[batch, 3] frame) => (float[batch, 3] pixels) <float[3] w = {1, 2, 3}>
{ x = Cast <to = 1> (frame)  pixels = Mul (x, w) }"""

BACK = """<ir_version: 10, opset_import: ["" : 19, "com.microsoft" : 1]>
back (float[batch, 3] pixels) => (float[batch, 4] y) <float[3, 4] w>
{ x = MatMul (pixels, w)  frame = Relu (x)  y = com.microsoft.Gelu (frame) }"""


def _front():
    return onnx.parser.parse_model(FRONT)


def _back(weight: np.ndarray = WEIGHT):
    model = onnx.parser.parse_model(BACK.replace("<float[3, 4] w>", ""))
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    return model


def _run(model, feeds: dict) -> list[np.ndarray]:
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return ort.InferenceSession(source, providers=["CPUExecutionProvider"]).run(None, feeds)


FRAME = RNG.integers(0, 255, (5, 3), dtype=np.uint8)


def _expected() -> np.ndarray:
    return _run(_back(), {"pixels": _run(_front(), {"frame": FRAME})[0]})[0]


def test_the_joined_graph_gives_what_the_two_give():
    joined = join_graphs(_front(), _back())
    onnx.checker.check_model(joined, full_check=True)
    assert [v.name for v in joined.graph.input] == ["frame"]
    assert [v.name for v in joined.graph.output] == ["y"]
    assert {o.domain: o.version for o in joined.opset_import} == {"": 19, "com.microsoft": 1}
    assert joined.ir_version == 10
    np.testing.assert_array_equal(_run(joined, {"frame": FRAME})[0], _expected())
    assert "pixels" in [name for node in joined.graph.node for name in node.output]  # where it can be cut again


def test_the_messages_stay_as_they_are():
    front, back = _front(), _back()
    before = front.SerializeToString(), back.SerializeToString()
    join_graphs(front, back)
    assert (front.SerializeToString(), back.SerializeToString()) == before


def test_an_output_of_the_first_can_stay_one():
    joined = join_graphs(_front(), _back(), keep=["pixels"])
    assert [v.name for v in joined.graph.output] == ["pixels", "y"]
    pixels, y = _run(joined, {"frame": FRAME})
    np.testing.assert_array_equal(pixels, FRAME * np.float32([1, 2, 3]))
    np.testing.assert_array_equal(y, _expected())


def test_names_that_differ_are_tied_as_told_and_open_inputs_stay():
    add = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 17]> add (float[batch, 4] a, float[batch, 4] b) => (float[batch, 4] sum)'
        "{ sum = Add (a, b) }"
    )
    joined = join_graphs(join_graphs(_front(), _back()), add, {"y": "a"})
    assert [v.name for v in joined.graph.input] == ["frame", "b"]
    zeros = np.zeros((5, 4), np.float32)
    np.testing.assert_array_equal(_run(joined, {"frame": FRAME, "b": zeros})[0], _expected())


def test_weights_beside_a_graph_are_taken_along(tmp_path):
    back = _back(RNG.standard_normal((3, 4), dtype=np.float32).repeat(200, axis=1))
    back.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 800
    onnx.save(_front(), tmp_path / "front.onnx")
    save_graph(ir.from_proto(back), tmp_path / "back.onnx", inline_limit_bytes=0)
    assert (tmp_path / "back.onnx.data").is_file()
    target = tmp_path / "out" / "joined.onnx"
    target.parent.mkdir()
    assert join_files(tmp_path / "front.onnx", tmp_path / "back.onnx", target) is None
    expected = _run(back, {"pixels": _run(_front(), {"frame": FRAME})[0]})[0]
    np.testing.assert_array_equal(_run(target, {"frame": FRAME})[0], expected)
    joined = join_models(load_graph(tmp_path / "front.onnx"), load_graph(tmp_path / "back.onnx"))
    assert save_graph(joined, target, inline_limit_bytes=0) == target.with_name("joined.onnx.data")
    np.testing.assert_array_equal(_run(target, {"frame": FRAME})[0], expected)


def test_each_keeps_its_types():
    half = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 22]> half (float[batch, 3] pixels) => (float[batch, 3] y)'
        "{ a = Cast <to = 16> (pixels)  b = Mul (a, a)  y = Cast <to = 1> (b) }"
    )
    joined = join_graphs(_front(), half)
    inferred = onnx.shape_inference.infer_shapes(joined, strict_mode=True)
    types = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    assert types["b"] == onnx.TensorProto.BFLOAT16
    assert types["pixels"] == onnx.TensorProto.FLOAT


def test_an_opset_that_means_other_things_is_refused():
    front = _front()
    reduce = onnx.helper.make_node("ReduceSum", ["pixels"], ["summed"], axes=[1])
    front.graph.node.append(reduce)
    front.graph.output.append(onnx.helper.make_tensor_value_info("summed", 1, ["batch", 1]))
    front.opset_import[0].version = 11
    with pytest.raises(InputError, match="one graph is in opset 11 of ONNX, the other in 19"):
        join_graphs(front, _back())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({}, "nothing ties the graphs together: the first gives pixels, the second takes pixels"),
        ({"frame": "pixels"}, "cannot tie output 'frame' to input 'pixels': the first graph gives pixels"),
        ({"pixels": "y"}, "cannot tie output 'pixels' to input 'y'"),
    ],
)
def test_names_that_are_not_there_are_refused(names, message):
    with pytest.raises(InputError, match=message):
        join_graphs(_front(), _back(), names)


def test_shapes_and_types_that_differ_are_refused():
    front = _front()
    front.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7
    with pytest.raises(InputError, match=r"output 'pixels' is FLOAT \(batch, 7\), but input 'pixels' is FLOAT"):
        join_graphs(front, _back())
    with pytest.raises(InputError, match="no output 'nothing' to keep; the first graph has pixels"):
        join_graphs(_front(), _back(), keep=["nothing"])


def test_two_outputs_of_one_name_are_refused():
    again = _front()
    again.graph.input[0].type.tensor_type.elem_type = 1
    again.graph.input[0].name = "pixels"
    again.graph.node[0].input[0] = "pixels"
    again.graph.output[0].name = again.graph.node[1].output[0] = "frame"
    with pytest.raises(InputError, match="would have one name: frame"):
        join_graphs(_front(), again, {"pixels": "pixels"})
