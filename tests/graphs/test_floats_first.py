"""8-bit inputs become floats before anything else, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ir = pytest.importorskip("onnx_ir")
ort = pytest.importorskip("onnxruntime")

from clipdeploy.graphs.floats_first import floats_first  # noqa: E402

LATE = """<ir_version: 9, opset_import: ["" : 18]>
late (uint8[batch, 4, 6] frame) => (float[batch, 6, 2] a, float[batch, 4, 6] b)
<int64[1] one = {1}, int64[1] three = {3}, int64[1] axis = {1}>
{
    cut = Slice (frame, one, three, axis)
    turned = Transpose <perm = [0, 2, 1]> (cut)
    floats = Cast <to = 1> (turned)
    a = Sqrt (floats)
    whole = Cast <to = 1> (frame)
    b = Neg (whole)
}"""


def _run(model) -> list[np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    frames = np.random.default_rng(0).integers(0, 256, (3, 4, 6), dtype=np.uint8)
    return session.run(None, {"frame": frames})


def test_the_first_thing_that_happens_is_the_conversion():
    before = onnx.parser.parse_model(LATE)
    model = ir.from_proto(before)
    assert floats_first(model) == 1
    after = ir.to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    assert [node.op_type for node in after.graph.node if "frame" in node.input] == ["Cast"]
    assert sum(node.op_type == "Cast" for node in after.graph.node) == 1
    for ours, theirs in zip(_run(after), _run(before), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert floats_first(model) == 0


def test_what_computes_with_8_bits_is_left_alone():
    text = LATE.replace("a = Sqrt (floats)", "a = Sqrt (floats)  more = Greater (cut, cut)")
    model = ir.from_proto(onnx.parser.parse_model(text))
    assert floats_first(model) == 0
    assert [node.op_type for node in model.graph if "frame" in [value.name for value in node.inputs]] == [
        "Slice",
        "Cast",
    ]


def test_a_graph_of_floats_is_left_alone():
    model = ir.from_proto(onnx.parser.parse_model(LATE.replace("uint8[", "float[")))
    assert floats_first(model) == 0
