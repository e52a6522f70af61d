"""Layers of engines, from logs and from inspectors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from clipdeploy.engine.layers.read import read_inspector, read_layers, short_dtype
from clipdeploy.engine.records import EngineLayer, EngineTensor
from clipdeploy.errors import EngineError
from clipdeploy.spec import Precision

pytest.importorskip(
    "onnx", reason="the graphs behind the recorded logs need the extra: pip install 'clipdeploy[engine]'"
)
from tests.engine.asked_graphs import PRODUCTS, recorded

GEMM = (
    "Name: node_fc1_myl0_12, LayerType: gemm, Inputs: [ { Name: norm2_q_myl0, Dimensions: [-1,64], Strides: [64,1], "
    "StrideOrder: [1,0], Datatype: Int8, Format: (Linear) Row major linear format }], Constants: [ { Name: fc1.weight, "
    "Dimensions: [64,256], Datatype: Int8, Format: (Transposed) Transposed format }, { Name: alpha, Dimensions: [1], "
    "Datatype: Float, Format: (Linear) Row major linear format }], Outputs: [ { Name: out_myl0, Dimensions: [-1,256], "
    "Datatype: Half, Format: (Linear) Row major linear format }], TacticName: __myelin_CASK_STUB, StreamId: 0, "
    "Metadata: [ONNX Layer: node_fc1][ONNX Layer: node_fc1_weight_dq]"
)


def test_one_line() -> None:
    (layer,) = read_layers([GEMM])
    assert layer == EngineLayer(
        name="node_fc1_myl0_12",
        kind="gemm",
        inputs=(EngineTensor("norm2_q_myl0", "Int8"),),
        outputs=(EngineTensor("out_myl0", "Half"),),
        nodes=("node_fc1", "node_fc1_weight_dq"),
        constants=(EngineTensor("fc1.weight", "Int8"), EngineTensor("alpha", "Float")),
        tactic="__myelin_CASK_STUB",
    )


@pytest.mark.parametrize("precision", list(Precision))
def test_a_recorded_log(precision: Precision) -> None:
    lines = recorded(f"image_{precision.value}")
    layers = read_layers(lines)
    assert len(layers) == sum(line.startswith("Name: ") for line in lines) > 14
    assert layers[0].kind == "shape_call"
    assert {tensor.name for layer in layers for tensor in layer.outputs} >= {"image_embeds"}
    assert {node for layer in layers for node in layer.nodes} >= {"node_patch", *PRODUCTS}
    assert all(tensor.dtype for layer in layers for tensor in (*layer.inputs, *layer.outputs, *layer.constants))
    # the same as one message, and without its head and its empty lines, as a log may keep it
    assert read_layers(["\n".join(lines)]) == layers
    assert read_layers([line for line in lines[1:] if line.strip()]) == layers


def test_what_is_about_no_layer_is_passed_over() -> None:
    lines = [
        "[TRT] [V] Found node_scores to be part of self-attention pattern.",
        "[TRT] [V] Layers:",
        GEMM,
        "",
        "Layer 1",
    ]
    assert [layer.name for layer in read_layers(lines)] == ["node_fc1_myl0_12"]
    assert read_layers(lines[:1]) == ()
    assert read_layers([]) == ()


def test_layers_that_only_order_streams() -> None:
    line = (
        "Name: __mye30940_myl0_7, LayerType: signal, Inputs: [], Constants: [], Outputs: [], TacticName: , "
        "StreamId: 0, EventId: 1, Metadata: "
    )
    assert read_layers([line]) == (EngineLayer("__mye30940_myl0_7", "signal", (), ()),)


def test_a_log_of_names_alone() -> None:
    layers = read_layers(["Layers:", "node_fc1 + node_relu", "node_fc2", "", "I/O Tensors:", " Name: x, IOMode: Input"])
    assert [(layer.name, layer.kind) for layer in layers] == [("node_fc1 + node_relu", ""), ("node_fc2", "")]


@pytest.mark.parametrize("cut", [GEMM[:40], GEMM[:200], GEMM[:430], GEMM[: GEMM.index(", Outputs")]])
def test_a_line_that_is_cut_off(cut: str) -> None:
    with pytest.raises(EngineError, match="cut off"):
        read_layers([cut])


OLD = (
    "Layer(Reformat): Reformatting CopyNode for Input Tensor 0 to Conv_0, Tactic: 0x00000000000003ea, "
    "pixels (Float[8,3,224,224]) -> Reformatted Input Tensor 0 to Conv_0 (Half[8,3:4,224,224])",
    "Layer(CaskConvolution): Conv_0, Tactic: 1579845938601132607, Reformatted Input Tensor 0 to Conv_0"
    "[Half(128,3,224,224)] -> 191[Half(128,96,56,56)]",
    "Layer(Myelin): {ForeignNode[318...(Unnamed Layer* 4183) [Shuffle]]}, Tactic: 0x0, 191[Half(128,96,56,56)], "
    "7[Int32()] -> embeds[Float(128,1000)]",
    "Layer(Constant): 3198, Tactic: 0,  -> constant_output[Float(1,4864,256)]",
)


def test_the_lines_of_tensorrt() -> None:
    reformat, conv, myelin, constant = read_layers(["Engine Layer Information:", *OLD])
    assert (reformat.kind, reformat.inputs) == ("Reformat", (EngineTensor("pixels", "Float"),))
    assert reformat.outputs == (EngineTensor("Reformatted Input Tensor 0 to Conv_0", "Half"),)
    assert (conv.name, conv.kind, conv.tactic) == ("Conv_0", "CaskConvolution", "1579845938601132607")
    assert conv.outputs == (EngineTensor("191", "Half"),)
    assert myelin.name == "{ForeignNode[318...(Unnamed Layer* 4183) [Shuffle]]}"
    assert [tensor.dtype for tensor in (*myelin.inputs, *myelin.outputs)] == ["Half", "Int32", "Float"]
    assert (constant.inputs, constant.outputs) == ((), (EngineTensor("constant_output", "Float"),))
    with pytest.raises(EngineError, match="cut off"):
        read_layers([OLD[1][:60]])


def tensor(name: str, **described: str) -> dict[str, Any]:
    return {"Name": name, "Location": "Device", "Dimensions": [-1, 64], **described}


def test_the_inspector_of_tensorrt_10() -> None:
    answer = {
        "Layers": [
            {
                "Name": "node_patch + node_relu",
                "LayerType": "CaskConvolution",
                "Inputs": [
                    tensor("pixel_values", **{"Format/Datatype": "Channel major FP16 format where channel % 8 == 0"})
                ],
                "Outputs": [tensor("patch", **{"Format/Datatype": "Half"})],
                "ParameterType": "Convolution",
                "Weights": {"Type": "Half", "Count": 12288},
                "Bias": {"Type": "Half", "Count": 0},
                "TacticName": "sm80_xmma_fprop_implicit_gemm_f16f16_f16f16_f16_nhwckrsc_nhwc",
                "StreamId": 0,
                "Metadata": "[ONNX Layer: node_patch]\u001e[ONNX Layer: node_relu]",
            }
        ],
        "Bindings": ["pixel_values", "image_embeds"],
    }
    (layer,) = read_inspector(json.dumps(answer))
    assert layer.nodes == ("node_patch", "node_relu")
    assert layer.inputs == (EngineTensor("pixel_values", "Half"),)
    assert layer.constants == (EngineTensor("weights", "Half"),)
    assert "f16f16" in layer.tactic


def test_the_inspector_of_tensorrt_11() -> None:
    half = {"Datatype": "Half", "Format": "(Linear) Row major linear format"}
    answer = {
        "Layers": [
            {"Name": "_gemm_mha_v2_myl0_8", "LayerType": "kgen", "Inputs": [tensor("q", **half)], "Outputs": []}
        ],
        "I/O Tensors": [{"Name": "pixel_values", "IOMode": "Input", "DataType": "Float"}],
    }
    (layer,) = read_inspector(json.dumps(answer))
    assert (layer.kind, layer.inputs, layer.nodes) == ("kgen", (EngineTensor("q", "Half"),), ())


def test_an_inspector_that_tells_names_alone() -> None:
    layers = read_inspector('{"Layers": ["node_fc1 + node_relu", "node_fc2"], "Bindings": ["x"]}')
    assert [(layer.name, layer.kind, layer.inputs) for layer in layers] == [
        ("node_fc1 + node_relu", "", ()),
        ("node_fc2", "", ()),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "did not answer in JSON"),
        ('{"Layers": [', "did not answer in JSON"),
        ("[]", "no list 'Layers'"),
        ('{"Bindings": []}', "no list 'Layers'"),
        ('{"Layers": {}}', "no list 'Layers'"),
        ('{"Layers": [3]}', "layer 0 of the engine has no name"),
        ('{"Layers": ["a", {"LayerType": "gemm"}]}', "layer 1 of the engine has no name"),
        ('{"Layers": [{"Name": "a", "Inputs": "x"}]}', "Inputs of the engine's layer 'a'"),
        ('{"Layers": [{"Name": "a", "Outputs": [1]}]}', "Outputs of the engine's layer 'a'"),
    ],
)
def test_an_answer_that_is_none(text: str, said: str) -> None:
    with pytest.raises(EngineError, match=said):
        read_inspector(text)


@pytest.mark.parametrize(
    ("described", "short"),
    [
        ("Half", "Half"),
        ("Row major linear FP16 format", "Half"),
        ("Row major linear FP32", "Float"),
        ("Thirty-two wide channel vectorized row major Int8 format", "Int8"),
        ("Row major linear BF16 format (kLINEAR)", "BFloat16"),
        ("BFloat16", "BFloat16"),
        ("FP8", "FP8"),
        ("Float(64,1:8,8,1)", "Float"),
        ("Row major linear INT64 format", "Int64"),
        ("UInt8", "UInt8"),
        ("Bool", "Bool"),
        ("N/A due to dynamic shapes", ""),
        ("", ""),
    ],
)
def test_types_by_their_descriptions(described: str, short: str) -> None:
    assert short_dtype(described) == short
