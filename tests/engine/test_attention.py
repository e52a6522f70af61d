"""Attention blocks of graphs, and how many of them engines compute as one layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("onnx_ir", reason="graphs need the extra: pip install 'clipdeploy[engine]'")
from onnx import TensorProto, helper

from clipdeploy.engine.layers.attention import AttentionBlock, find_blocks, fused_blocks, report_layers
from clipdeploy.engine.layers.read import read_layers
from clipdeploy.engine.records import EngineLayer
from clipdeploy.graphs.files import load_graph
from clipdeploy.spec import Precision, Tower
from tests.engine.asked_graphs import make_graph, recorded

BLOCK = AttentionBlock("node_scores", "node_softmax", "node_values")


@pytest.mark.parametrize("tower", list(Tower))
@pytest.mark.parametrize("precision", list(Precision))
def test_blocks_are_found(tmp_path: Path, precision: Precision, tower: Tower) -> None:
    assert find_blocks(load_graph(make_graph(tmp_path / "graph.onnx", precision, tower))) == (BLOCK,)


def save(path: Path, *nodes: object) -> Path:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        list(nodes),
        "g",
        [value(n, TensorProto.FLOAT, [2, 4, 4]) for n in "qkv"],
        [value("y", TensorProto.FLOAT, [2, 4, 4])],
    )
    import onnx

    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)]), str(path))
    return path


def test_a_softmax_that_is_no_attention(tmp_path: Path) -> None:
    softmax, relu = helper.make_node("Softmax", ["q"], ["p"]), helper.make_node("MatMul", ["p", "v"], ["y"])
    assert find_blocks(load_graph(save(tmp_path / "g.onnx", softmax, relu))) == ()


def test_a_mask_and_names_that_are_missing(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["q", "k"], ["s"]),
        helper.make_node("Add", ["s", "v"], ["m"]),
        helper.make_node("Softmax", ["m"], ["p"]),
        helper.make_node("MatMul", ["p", "v"], ["y"]),
    ]
    (block,) = find_blocks(load_graph(save(tmp_path / "g.onnx", *nodes)))
    assert block == AttentionBlock("node_of_s", "node_of_p", "node_of_y")


def test_the_operator_of_opset_23(tmp_path: Path) -> None:
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"], name="mha", q_num_heads=1, kv_num_heads=1)
    assert find_blocks(load_graph(save(tmp_path / "g.onnx", node))) == (AttentionBlock("mha", "mha", "mha"),)


@pytest.mark.parametrize(("precision", "fused"), [("fp32", 0), ("fp16", 1), ("bf16", 1), ("int8", 1), ("fp8", 1)])
def test_what_tensorrt_for_rtx_fuses(tmp_path: Path, precision: str, fused: int) -> None:
    model = load_graph(make_graph(tmp_path / "graph.onnx", Precision(precision)))
    layers = read_layers(recorded(f"image_{precision}"))
    report = report_layers(model, "build log", layers)
    assert (report.source, report.attention_blocks, report.attention_fused) == ("build log", 1, fused)
    assert report.layers == layers


def test_nobody_told(tmp_path: Path) -> None:
    report = report_layers(load_graph(make_graph(tmp_path / "graph.onnx")), "build log", ())
    assert (report.source, report.layers, report.attention_blocks, report.attention_fused) == ("none", (), 1, None)


def layer(name: str, kind: str, *nodes: str) -> EngineLayer:
    return EngineLayer(name, kind, (), (), nodes)


def test_one_layer_that_holds_all_three() -> None:
    whole = layer("fused", "gemm", "node_scores", "node_softmax", "node_values")
    apart = (layer("a", "gemm", "node_scores"), layer("b", "kgen", "node_softmax"), layer("c", "gemm", "node_values"))
    assert fused_blocks([BLOCK], [whole]) == 1
    assert fused_blocks([BLOCK], apart) == 0
    # what only turns or pads around it does not count against it
    assert fused_blocks([BLOCK], [layer("__myl_Move_myl0_2", "kgen", "node_scores"), whole]) == 1


def test_every_profile_must_fuse_it() -> None:
    fused = layer("_gemm_mha_v2_myl0_8", "kgen", "node_scores", "node_softmax", "node_values")
    apart = (layer("node_scores_myl1_8", "gemm", "node_scores"), layer("node_values_myl1_9", "gemm", "node_values"))
    assert fused_blocks([BLOCK], [fused, replace(fused, name="_gemv_mha_v1_myl1_8")]) == 1
    assert fused_blocks([BLOCK], [fused, *apart]) == 0


def test_an_engine_that_does_not_tell() -> None:
    region = layer("{ForeignNode[node_qkv...node_out]}", "Myelin", "node_scores", "node_softmax", "node_values")
    assert fused_blocks([BLOCK], [region]) is None
    assert fused_blocks([BLOCK], [layer("other", "gemm", "node_of_something")]) is None
    assert fused_blocks([], [region]) == 0
