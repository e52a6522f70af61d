"""The whole job over the recorded API of each product: what a build asks, keeps, finds again and refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx", reason="the tiny bundles are written with onnx")
pytest.importorskip("onnx_ir", reason="building needs the extra: pip install 'clipdeploy[engine]'")
pytest.importorskip("onnxruntime", reason="the imagined GPU computes with it: pip install 'clipdeploy[cpu]'")

from clipdeploy.building import job
from clipdeploy.building.job import BuildRequest, build_engines
from clipdeploy.building.report import document, engine_row, plan_rows
from clipdeploy.bundle import Bundle
from clipdeploy.engine.records import BuildOptions
from clipdeploy.engine_key import Profile
from clipdeploy.errors import BundleCorruptError, EngineError, InputError
from clipdeploy.findings import Finding
from clipdeploy.runtime.engines import engines_of
from clipdeploy.spec import Precision, Tower
from tests.building.conftest import MACHINES
from tests.building.folders import content, hidden
from tests.bundles import make_bundle


def image(bundle: Path, **more: Any) -> BuildRequest:
    return BuildRequest(bundle, towers=(Tower.IMAGE,), **more)


@pytest.mark.parametrize("machine", MACHINES, indirect=True)
def test_what_an_engine_is_tied_to(machine: str, bundle: Path) -> None:
    options = BuildOptions(profiles=(Profile(1, 1, 1), Profile(2, 4, 8)), optimization_level=2)
    (engine,) = build_engines(image(bundle, options=options)).engines
    key = engine.record.key
    assert (key.backend, key.tower, key.precision) == (machine, Tower.IMAGE, Precision.FP32)
    assert (key.profiles, key.flags) == (options.profiles, ("optimization-level=2",))
    assert key.graph_sha256 == Bundle.open(bundle).manifest.files["visual.onnx"].sha256
    tied = (key.gpu, key.compute_capabilities, key.jetpack)
    if machine == "tensorrt-rtx":
        assert tied == (None, ("8.0", "8.6", "8.9", "12.0", "12.1"), None)
    elif key.version.startswith("10."):
        assert tied == ("Jetson Orin Nano", ("8.7",), "6.2")
    else:
        assert tied == ("NVIDIA L4", ("8.9",), None)
    assert engine.record.tools[machine] == key.version
    assert list(engines_of(Bundle.open(bundle))) == [key.name]


@pytest.mark.parametrize(
    ("machine", "options", "source"),
    [
        ("tensorrt-11.4.0", BuildOptions(), "inspector"),
        ("tensorrt-10.3.0", BuildOptions(detailed=True), "inspector"),
        ("tensorrt-10.3.0", BuildOptions(), "build log"),  # the engine tells the names alone
        ("tensorrt-11.4.0", BuildOptions(strip_weights=True), "build log"),
        ("tensorrt_rtx-1.7.1", BuildOptions(), "build log"),
    ],
    indirect=["machine"],
)
def test_who_tells_of_the_layers(machine: str, bundle: Path, options: BuildOptions, source: str) -> None:
    (engine,) = build_engines(image(bundle, options=options)).engines
    report = engine.record.report
    assert report.source == source
    assert {tensor.dtype for layer in report.layers for tensor in layer.outputs} >= {"Float"}


@pytest.mark.parametrize("machine", ["tensorrt-11.4.0"], indirect=True)
def test_an_engine_that_cannot_be_looked_at_is_built_all_the_same(
    machine: str, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime: Any = sys.modules["tensorrt"].Runtime
    monkeypatch.setattr(runtime, "deserialize_cuda_engine", lambda self, serialized_engine: None)
    (engine,) = build_engines(image(bundle)).engines
    assert (engine.built, engine.record.report.source) == (True, "build log")


def test_it_is_built_once_and_again_when_asked(machine: str, bundle: Path) -> None:
    first = build_engines(BuildRequest(bundle))
    assert [engine.built for engine in first.engines] == [True, True]
    held = content(bundle)
    second = build_engines(BuildRequest(bundle))
    assert [engine.built for engine in second.engines] == [False, False]
    assert [engine.record for engine in second.engines] == [engine.record for engine in first.engines]
    assert [(plan.there, plan.stages) for plan in second.plans] == [(True, ())] * 2
    assert content(bundle) == held
    third = build_engines(BuildRequest(bundle, overwrite=True))
    assert [engine.built for engine in third.engines] == [True, True]
    assert content(bundle).keys() == held.keys()
    assert hidden(bundle) == []


def test_a_dry_run_does_nothing(machine: str, bundle: Path) -> None:
    before = content(bundle)
    outcome = build_engines(BuildRequest(bundle, dry_run=True))
    assert outcome.engines == () and content(bundle) == before
    plan = outcome.plans[0]
    assert plan.key is not None and plan.folder == f"engines/{plan.key.name}"
    rows = dict(plan_rows(plan))
    assert rows["files"].splitlines() == [f"{plan.folder}/engine.plan", f"{plan.folder}/engine.json"]
    assert [line.split(":")[0] for line in rows["stages"].splitlines()] == [
        "lock",
        "check",
        "memory",
        "build",
        "look",
        "store",
    ]
    assert plan.trtexec.startswith(f"tensorrt_rtx --onnx={bundle}/visual.onnx ")
    assert document(outcome)["plans"][0]["key"]["tower"] == "image"
    build_engines(BuildRequest(bundle))
    assert dict(plan_rows(build_engines(BuildRequest(bundle, dry_run=True)).plans[0]))["state"].endswith(
        "nothing to do"
    )


def test_a_graph_that_is_not_there(machine: str, bundle: Path) -> None:
    with pytest.raises(InputError) as caught:
        build_engines(BuildRequest(bundle, precision="int8"))
    assert caught.value.message.endswith(
        "holds no int8 graph for TensorRT of the image and text encoders; an engine takes its types from the graph"
    )
    command = f"clipdeploy quantize {bundle} --precision int8 --tower both --calibration-data PICTURES --texts FILE"
    assert command in str(caught.value.fix) and "--calibration-data here" in str(caught.value.fix)


def test_a_graph_that_one_encoder_has(machine: str, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "typed", precisions=(Precision.FP32, Precision.FP16))
    opened = Bundle.open(bundle)
    opened.add_all([], without=["textual_fp16.onnx"])
    with pytest.raises(InputError, match="no fp16 graph of the text encoder;") as caught:
        build_engines(BuildRequest(bundle, precision="fp16"))
    assert str(caught.value.fix).startswith("build the image encoder alone: --tower image; or make it: ")


def test_what_would_be_quantised_first(machine: str, bundle: Path) -> None:
    outcome = build_engines(image(bundle, precision="int8", data=("photos/",), dry_run=True))
    (plan,) = outcome.plans
    assert (plan.quantise, plan.key, plan.folder, plan.there) == (True, None, None, False)
    assert plan.stages[0] == "quantise: photos/"
    rows = dict(plan_rows(plan))
    assert rows["graph"] == "visual_int8.onnx, made first from the calibration data"
    assert "known when the graph is there" in rows["key"]
    assert "visual_int8.onnx" in plan.trtexec


@pytest.mark.parametrize(
    ("machine", "more", "message"),
    [
        ("tensorrt-10.3.0", {}, "8.7"),
        ("tensorrt_rtx-1.7.1", {"compute_capabilities": ("8.6",)}, "8.6"),
        ("tensorrt_rtx-1.7.1", {"version_compatible": True}, "lean runtime"),
    ],
    indirect=["machine"],
)
def test_what_cannot_be_is_told_before_quantising(
    machine: str, bundle: Path, more: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "_quantise", lambda *args: pytest.fail("it quantises first"))
    with pytest.raises(EngineError, match=message):
        build_engines(image(bundle, precision="fp8", data=("photos/",), options=BuildOptions(**more)))


def test_an_engine_that_is_not_what_was_asked(machine: str, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = Finding("size", "bad", "twice the weights", "build again")
    monkeypatch.setattr(job, "check", lambda *args: (bad, Finding("layers", "good", "as asked")))
    before = content(bundle)
    with pytest.raises(EngineError, match=r"(?s)visual\.onnx is not what was asked.*size: twice the weights") as caught:
        build_engines(BuildRequest(bundle))
    assert caught.value.fix == "build again"
    assert content(bundle) == before
    assert hidden(bundle) == []


def test_a_graph_that_was_altered(machine: str, bundle: Path) -> None:
    graph = bundle / "visual.onnx"
    held = graph.read_bytes()
    graph.write_bytes(held[:-1] + bytes([held[-1] ^ 1]))
    with pytest.raises(BundleCorruptError, match=r"visual\.onnx is altered"):
        build_engines(image(bundle))
    graph.write_bytes(held)
    assert "engines" not in "".join(content(bundle))


@pytest.mark.parametrize("machine", ["tensorrt-10.3.0"], indirect=True)
def test_the_timing_cache_goes_beside_the_engine(machine: str, bundle: Path, tmp_path: Path) -> None:
    cache = tmp_path / "timings"
    (engine,) = build_engines(image(bundle, options=BuildOptions(timing_cache=cache))).engines
    assert (bundle / engine.folder / "timing.cache").read_bytes() == cache.read_bytes()
    Bundle.open(bundle)


def test_the_first_of_two_stays_when_the_second_fails(machine: str, bundle: Path) -> None:
    text = bundle / "textual.onnx"
    held = text.read_bytes()
    text.write_bytes(held.replace(b"text_embeds", b"test_embeds"))  # the same length
    with pytest.raises(BundleCorruptError, match=r"textual\.onnx is altered"):
        build_engines(BuildRequest(bundle))
    text.write_bytes(held)
    assert [entry.key.tower for entry in engines_of(Bundle.open(bundle)).values()] == [Tower.IMAGE]


def test_what_is_told_of_an_engine(machine: str, bundle: Path) -> None:
    outcome = build_engines(image(bundle))
    (engine,) = outcome.engines
    told = json.loads(json.dumps(document(outcome)))
    assert told["plans"] == []
    assert told["engines"][0]["layers"]["count"] == len(engine.record.report.layers)
    assert told["engines"][0]["key"]["profiles"] == [{"smallest": 1, "usual": 1, "largest": 32}]
    assert engine_row(engine)[-2:] == ("built", engine.folder)
