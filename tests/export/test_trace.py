"""A traced graph: valid at its opset, dynamic in batch alone, lean, and as exact as the checkpoint."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxscript", reason="exporting needs the extra: pip install 'clipdeploy[export]'")
pytest.importorskip("onnxruntime", reason="running graphs needs the extra: pip install 'clipdeploy[cpu]'")

import dataclasses

import onnx
import onnx_ir as ir
import torch
from torch import nn

from clipdeploy.errors import ExportError
from clipdeploy.export.graph.opset import lower_opset
from clipdeploy.export.graph.trace import trace_tower
from clipdeploy.graphs.files import data_path, load_graph, save_graph
from clipdeploy.runtime.ort import OrtSession
from clipdeploy.spec import TensorSpec, Tower
from tests.export import tiny
from tests.export.conftest import Trace

OTHERS = [
    ("quickgelu", Tower.IMAGE),
    ("resnet", Tower.IMAGE),
    ("norms_everywhere", Tower.IMAGE),
    ("coca", Tower.IMAGE),
    ("siglip", Tower.IMAGE),
    ("mean_pool", Tower.TEXT),
    ("mean_pool_then_norm", Tower.TEXT),
    ("siglip_text", Tower.TEXT),
    ("coca", Tower.TEXT),
    ("roberta", Tower.TEXT),
]


def worst_difference(graph: Path, name: str, tower: Tower) -> float:
    """Against the checkpoint, in batches of 1, 2 and 5."""
    model, session = tiny.clip(name), OrtSession(graph)
    batch = tiny.samples(model, tower, 5)
    expected = tiny.reference(model, tower, batch).numpy()
    return max(float(np.abs(session.run(batch[:n].numpy()) - expected[:n]).max()) for n in (1, 2, 5))


@pytest.mark.parametrize(
    ("opset", "tower"),
    [(17, Tower.IMAGE), (17, Tower.TEXT), (19, Tower.IMAGE), (19, Tower.TEXT), (21, Tower.TEXT), (23, Tower.IMAGE)],
)
def test_every_opset_is_valid_and_exact(trace: Trace, opset: int, tower: Tower) -> None:
    graph = trace("vit", tower, opset)
    onnx.checker.check_model(str(graph), full_check=True)
    assert [(o.domain, o.version) for o in onnx.load(graph).opset_import] == [("", opset)]
    assert worst_difference(graph, "vit", tower) <= 1e-5


@pytest.mark.parametrize(("name", "tower"), OTHERS)
def test_every_architecture_is_valid_and_exact(trace: Trace, name: str, tower: Tower) -> None:
    graph = trace(name, tower)
    onnx.checker.check_model(str(graph), full_check=True)
    assert worst_difference(graph, name, tower) <= 1e-5


@pytest.mark.parametrize(("name", "tower"), [("vit", Tower.IMAGE), ("vit", Tower.TEXT), *OTHERS])
def test_batch_is_the_only_dynamic_axis(trace: Trace, name: str, tower: Tower) -> None:
    spec = tiny.spec(tiny.clip(name), tower)
    session = OrtSession(trace(name, tower))
    assert session.input == spec.input
    assert session.output == spec.output


@pytest.mark.parametrize("tower", Tower)
def test_layer_norms_are_native_and_attention_is_explicit(trace: Trace, tower: Tower) -> None:
    kinds = Counter(node.op_type for node in onnx.load(trace("vit", tower)).graph.node)
    # two blocks of two norms, the last block's first norm once more for its one token, one or two outside
    assert kinds["LayerNormalization"] == (7 if tower is Tower.IMAGE else 6)
    assert kinds["Softmax"] == 2
    assert kinds["MatMul"] == 5, "two products a block and the projection; all other layers carry their bias"
    assert not kinds.keys() & {"Attention", "Shape", "Range", "Expand", "Where", "Pow", "ReduceMean", "Identity"}


@pytest.mark.parametrize("tower", Tower)
def test_a_block_costs_at_most_23_nodes(trace: Trace, tmp_path: Path, tower: Tower) -> None:
    two = len(onnx.load(trace("vit", tower)).graph.node)
    model = tiny.clip("vit")
    blocks = (model.visual if tower is Tower.IMAGE else model).transformer.resblocks
    blocks.insert(0, blocks[0])
    trace_tower(tiny.traced(model, tower), tiny.spec(model, tower), tmp_path / "graph.onnx", opset=19)
    per_block = len(onnx.load(tmp_path / "graph.onnx").graph.node) - two
    assert 0 < per_block <= 23
    assert two + 10 * per_block < 300, "twelve blocks stay below 300 nodes"


@pytest.mark.parametrize("name", ["vit", "coca"])
def test_masks_are_finite_also_in_float16(trace: Trace, name: str) -> None:
    constants = [v.const_value.numpy() for v in ir.load(trace(name, Tower.TEXT)).graph.initializers.values()]
    floats = [c for c in constants if c.dtype == np.float32]
    assert min(float(c.min()) for c in floats) == -1e4
    assert all(np.isfinite(c.astype(np.float16)).all() for c in floats)


@pytest.mark.parametrize("name", ["vit", "mean_pool"])
def test_the_end_of_text_is_looked_for_in_int32(trace: Trace, name: str) -> None:
    model = onnx.shape_inference.infer_shapes(onnx.load(trace(name, Tower.TEXT)))
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    inputs = [types[node.input[0]] for node in model.graph.node if node.op_type == "ArgMax"]
    assert inputs == [onnx.TensorProto.INT32]


@pytest.mark.parametrize("tower", Tower)
def test_a_graph_names_its_maker_and_no_file(trace: Trace, tower: Tower) -> None:
    path = trace("vit", tower)
    model = onnx.load(path)
    assert (model.producer_name, model.graph.name) == ("clipdeploy", f"tiny {tower.value}")
    assert not model.metadata_props
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    assert not any(word in path.read_bytes() for word in (b".py", b"site-packages", b"stack_trace"))


def test_large_weights_lie_beside_the_graph(tmp_path: Path) -> None:
    model, path = tiny.clip("vit"), tmp_path / "visual.onnx"
    spec = tiny.spec(model, Tower.IMAGE)
    trace_tower(tiny.traced(model, Tower.IMAGE), spec, path, opset=19, inline_limit_bytes=10_000)
    assert path.stat().st_size < 100_000 < data_path(path).stat().st_size
    assert sorted(p.name for p in tmp_path.iterdir()) == ["visual.onnx", "visual.onnx.data"]
    assert worst_difference(path, "vit", Tower.IMAGE) <= 1e-5
    save_graph(load_graph(path), path)
    assert worst_difference(path, "vit", Tower.IMAGE) <= 1e-5
    assert [p.name for p in tmp_path.iterdir()] == ["visual.onnx"], "stale weights stayed behind"


@pytest.mark.parametrize("opset", [16, 24])
def test_an_opset_that_is_not_offered_is_refused(tmp_path: Path, opset: int) -> None:
    model = tiny.clip("vit")
    with pytest.raises(ExportError, match=f"opset {opset} .* expected 17 to 23"):
        trace_tower(tiny.traced(model, Tower.IMAGE), tiny.spec(model, Tower.IMAGE), tmp_path / "g.onnx", opset=opset)
    assert not list(tmp_path.iterdir())


def test_an_encoder_that_gives_no_single_embedding_is_refused(tmp_path: Path) -> None:
    model = tiny.clip("vit")
    spec = tiny.spec(model, Tower.IMAGE)
    wrong = dataclasses.replace(spec, output=TensorSpec("image_embeds", "float32", ("batch", 31)))
    with pytest.raises(ExportError, match=r"\('batch', 32\).*expected \('batch', 31\)"):
        trace_tower(tiny.traced(model, Tower.IMAGE), wrong, tmp_path / "g.onnx", opset=19)
    assert not list(tmp_path.iterdir())


def test_a_network_that_cannot_be_traced_is_one_clear_error(tmp_path: Path) -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, :32] if float(x.sum()) > 0 else x.flatten(1)[:, 32:64]

    spec = tiny.spec(tiny.clip("vit"), Tower.IMAGE)
    with pytest.raises(ExportError, match=r"image encoder .* cannot be traced at opset 19") as caught:
        trace_tower(Branching(), spec, tmp_path / "g.onnx", opset=19)
    assert caught.value.__cause__ is not None


def test_lowering_refuses_what_opset_17_cannot_say() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 18]>
        agraph (float[N, 4] x) => (float[N, 4] y) { y = Mish (x) }"""
    )
    with pytest.raises(ExportError, match="Mish of opset 18 has no counterpart in opset 17"):
        lower_opset(model, 17)
