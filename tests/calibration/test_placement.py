"""Which layers of a CLIP are quantised: those in the blocks, never what surrounds them; on graphs of real families."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="exporting needs the extra: pip install 'clipdeploy[export]'")

import onnx_ir as ir

from clipdeploy.calibration.layers import find_layers
from clipdeploy.calibration.placement import Choice, place
from clipdeploy.calibration.qdq import insert_qdq
from clipdeploy.calibration.records import Range
from clipdeploy.calibration.smooth import smoothable
from clipdeploy.export.tower import ExportOptions, export_tower
from clipdeploy.spec import Precision, Tower
from tests.export import tiny

BLOCK_KINDS = {"qkv", "out_proj", "fc1", "fc2"}
FAMILIES = ("vit", "resnet", "convnext", "siglip", "eva02")


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("families")
    options = ExportOptions(simplify=True)
    found = {}
    for name in FAMILIES:
        (folder / name).mkdir()
        found[name] = export_tower(tiny.checkpoint(name), Tower.IMAGE, folder / name, options).graph
    return found


def choices(graph: Path) -> tuple[ir.Model, tuple[Choice, ...]]:
    model = ir.load(graph)
    return model, place(model, find_layers(model, Tower.IMAGE))


def kinds(found: tuple[Choice, ...], *, quantised: bool) -> Counter[str]:
    return Counter(choice.layer.kind for choice in found if choice.quantise is quantised)


def test_a_vit_has_its_linears_quantised_and_not_what_reads_in_and_out(graphs: dict[str, Path]) -> None:
    _, found = choices(graphs["vit"])
    assert kinds(found, quantised=True) == {"qkv": 3, "out_proj": 2, "fc1": 2, "fc2": 2}
    assert kinds(found, quantised=False) == {"patch_embed": 1, "projection": 1}
    assert all(choice.reason for choice in found if not choice.quantise)
    blocks = [choice.layer.block for choice in found if choice.quantise]
    assert list(dict.fromkeys(blocks)) == ["transformer.resblocks.0", "transformer.resblocks.1"]


def test_a_resnet_has_the_convolutions_of_its_blocks_quantised(graphs: dict[str, Path]) -> None:
    _, found = choices(graphs["resnet"])
    assert kinds(found, quantised=True) == {"conv": 16}
    # the stem's three, and the attention pool with the projection in it
    assert kinds(found, quantised=False) == {"patch_embed": 1, "conv": 2, "pool": 2, "projection": 1}
    assert {c.layer.block for c in found if c.quantise} == {f"layer{i}.0" for i in (1, 2, 3, 4)}


def test_a_convnext_keeps_its_depthwise_convolutions(graphs: dict[str, Path]) -> None:
    model, found = choices(graphs["convnext"])
    assert kinds(found, quantised=True) == {"fc1": 5, "fc2": 5, "conv": 3}
    groups = {node.name: node.attributes.get_int("group", 1) for node in model.graph if node.op_type == "Conv"}
    assert all(groups[c.layer.node] == 1 for c in found if c.quantise and c.layer.kind == "conv")
    assert kinds(found, quantised=False) == {"conv": 5, "patch_embed": 1, "projection": 1}


def test_a_pool_with_an_mlp_stays_and_a_gated_mlp_goes_whole(graphs: dict[str, Path]) -> None:
    _, siglip = choices(graphs["siglip"])
    assert {c.layer.name for c in siglip if c.layer.kind == "pool"} >= {
        "trunk.attn_pool.mlp.fc1",
        "trunk.attn_pool.mlp.fc2",
    }
    assert not any(c.quantise for c in siglip if c.layer.kind == "pool")
    _, eva = choices(graphs["eva02"])
    assert kinds(eva, quantised=True) == {"qkv": 4, "out_proj": 3, "fc1": 6, "fc2": 3}


@pytest.mark.parametrize("family", FAMILIES)
def test_q_stands_in_front_of_chosen_layers_and_nowhere_else(graphs: dict[str, Path], family: str) -> None:
    model, found = choices(graphs[family])
    layers = [choice.layer for choice in found if choice.quantise]
    chosen = {layer.node for layer in layers}
    insert_qdq(model, layers, {layer.input: Range(-1.0, 1.0) for layer in layers}, precision=Precision.INT8)
    for node in model.graph:
        if node.op_type == "DequantizeLinear":
            assert {user.name for user in node.outputs[0].consumers()} <= chosen
    pairs = [node.inputs[0].name for node in model.graph if node.op_type == "QuantizeLinear"]
    assert len(pairs) == len(set(pairs)) == len({layer.input for layer in layers})  # one pair for all who read


def test_separate_q_k_and_v_share_one_pair(graphs: dict[str, Path]) -> None:
    model, found = choices(graphs["eva02"])
    gated = [c.layer for c in found if c.layer.kind == "fc1"][:2]
    assert gated[0].input == gated[1].input
    done = insert_qdq(model, gated, {gated[0].input: Range(-1.0, 1.0)}, precision=Precision.INT8)
    assert (done.layers, done.pairs) == (2, 1)


def test_only_norms_in_front_of_quantised_layers_are_smoothed(graphs: dict[str, Path]) -> None:
    model, found = choices(graphs["vit"])
    layers = [choice.layer for choice in found if choice.quantise]
    names = smoothable(model, layers)
    assert set(names) == {layer.input for layer in layers if layer.kind in ("qkv", "fc1")}
    model, found = choices(graphs["resnet"])
    assert smoothable(model, [choice.layer for choice in found if choice.quantise]) == ()
