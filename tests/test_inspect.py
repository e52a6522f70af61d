"""What is in bundles and graphs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipdeploy.bundle import Bundle
from clipdeploy.errors import BundleCorruptError, InputError
from clipdeploy.inspect import BundleInfo, GraphInfo, inspect_path
from clipdeploy.spec import Precision, TensorSpec
from tests.bundles import make_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "tiny", precisions=(Precision.FP32, Precision.INT8))


@pytest.mark.parametrize("name", ["", "manifest.json"])
def test_a_bundle(bundle: Path, name: str) -> None:
    info = inspect_path(bundle / name)
    assert isinstance(info, BundleInfo)
    assert info.model.name == "tiny-linear"
    assert info.precisions == {"image": ("fp32", "int8"), "text": ("fp32", "int8")}
    assert info.size_bytes == sum((bundle / name).stat().st_size for name in info.files)
    assert info.parity is None


def add_report(bundle: Path, content: str) -> None:
    source = bundle.parent / "parity.json"
    source.write_text(content)
    Bundle.open(bundle).add("report/parity.json", source, kind="report", origin="tests")


def test_the_parity_report_is_summed_up(bundle: Path) -> None:
    check = {"name": "cosine", "value": 0.9999999}
    report = {
        "passed": True,
        "first_drift": None,
        "reference": "pytorch",
        "created": "now",
        "precision": "fp32",
        "backend": "cpu",
        "stages": [{"name": "image_tower", "checks": [check]}],
    }
    add_report(bundle, json.dumps(report))
    info = inspect_path(bundle)
    assert isinstance(info, BundleInfo)
    assert info.parity is not None
    assert info.parity.passed
    assert info.parity.measured == {"image_tower": {"cosine": 0.9999999}}


def test_a_report_that_is_none(bundle: Path) -> None:
    add_report(bundle, "[]")
    with pytest.raises(BundleCorruptError, match="no parity report"):
        inspect_path(bundle)


def test_a_graph(bundle: Path) -> None:
    info = inspect_path(bundle / "visual.onnx")
    assert isinstance(info, GraphInfo)
    assert info.inputs == (TensorSpec("pixel_values", "float32", ("batch", 3, 32, 32)),)
    assert info.outputs == (TensorSpec("image_embeds", "float32", ("batch", 16)),)
    assert info.opsets == {"ai.onnx": 19}
    assert info.nodes == {"Flatten": 1, "MatMul": 1, "ReduceL2": 1, "Max": 1, "Div": 1}
    assert info.initializers == 3
    assert info.initializer_bytes == {"float32": 3 * 32 * 32 * 16 * 4 + 4, "int64": 8}
    assert info.external == ()


def test_dtypes_subgraphs_and_external_weights(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    def constant(name: str, dtype: int, count: int, bytes_: int) -> onnx.TensorProto:
        return onnx.TensorProto(name=name, data_type=dtype, dims=[count], raw_data=bytes(bytes_))

    output = helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["batch", 2])
    inner = helper.make_graph([helper.make_node("Relu", ["x"], ["z"])], "inner", [], [output])
    branch = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    graph = helper.make_graph(
        [branch, helper.make_node("Fused", ["x"], ["q"], domain="com.microsoft")],
        "outer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["batch", 2])],
        [output],
        [
            constant("int4", TensorProto.INT4, 5, 3),
            constant("fp8", TensorProto.FLOAT8E4M3FN, 5, 5),
            constant("bf16", TensorProto.BFLOAT16, 5, 10),
            constant("flag", TensorProto.BOOL, 5, 5),
            constant("big", TensorProto.DOUBLE, 400, 3200),
        ],
    )
    path = tmp_path / "mixed.onnx"
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    )
    onnx.save(model, str(path), save_as_external_data=True, location="mixed.bin", size_threshold=1024)
    info = inspect_path(path)
    assert isinstance(info, GraphInfo)
    assert info.nodes == {"Relu": 2, "If": 1, "com.microsoft.Fused": 1}
    assert info.initializer_bytes == {"float64": 3200, "bfloat16": 10, "float8e4m3fn": 5, "bool": 5, "int4": 3}
    assert info.external == ("mixed.bin",)
    assert info.opsets == {"ai.onnx": 21, "com.microsoft": 1}


@pytest.mark.parametrize("content", [b"", b"this is no graph", b"\x00" * 64])
def test_a_file_that_is_no_graph(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is no ONNX graph"):
        inspect_path(path)


@pytest.mark.parametrize("name", ["gone", "gone.onnx", "notes.txt"])
def test_a_path_that_is_neither(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"does not exist|is neither"):
        inspect_path(tmp_path / name)
