"""The demo's image encoder behind a frame graph, in every precision: through the runtime, and as one engine."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="exporting needs the extra: pip install 'clipdeploy[export]'")
pytest.importorskip("onnxruntime", reason="frame graphs are run once: pip install 'clipdeploy[cpu]'")

from bench.typed_graphs import add_typed, typed_graph
from clipdeploy.bundle import Bundle
from clipdeploy.engine.builder.build import build
from clipdeploy.engine.product import find_product
from clipdeploy.engine.records import BuildMachine
from clipdeploy.frames import FramesRequest, add_frames
from clipdeploy.graphs.files import load_graph, save_graph
from clipdeploy.graphs.floats_first import floats_first
from clipdeploy.graphs.join import join_files
from clipdeploy.runtime.backends import open_session
from clipdeploy.spec import FrameSpec, Precision, Tower
from tests.engine.products import need, options
from tests.frames.frames import as_frame, expected, noise

HD = FrameSpec(1280, 720, "bgr")
TYPED = (Precision.FP16, Precision.BF16, Precision.INT8)


@pytest.fixture(scope="module")
def bundle(demo_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo with typed graphs and a graph for frames."""
    folder = tmp_path_factory.mktemp("framed") / "bundle"
    shutil.copytree(demo_bundle, folder)
    for precision in TYPED:
        add_typed(folder, precision, folder.parent, towers=(Tower.IMAGE,))
    add_frames(FramesRequest(folder, (HD, "640x480:nv12")))
    return folder


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.INT8])
def test_pixels_of_a_frame_are_those_of_its_picture(bundle: Path, precision: Precision, photos: list[Path]) -> None:
    """So that the encoder behind them, whatever it computes in, gives the same numbers to the last bit."""
    frames = np.stack([as_frame(photo, HD) for photo in photos[:2]])
    opened = Bundle.open(bundle, check_hashes=False)
    front = open_session(opened.frame_graph(HD), backend="onnxruntime")
    tower = open_session(opened.graph(Tower.IMAGE, precision), backend="onnxruntime", as_written=True)
    np.testing.assert_array_equal(tower.run(front.run(frames)), tower.run(expected(frames, HD, opened.model.pixels)))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_joined_to_one_graph(bundle: Path, engine: str, tmp_path: Path) -> None:
    pytest.importorskip(engine)
    opened = Bundle.open(bundle, check_hashes=False)
    whole = tmp_path / "whole.onnx"
    join_files(opened.frame_graph(HD), opened.graph(Tower.IMAGE), whole)
    frames = noise(HD, 2)
    tower = open_session(opened.graph(Tower.IMAGE), backend=engine)
    apart = tower.run(expected(frames, HD, opened.model.pixels))
    together = open_session(whole, backend=engine).run(frames)
    np.testing.assert_allclose(together, apart, rtol=0, atol=2e-6)


@pytest.mark.parametrize("color", ["bgr", "nv12"])
def test_an_engine_of_frames_alone(bundle: Path, color: str, tmp_path: Path) -> None:
    need("tensorrt-rtx")
    frame = HD if color == "bgr" else FrameSpec(640, 480, "nv12")
    assert engine_bytes(Bundle.open(bundle, check_hashes=False).frame_graph(frame), tmp_path) > 10_000


@pytest.mark.parametrize("precision", [Precision.FP32, *TYPED])
def test_an_engine_of_frames_and_encoder(bundle: Path, precision: Precision, tmp_path: Path) -> None:
    need("tensorrt-rtx")
    opened = Bundle.open(bundle, check_hashes=False)
    tower = opened.graph(Tower.IMAGE, precision)
    join_files(opened.frame_graph(HD), tower, tmp_path / "whole.onnx")
    assert engine_bytes(tmp_path / "whole.onnx", tmp_path) > 0.9 * tower.stat().st_size


def engine_bytes(graph: Path, scratch: Path) -> int:
    """Size of the engine that TensorRT for RTX builds of a graph of frames."""
    model = load_graph(graph)
    floats_first(model)
    save_graph(model, scratch / "floats_first.onnx")
    plan, product = scratch / "engine.plan", find_product("tensorrt-rtx")
    built = build(scratch / "floats_first.onnx", plan, options("tensorrt-rtx"), product, machine=BuildMachine())
    assert plan.stat().st_size == built.size_bytes
    return built.size_bytes


def test_typing_leaves_the_frames_alone(bundle: Path, tmp_path: Path) -> None:
    """A graph joined first and typed afterwards would round pixels: towers are typed, then joined."""
    opened = Bundle.open(bundle, check_hashes=False)
    half = typed_graph(opened.graph(Tower.IMAGE), tmp_path / "half.onnx", Tower.IMAGE, Precision.FP16)
    join_files(opened.frame_graph(HD), half, tmp_path / "whole.onnx")
    products = [node for node in load_graph(tmp_path / "whole.onnx").graph.all_nodes() if node.op_type == "MatMul"]
    of_frames = [node for node in products if str(node.outputs[0].name).startswith("frame_")]
    assert len(of_frames) >= 2
    for node in of_frames:
        constants = [value for value in node.inputs if value is not None and value.const_value is not None]
        assert [str(value.dtype) for value in constants] == ["FLOAT"]
