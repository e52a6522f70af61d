"""What is in bundles, engines, graphs and checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipdeploy.bundle import Bundle
from clipdeploy.errors import BundleCorruptError, InputError
from clipdeploy.findings import Finding
from clipdeploy.inspect import BundleInfo, EngineInfo, GraphInfo, LayerKind, inspect_checkpoint, inspect_path, kind_of
from clipdeploy.request import CheckpointRequest
from clipdeploy.spec import Precision, TensorSpec, to_dict
from tests.bundles import make_bundle
from tests.engine_records import engine_key, write_engine


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
    assert info.findings == ()


def add_report(bundle: Path, content: str, name: str = "parity") -> None:
    source = bundle.parent / f"{name}.json"
    source.write_text(content)
    Bundle.open(bundle).add(f"report/{name}.json", source, kind="report", origin="tests")


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


def test_what_was_found_of_the_checkpoint(bundle: Path) -> None:
    findings = (Finding("one", "good", "fine"), Finding("two", "note", "odd", "look"))
    add_report(bundle, json.dumps(to_dict(findings)), "preflight")
    info = inspect_path(bundle)
    assert isinstance(info, BundleInfo)
    assert info.findings == findings


@pytest.mark.parametrize("content", ["{", '[{"check": "x"}]', "[3]", "3"])
def test_findings_that_are_none(bundle: Path, content: str) -> None:
    add_report(bundle, content, "preflight")
    with pytest.raises(BundleCorruptError, match="no list of findings"):
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


@pytest.mark.parametrize("name", ["", "engine.plan", "engine.json"])
def test_an_engine(tmp_path: Path, name: str) -> None:
    folder = write_engine(tmp_path / "engine")
    assert kind_of(str(folder / name)) == "engine"
    info = inspect_path(folder / name)
    assert isinstance(info, EngineInfo)
    assert info.path == folder / "engine.plan"
    assert info.record.key == engine_key()
    assert info.kinds == (
        LayerKind("gemm", ("Half",), ("Half",), ("Half",), 3),
        LayerKind("kgen", ("Half",), (), ("Int8",), 1),
    )


def test_engines_that_cannot_be_inspected(tmp_path: Path) -> None:
    folder = write_engine(tmp_path / "engine")
    (folder / "engine.plan").write_bytes(b"short")
    with pytest.raises(BundleCorruptError, match="5 bytes"):
        inspect_path(folder)
    (folder / "engine.json").write_text("{}")
    with pytest.raises(BundleCorruptError, match="no record of an engine"):
        inspect_path(folder)
    (tmp_path / "alone.plan").write_bytes(b"engine")
    for name, said in (("alone.plan", "has no engine.json beside it"), ("gone/engine.plan", "does not exist")):
        assert kind_of(str(tmp_path / name)) == "engine"
        with pytest.raises(InputError, match=said):
            inspect_path(tmp_path / name)


def test_kinds_are_told_apart(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "clip.pt").write_bytes(b"x")
    for name in (bundle, bundle / "manifest.json"):
        assert kind_of(str(name)) == "bundle"
    for name in (bundle / "visual.onnx", tmp_path / "gone.ONNX"):
        assert kind_of(str(name)) == "graph"
    for name in (tmp_path / "weights", tmp_path / "clip.pt", "ViT-B-32", "hf-hub:org/repo", "org/repo"):
        assert kind_of(str(name)) == "checkpoint"
    monkeypatch.chdir(tmp_path)
    assert kind_of("tiny") == "bundle"
    assert kind_of("./clip.pt") == "checkpoint"


@pytest.mark.parametrize("name", ["/gone/away", "./gone", "../gone/b32", "~/gone/b32"])
def test_a_path_where_nothing_is(name: str) -> None:
    with pytest.raises(InputError, match="does not exist"):
        kind_of(name)


def test_a_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("open_clip", reason="checkpoints need the extra: pip install 'clipdeploy[export]'")
    from clipdeploy.export.preflight.run import CHECKS
    from tests import checkpoints

    folder = checkpoints.write_checkpoint(tmp_path / "mine")
    info = inspect_checkpoint(CheckpointRequest(str(folder)))
    assert info.model is not None
    assert info.model.embed_dim == checkpoints.EMBED_DIM
    assert [finding.check for finding in info.findings] == list(CHECKS)
    assert len(str(info.weights_sha256)) == 64


def test_a_checkpoint_that_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("open_clip", reason="checkpoints need the extra: pip install 'clipdeploy[export]'")
    from tests import checkpoints

    folder = checkpoints.write_checkpoint(tmp_path / "mine", preprocess=None)
    info = inspect_checkpoint(CheckpointRequest(str(folder)))
    assert info.model is None
    (finding,) = info.findings
    assert (finding.check, finding.state) == ("loading", "bad")
    assert "--preprocessing" in str(finding.fix)


def test_an_export_carries_its_findings(demo_bundle: Path) -> None:
    info = inspect_path(demo_bundle)
    assert isinstance(info, BundleInfo)
    assert len(info.findings) > 10
    assert {finding.state for finding in info.findings} == {"good"}
