"""Engines that take raw camera frames: what they are built from, tied to, and refused for."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the tiny bundles are written with onnx")
pytest.importorskip("onnx_ir", reason="building needs the extra: pip install 'clipdeploy[engine]'")
pytest.importorskip("onnxruntime", reason="the imagined GPU computes with it: pip install 'clipdeploy[cpu]'")

from clipdeploy.building.job import BuildRequest, build_engines
from clipdeploy.building.report import document, engine_row, plan_rows
from clipdeploy.bundle import Bundle
from clipdeploy.engine.builder.profiles import frame_profile
from clipdeploy.engine.frames import is_of_frame, join_frame
from clipdeploy.engine.layers.asked import check
from clipdeploy.engine.records import BuildOptions, Built, EngineLayer, EngineTensor, LayerReport
from clipdeploy.engine.store import stale_engines
from clipdeploy.engine.targets.patterns import raw_frames
from clipdeploy.engine_key import Profile
from clipdeploy.errors import BundleCorruptError, InputError
from clipdeploy.frames import FramesRequest, add_frames
from clipdeploy.graphs.files import load_graph, save_graph
from clipdeploy.graphs.floats_first import floats_first
from clipdeploy.inspect import inspect_bundle
from clipdeploy.pack import PackRequest, pack_bundle
from clipdeploy.runtime.backends import open_session
from clipdeploy.runtime.engines import graph_now
from clipdeploy.runtime.selftest.frames import synthetic_frames
from clipdeploy.spec import FrameSpec, Precision, Tower, to_dict
from tests.building.conftest import MACHINES
from tests.bundles import make_bundle

BGR, NV12 = FrameSpec(320, 240, "bgr"), FrameSpec(96, 64, "nv12")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = make_bundle(tmp_path / "tiny")
    add_frames(FramesRequest(folder, (BGR, NV12)))
    return folder


def image(bundle: Path, **more: Any) -> BuildRequest:
    return BuildRequest(bundle, **{"towers": (Tower.IMAGE,), "frames": (BGR,), **more})


@pytest.mark.parametrize("machine", MACHINES, indirect=True)
def test_what_it_is_tied_to(machine: str, bundle: Path) -> None:
    (engine,) = build_engines(image(bundle)).engines
    key, record = engine.record.key, engine.record
    assert (key.frame, key.tower, key.profiles, record.graph) == (BGR, Tower.IMAGE, (Profile(1, 1, 32),), "visual.onnx")
    assert key.name.startswith(f"visual_320x240-bgr_{machine}-")
    assert key.graph_sha256 == graph_now(Bundle.open(bundle), Tower.IMAGE, Precision.FP32, BGR)
    assert "rewritten=floats-first" in key.flags
    assert not [finding for finding in record.findings if finding.state == "bad"]
    (graph,) = [finding for finding in record.findings if finding.check == "graph"]
    assert "of the frame graph in Float" in graph.message
    assert not any(finding.check in ("Float between layers", "TF32") for finding in record.findings)
    assert engine_row(engine)[1] == "frames 320x240:bgr"
    assert build_engines(image(bundle)).engines[0].built is False


def test_the_engine_that_takes_pixels_is_another(machine: str, bundle: Path) -> None:
    build_engines(image(bundle, frames=(BGR, NV12)))
    outcome = build_engines(image(bundle, frames=()))
    assert outcome.engines[0].built and outcome.engines[0].record.key.frame is None
    held = inspect_bundle(bundle)
    assert {engine.key.frame for engine in held.engines} == {BGR, NV12, None} and held.frames == (BGR, NV12)


def test_a_new_frame_graph_makes_its_engine_stale(machine: str, bundle: Path) -> None:
    build_engines(image(bundle, frames=(BGR, NV12)))
    opened = Bundle.open(bundle)
    path = opened.frame_graph(BGR)
    save_graph(load_graph(path), bundle / "again.onnx")  # the same graph, written otherwise
    opened.add_all([replace_file(BGR, bundle / "again.onnx")])
    assert [entry.key.frame for entry in stale_engines(opened).values()] == [BGR]
    assert [engine.stale for engine in inspect_bundle(bundle).engines if engine.key.frame == BGR] == [True]


def replace_file(frame: FrameSpec, source: Path) -> Any:
    from clipdeploy.bundle import NewFile

    return NewFile(frame.graph_name, source, "frame", "tests", frame=frame)


def test_an_altered_frame_graph_is_not_built_from(machine: str, bundle: Path) -> None:
    path = Bundle.open(bundle).frame_graph(BGR)
    path.write_bytes(path.read_bytes() + b"\x00")
    with pytest.raises(BundleCorruptError, match=r"frames/320x240-bgr\.onnx is altered"):
        build_engines(image(bundle))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"frames": (FrameSpec(64, 48),)}, "clipdeploy frames .* --frame 64x48:rgb"),
        ({"frames": (BGR, BGR)}, "given twice"),
        ({"towers": (Tower.TEXT,)}, "pass --tower image"),
        ({"options": BuildOptions(strip_weights=True)}, "leave --strip-weights out"),
    ],
)
def test_refused(machine: str, bundle: Path, more: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=f"(?s){told}"):
        build_engines(image(bundle, **more))


def test_a_plan(machine: str, bundle: Path) -> None:
    outcome = build_engines(image(bundle, towers=tuple(Tower), dry_run=True, frame_profiles=(Profile(2, 2, 2),)))
    framed, text = outcome.plans
    assert (framed.frame, framed.trtexec, text.frame) == (BGR, "", None) and text.trtexec
    rows = dict(plan_rows(framed))
    assert rows["graph"] == "frames/320x240-bgr.onnx and visual.onnx" and rows["batch"] == "2,2,2"
    assert "join: the graph for frames of 320x240:bgr" in rows["stages"]
    assert document(outcome)["plans"][0]["frame"] == to_dict(BGR)
    assert not Bundle.open(bundle).manifest.files.keys() & {"engines"}


def test_keys_without_frames_keep_their_digests(machine: str, bundle: Path) -> None:
    (engine,) = build_engines(image(bundle, frames=())).engines
    told = to_dict(engine.record.key)
    assert told.pop("frame") is None
    assert engine.record.key.digest == hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]
    assert replace(engine.record.key, frame=BGR).digest != engine.record.key.digest


@pytest.mark.parametrize(
    ("frame", "largest"), [("320x240", 32), ("1280x720", 16), ("1920x1080", 8), ("3840x2160", 2), ("16384x16384", 1)]
)
def test_batches_that_fit(frame: str, largest: int) -> None:
    assert frame_profile(FrameSpec.parse(frame)) == Profile(1, 1, largest)


@pytest.mark.parametrize("frame", [BGR, NV12], ids=str)
def test_joined_and_rewritten_it_computes_the_same(bundle: Path, tmp_path: Path, frame: FrameSpec) -> None:
    opened, joined, rewritten = Bundle.open(bundle), tmp_path / "joined.onnx", tmp_path / "rewritten.onnx"
    front, back = opened.frame_graph(frame), opened.graph(Tower.IMAGE)
    join_frame(front, back, joined)
    model = load_graph(joined)
    assert raw_frames(model) and all(map(is_of_frame, raw_frames(model)))
    casts = sum(node.op_type == "Cast" for node in model.graph)
    assert floats_first(model) == 1
    assert not raw_frames(model) and floats_first(model) == 0
    assert sum(node.op_type == "Cast" for node in model.graph) == 1 <= casts
    save_graph(model, rewritten)
    frames = synthetic_frames(frame)
    sessions = [open_session(path, backend="onnxruntime") for path in (front, back, joined, rewritten)]
    expected = sessions[1].run(sessions[0].run(frames))
    for session in sessions[2:]:
        assert (session.input.name, session.input.dtype, session.output.name) == ("frame", "uint8", "image_embeds")
        np.testing.assert_allclose(session.run(frames), expected, rtol=0, atol=1e-6)


def test_tf32_is_no_type_for_frames(bundle: Path, tmp_path: Path) -> None:
    opened, joined = Bundle.open(bundle), tmp_path / "joined.onnx"
    join_frame(opened.frame_graph(BGR), opened.graph(Tower.IMAGE), joined)
    node = next(n for n in load_graph(joined).graph if n.op_type == "MatMul" and is_of_frame(n.name or ""))
    name, door = str(node.name), (EngineTensor("frame", "UInt8"),)
    kernel = "sm80_xmma_gemm_tf32f32_tf32f32_f32_nn"
    floats = (EngineTensor("a", "Float"),)
    layers = [EngineLayer(name, "gemm", floats, floats, (name,), (), kernel)]
    layers.append(EngineLayer("door", "cast", door, (EngineTensor("image_embeds", "Float"),)))
    built = Built(tmp_path / "e", 10_000, 1.0, ("8.9",))
    found = {f.check: f for f in check(joined, Precision.FP32, built, LayerReport("inspector", tuple(layers)))}
    assert found["TF32 of frames"].state == "bad" and name in found["TF32 of frames"].message


def test_packed(machine: str, bundle: Path, tmp_path: Path) -> None:
    build_engines(image(bundle, frames=(BGR, NV12)))
    everything = pack_bundle(PackRequest(bundle, tmp_path / "all"))
    assert everything.frames == (BGR, NV12) and len(everything.engines) == 2
    one = pack_bundle(PackRequest(bundle, tmp_path / "one", frames=(NV12,)))
    assert one.frames == (NV12,) and [name.split("_")[1] for name in one.engines] == ["96x64-nv12"]
    packed = Bundle.open(tmp_path / "one")
    assert packed.frames() == [NV12] and not stale_engines(packed)
    assert BGR.graph_name in one.left
    none = pack_bundle(PackRequest(bundle, tmp_path / "text", towers=(Tower.TEXT,)))
    assert none.frames == () and none.engines == ()
    with pytest.raises(InputError, match="no graph for frames of 64x48:rgb"):
        pack_bundle(PackRequest(bundle, tmp_path / "no", frames=(FrameSpec(64, 48),)))
    with pytest.raises(InputError, match="go with the image encoder"):
        pack_bundle(PackRequest(bundle, tmp_path / "no", towers=(Tower.TEXT,), frames=(BGR,)))
