"""Weights are held once: what is written is copied piece by piece, and what is done with is let go."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxscript", reason="exporting needs the extra: pip install 'clipdeploy[export]'")

import onnx
import onnx_ir as ir

from clipdeploy.export.graph.trace import trace_tower
from clipdeploy.graphs.files import load_graph, save_graph
from clipdeploy.graphs.inline import write_inline
from clipdeploy.spec import Tower
from clipdeploy.verify.reference import CheckpointReference, Picture
from tests.export import tiny


def large(count: int, size: int) -> ir.Model:
    """A graph that adds `count` constants of `size` float32 each to its input, and one that is small."""
    model = ir.from_onnx_text(
        f"""<ir_version: 9, opset_import: ["": 19]>
        agraph (float[N, {size}] x) => (float[N, {size}] y) <float[1] small = {{0.5}}> {{ y = Add (x, small) }}"""
    )
    value = model.graph.outputs[0]
    for number in range(count):
        array = np.random.default_rng(number).standard_normal(size, dtype=np.float32)
        weight = ir.val(f"weight_{number}", const_value=ir.tensor(array, name=f"weight_{number}"))
        model.graph.register_initializer(weight)
        node = ir.node("Add", [value, weight])
        node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = f"sum_{number}", value.type, value.shape
        model.graph.append(node)
        value = node.outputs[0]
    model.graph.outputs[0] = value
    return model


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_file_is_what_protobuf_would_write(tmp_path: Path, count: int) -> None:
    model = large(count, 3000)
    before = {name: value.const_value for name, value in model.graph.initializers.items()}
    write_inline(model, tmp_path / "graph.onnx", size_threshold_bytes=1024)
    expected = ir.to_proto(model)
    assert onnx.load(tmp_path / "graph.onnx") == expected
    assert (tmp_path / "graph.onnx").stat().st_size == expected.ByteSize()
    assert {name: value.const_value for name, value in model.graph.initializers.items()} == before


def test_weights_from_a_file_beside_are_copied_one_by_one(tmp_path: Path) -> None:
    model = large(8, 500_000)
    save_graph(model, tmp_path / "apart.onnx", inline_limit_bytes=0)
    apart = load_graph(tmp_path / "apart.onnx")
    tracemalloc.start()
    save_graph(apart, tmp_path / "whole.onnx")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "whole.onnx").stat().st_size > 16_000_000
    assert peak_bytes < 4_000_000
    assert onnx.load(tmp_path / "whole.onnx") == ir.to_proto(model)


def test_a_traced_network_is_let_go(tmp_path: Path) -> None:
    model = tiny.clip("vit")
    network = tiny.traced(model, Tower.IMAGE)
    copied = weakref.ref(network.visual.transformer.resblocks[0].attn.qkv.weight)
    assert copied() is not None
    trace_tower(network, tiny.spec(model, Tower.IMAGE), tmp_path / "visual.onnx", opset=19)
    del network
    gc.collect()
    assert copied() is None, "the exporter keeps the weights of what it traced"


def test_a_settled_reference_needs_its_checkpoint_no_more(tmp_path: Path) -> None:
    from PIL import Image

    from tests.verify.fakes import FakeCheckpoint

    pictures = [Picture(f"{shade}.png", tmp_path / f"{shade}.png") for shade in (10, 200)]
    for picture, shade in zip(pictures, (10, 200), strict=True):
        Image.new("RGB", (50, 40), (shade, 90, 30)).save(picture.path)
    checkpoint = FakeCheckpoint()
    alive = weakref.ref(checkpoint)
    reference = CheckpointReference(checkpoint, pictures, ["a cat", "a dog"])  # type: ignore[arg-type]
    reference.settle()
    del checkpoint
    assert alive() is None
    assert reference.image_embeds.shape[0] == 2
    assert reference.text_embeds.shape[0] == 2
