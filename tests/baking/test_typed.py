"""The demo's typed graphs, baked: they keep their types, answer as they did, and become engines."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="exporting needs the extra: pip install 'clipdeploy[export]'")
pytest.importorskip("onnxruntime")

import onnx_ir as ir

import clipdeploy
from bench.typed_graphs import add_typed
from clipdeploy.baking import BakeRequest, bake_bundle
from clipdeploy.baking.graph import head_model, write_baked
from clipdeploy.building.job import BuildRequest, build_engines
from clipdeploy.bundle import Bundle
from clipdeploy.graphs.files import load_graph
from clipdeploy.runtime.ort import OrtSession
from clipdeploy.spec import FrameSpec, Precision, Tower
from tests.engine.products import need, options

LABELS = ("a red circle", "a blue square", "a green triangle")
FRAME = FrameSpec(160, 120, "bgr")
TYPED = (Precision.FP16, Precision.BF16, Precision.INT8)
NARROW = {Precision.FP16: ir.DataType.FLOAT16, Precision.BF16: ir.DataType.BFLOAT16, Precision.INT8: ir.DataType.INT8}


@pytest.fixture(scope="module")
def source(demo_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("typed") / "bundle"
    shutil.copytree(demo_bundle, folder)
    for precision in TYPED:
        add_typed(folder, precision, folder.parent, towers=(Tower.IMAGE,))
    return folder


@pytest.fixture(scope="module")
def door(source: Path) -> Path:
    out = source.parent / "door"
    precisions = tuple(precision.value for precision in (Precision.FP32, *TYPED))
    outcome = bake_bundle(BakeRequest(source, out, LABELS, frame=FRAME, precisions=precisions))
    compared = {graph.precision: graph.max_abs for graph in outcome.graphs}
    assert compared.pop("bf16") is None  # ONNX Runtime does not compute in it
    assert all(apart is not None and apart < 1e-3 for apart in compared.values())
    assert any("does not compute it here" in note for note in outcome.notes)
    return out


def frames() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (3, *FRAME.shape), dtype=np.uint8)


@pytest.mark.parametrize("precision", TYPED)
def test_the_encoder_keeps_its_types_and_the_rest_is_float32(door: Path, precision: Precision) -> None:
    model = load_graph(Bundle.open(door).graph(Tower.IMAGE, precision))
    kinds = {value.dtype for value in model.graph.initializers.values()}
    assert NARROW[precision] in kinds
    ends = [v for v in model.graph.initializers.values() if str(v.name).startswith(("labels/", "frame_"))]
    floats = {value.dtype for value in ends if value.dtype != ir.DataType.INT64}
    assert floats == {ir.DataType.FLOAT}


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.INT8])
def test_each_answers_as_its_own_unbaked_graph(source: Path, door: Path, precision: Precision) -> None:
    target = "tensorrt" if precision.quantised else None
    told = {"precision": precision, "backend": "onnxruntime", "target": target, "self_test": False}
    with clipdeploy.load(source, **told) as clip, clipdeploy.load_baked(door, **told) as baked:
        expected = clip.classify(list(frames()), LABELS, color="bgr")
        answers = baked.classify(frames())
        assert isinstance(answers, list)
        for ours, theirs in zip(answers, expected, strict=True):
            assert ours.labels == theirs.labels
            np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-4)


def test_weights_beside_a_graph(source: Path, door: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(source)
    rows = np.eye(bundle.model.embed_dim, dtype=np.float32)[:2]
    _, weights = write_baked(
        bundle.graph(Tower.IMAGE),
        tmp_path / "whole.onnx",
        front=None,
        head=head_model(rows, bundle.model),
        for_processors=False,
        inline_limit_bytes=0,
    )
    assert weights == tmp_path / "whole.onnx.data" and weights.is_file()
    pixels = np.zeros((2, *bundle.model.image.input.shape[1:]), np.float32)
    ours = OrtSession(tmp_path / "whole.onnx").run(pixels) / bundle.model.logit_scale
    np.testing.assert_allclose(ours, OrtSession(bundle.graph(Tower.IMAGE)).run(pixels)[:, :2], atol=1e-5)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.INT8])
def test_engines_are_built_of_it(door: Path, precision: Precision) -> None:
    backend = need("tensorrt-rtx")
    request = BuildRequest(
        bundle=door, backend=backend, options=options(backend), precision=precision.value, towers=(Tower.IMAGE,)
    )
    (engine,) = build_engines(request).engines
    assert engine.built and engine.record.key.tower is Tower.IMAGE
