"""What a target says of opsets, operators, types and GPUs."""

from __future__ import annotations

import pytest

pytest.importorskip("onnx_ir", reason="checking graphs needs the extra: pip install 'clipdeploy[export]'")

import onnx_ir as ir

from clipdeploy.engine.targets.accepts import accepts, missing_operators
from clipdeploy.engine.targets.devices import gpu_capability, jetson_module
from clipdeploy.engine.targets.hardware import device_findings, precision_finding
from clipdeploy.engine.targets.operators import documented_opset, takes
from clipdeploy.engine.targets.target import parse_target
from clipdeploy.findings import Finding
from clipdeploy.spec import Precision
from tests.engine.attention_graphs import model_text, read

ORIN = "tensorrt 10.3, sm_87"


def said(model: ir.Model, target: str, precision: Precision = Precision.FP32) -> dict[str, Finding]:
    return {finding.check: finding for finding in accepts(model, parse_target(target), precision)}


def one(body: str, *, inputs: str = "float[N,4] x", outputs: str = "float[N,4] y", opset: int = 19) -> ir.Model:
    return read(model_text(body, inputs=inputs, outputs=outputs, opset=opset))


def test_opset() -> None:
    graph = one("y = Relu (x)")
    assert said(graph, ORIN)["opset"].state == "good"
    later = one("y = Relu (x)", opset=22)
    found = said(later, ORIN)["opset"]
    assert found.state == "note" and "documented up to 19" in found.message and "refuses no opset" in found.message
    assert said(later, "tensorrt 10.6, sm_89")["opset"].state == "good"
    assert said(one("y = Relu (x)", opset=8), ORIN)["opset"].state == "bad"
    highest = [
        documented_opset(parse_target(f"tensorrt {version}, sm_89"))[0] for version in ("10.5", "10.6", "10.15", "11.5")
    ]
    assert highest == [19, 22, 24, 25]


@pytest.mark.parametrize(
    ("operator", "first"),
    [("Gelu", "10.6"), ("Attention", "10.14"), ("RMSNormalization", "10.15"), ("Swish", "11.0"), ("STFT", "10.5")],
)
def test_operators_come_with_versions(operator: str, first: str) -> None:
    major, minor = map(int, first.split("."))
    before = f"{major}.{minor - 1}" if minor else "10.16"
    assert takes(parse_target(f"tensorrt {first}, sm_89"), operator)[0]
    assert not takes(parse_target(f"tensorrt {before}, sm_89"), operator)[0]
    assert takes(parse_target(ORIN), "LayerNormalization")[0]
    assert takes(parse_target("tensorrt-rtx 1.7, sm_89"), operator)[0]
    assert takes(parse_target("tensorrt-rtx 1.4, sm_89"), operator)[0] is (first in ("10.5", "10.6"))


def test_an_operator_of_another_opset() -> None:
    graph = one("y = Gelu (x)", opset=20)
    assert missing_operators(graph, parse_target(ORIN)) == {"Gelu": 1}
    found = said(graph, ORIN)["operators"]
    assert found.state == "bad" and "Gelu (1x, from TensorRT 10.6 on)" in found.message
    assert "operators.md" in found.message
    assert said(graph, "tensorrt 10.6, sm_89")["operators"].state == "good"


def test_operators_that_no_parser_takes() -> None:
    found = said(one("y = DynamicThing (x)", outputs="float[N,4] y"), ORIN)["operators"]
    assert found.state == "bad" and found.fix == "export the model without DynamicThing"
    own = one("h = Relu (x) y = com.microsoft.FastGelu (h)")
    found = said(own, ORIN)["operators"]
    assert "com.microsoft::FastGelu (1x)" in found.message
    assert found.fix is not None and "ONNX Runtime's own" in found.fix


QUANTISED = """
    scale = Constant <value = {dtype} {{0.5}}> ()
    zero = Constant <value = {zero}> ()
    small = QuantizeLinear (x, scale, zero)
    y = DequantizeLinear (small, scale, zero)
"""


def test_eight_bits() -> None:
    right = one(QUANTISED.format(dtype="float", zero="int8 {0}"))
    assert said(right, ORIN, Precision.INT8)["operators"].state == "good"
    shifted = one(QUANTISED.format(dtype="float", zero="int8 {3}"))
    assert "its zero point is not 0" in said(shifted, ORIN, Precision.INT8)["operators"].message
    unsigned = one(QUANTISED.format(dtype="float", zero="uint8 {0}"))
    found = said(unsigned, ORIN, Precision.INT8)["operators"]
    assert "8 bits without a sign" in found.message and found.fix == "quantize again with --target tensorrt"


def test_half_scales_need_opset_19() -> None:
    body = "small = QuantizeLinear (x, s, z) y = DequantizeLinear (small, s, z)"
    inputs = "float16[N,4] x, float16 s, int8 z"
    graph = read(model_text(body, inputs=inputs, outputs="float16[N,4] y", opset=19))
    assert said(graph, ORIN)["opset"].state == "good"
    graph.opset_imports[""] = 17
    found = said(graph, ORIN)["opset"]
    assert found.state == "bad" and found.fix == "export with --opset 19"


def test_limits_of_operators() -> None:
    body = 'y = ScatterND <reduction = "add"> (x, i, u)'
    inputs = "float[N,4] x, int64[1,1] i, float[1,4] u"
    assert "only without a reduction" in said(one(body, inputs=inputs), ORIN)["operators"].message
    reduce = one("y = ReduceSum <keepdims = 1> (x, axes)", inputs="float[N,4] x, int64[1] axes", outputs="float[N,1] y")
    assert "its axes must be constant" in said(reduce, ORIN)["operators"].message


def test_types() -> None:
    found = said(one("y = Cast <to = 1> (x)", inputs="int64[N,4] x"), ORIN)["types"]
    assert (found.state, found.message) == ("good", "x int64")
    assert said(one("y = Cast <to = 1> (x)", inputs="double[N,4] x"), ORIN)["types"].state == "note"
    other = said(one("y = Cast <to = 1> (x)", inputs="float8e5m2[N,4] x"), ORIN)["types"]
    assert other.state == "bad" and "E4M3" in other.message


@pytest.mark.parametrize(
    ("target", "precision", "state"),
    [
        *((f"tensorrt 10.3, {sm}", "fp16", "good") for sm in ("sm_75", "sm_87", "sm_90")),
        *(("tensorrt 10.3, sm_75", "bf16", "bad"), ("tensorrt 10.3, sm_87", "bf16", "good")),
        *(("tensorrt 10.3, sm_75", "int8", "good"), ("tensorrt 10.3, sm_87", "int8", "good")),
        *(("tensorrt 10.3, sm_87", "fp8", "bad"), ("tensorrt 10.3, sm_89", "fp8", "good")),
        *(("thor", "fp8", "good"), ("tensorrt 10.9, sm_89 sm_86", "fp8", "bad")),
        *(("tensorrt-rtx 1.7, sm_75", "int8", "bad"), ("tensorrt-rtx 1.7, sm_86", "int8", "note")),
        *(("tensorrt-rtx 1.7, sm_86", "fp8", "bad"), ("tensorrt-rtx 1.7, sm_120", "fp8", "good")),
    ],
)
def test_precisions(target: str, precision: str, state: str) -> None:
    found = precision_finding(parse_target(target), Precision(precision))
    assert found.state == state
    assert found.state == "good" or ("https://" in found.message and found.fix)


def test_the_graph_tells_its_precision_too() -> None:
    graph = one("n = Cast <to = 16> (x) y = Cast <to = 1> (n)")
    assert said(graph, "tensorrt 10.3, sm_75", Precision.FP16)["precision"].message.startswith("BF16 needs")


@pytest.mark.parametrize(
    ("target", "check", "state"),
    [
        *((ORIN, "sm_87", "good"), ("tensorrt 10.4, sm_70", "sm_70", "good"), ("tensorrt 10.5, sm_70", "sm_70", "bad")),
        *(("tensorrt 10.7, sm_120", "sm_120", "bad"), ("tensorrt 10.8, sm_120", "sm_120", "good")),
        *(("tensorrt 10.13, sm_121", "sm_121", "bad"), ("tensorrt 10.14, gb10", "sm_121", "good")),
        *(("tensorrt-rtx 1.7, sm_87", "sm_87", "bad"), ("tensorrt-rtx 1.4, sm_80", "sm_80", "bad")),
        *(("tensorrt-rtx 1.7, sm_80", "sm_80", "good"), ("tensorrt 10.3, sm_61", "sm_61", "bad")),
        *(("thor, tensorrt 11.2", "JetPack", "bad"), ("thor, tensorrt 11.4.1", "JetPack", "note")),
        *(("jetpack 6, tensorrt 11.4.1", "JetPack", "bad"), ("tensorrt 10.13, sm_87", "JetPack", "note")),
    ],
)
def test_devices(target: str, check: str, state: str) -> None:
    found = {finding.check: finding for finding in device_findings(parse_target(target))}[check]
    assert found.state == state
    assert found.state != "bad" or found.fix


def test_a_dla_is_told_of() -> None:
    told = {finding.check: finding.message for finding in device_findings(parse_target("agx orin"))}["DLA"]
    assert told.startswith("Jetson AGX Orin has one; engines are built for the GPU")
    assert "most of a transformer would fall back to the GPU" in told
    later = {f.check: f.message for f in device_findings(parse_target("agx orin, jetpack 7, tensorrt 10.13"))}["DLA"]
    assert "10.7 was the last before 11.4.1" in later
    for target in ("thor", "orin nano", "tensorrt 10.3, sm_89"):
        assert "none there" in {f.check: f.message for f in device_findings(parse_target(target))}["DLA"]


def test_names_of_gpus() -> None:
    names = {"RTX 4090": "8.9", "NVIDIA L4": "8.9", "NVIDIA H100 80GB HBM3": "9.0", "Tesla V100-SXM2-16GB": "7.0"}
    names |= {"NVIDIA RTX 6000 Ada Generation": "8.9", "NVIDIA RTX A6000": "8.6", "gtx 1660 ti": "7.5", "B200": "10.0"}
    names |= {"NVIDIA RTX PRO 6000 Blackwell Workstation Edition": "12.0", "NVIDIA H200": "9.0", "DGX Spark": "12.1"}
    assert {name: gpu_capability(name) for name in names} == names
    assert gpu_capability("Radeon RX 7900") is None and jetson_module("raspberry pi") is None
