"""clipdeploy build-engine: its text, its JSON, its notes and its refusals, over an imagined TensorRT for RTX."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx_ir", reason="building needs the extra: pip install 'clipdeploy[engine]'")
pytest.importorskip("onnxruntime", reason="the imagined GPU computes with it: pip install 'clipdeploy[cpu]'")

from clipdeploy.building import job
from clipdeploy.bundle import Bundle
from clipdeploy.machine import Hardware
from tests.bundles import make_bundle
from tests.cli.conftest import Run, document, failure
from tests.engine.fake_tensorrt import make

GIVEN = ("--backend", "tensorrt-rtx", "--compute-capability", "8.6,sm89")


@pytest.fixture
def rtx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", make("tensorrt_rtx-1.7.1"))
    monkeypatch.setattr(job, "find_hardware", lambda: Hardware(None, (), None))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "tiny")


@pytest.mark.usefixtures("rtx")
def test_engines_as_a_table(run: Run, tiny: Path) -> None:
    result = run("build-engine", tiny, *GIVEN)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("tensorrt-rtx 1.7.1")
    assert "2 engines built" in result.stdout
    header, image, text = (line.split() for line in result.stdout.splitlines()[2:5])
    assert header == ["tower", "takes", "precision", "size", "seconds", "layers", "attention", "fused", "folder"]
    assert (image[:3], text[:3]) == (["image", "pixels", "fp32"], ["text", "tokens", "fp32"])
    assert re.search(r"no attention +built  engines/visual_tensorrt-rtx-1\.7\.1", result.stdout)
    assert "good  graph" in result.stdout
    assert f"clipdeploy inspect {tiny}/engines/visual_" in result.stderr
    assert f"clipdeploy verify {tiny} --backend tensorrt-rtx --precision fp32" in result.stderr
    again = run("build-engine", tiny, *GIVEN)
    assert again.exit_code == 0
    assert "2 engines there already, nothing done; --overwrite builds again" in again.stdout


@pytest.mark.usefixtures("rtx")
def test_json(run: Run, tiny: Path) -> None:
    given = ("--tower", "text", "--batch", "2,4,8", "--batch", "1", "--workspace", "256MiB")
    answer = document(run("build-engine", tiny, *GIVEN, *given, "--json"))
    (engine,) = answer["engines"]
    assert (engine["tower"], engine["built"], answer["quantised"]) == ("text", True, [])
    assert engine["key"]["compute_capabilities"] == ["8.6", "8.9"]
    assert engine["key"]["flags"] == ["workspace=256MiB"]
    assert [profile["largest"] for profile in engine["key"]["profiles"]] == [1, 8]
    assert engine["size_bytes"] == Bundle.open(tiny).manifest.files[f"{engine['folder']}/engine.plan"].size_bytes


@pytest.mark.usefixtures("rtx")
def test_an_engine_for_frames(run: Run, tiny: Path, tmp_path: Path) -> None:
    said = failure(run("build-engine", tiny, *GIVEN, "--frame", "320x240:bgr"))
    assert f"clipdeploy frames {tiny} --frame 320x240:bgr" in said
    assert run("frames", tiny, "--frame", "320x240:bgr", "--frame", "96x64:nv12").exit_code == 0
    dry = run("build-engine", tiny, *GIVEN, "--frame", "320x240:bgr", "--dry-run").stdout
    assert "image encoder for frames of 320x240:bgr, fp32" in dry and "text encoder" not in dry
    assert "TensorRT's own tool" not in dry
    result = run("build-engine", tiny, *GIVEN, "--frame", "320x240:bgr")
    assert result.exit_code == 0, result.stderr
    assert re.search(
        r"image  frames 320x240:bgr  fp32 .* built  engines/visual_320x240-bgr_tensorrt-rtx", result.stdout
    )
    shown = run("inspect", tiny).stdout
    assert re.search(r"image fp32 of frames 320x240:bgr, tensorrt-rtx 1\.7\.1\S* for 8\.6, 8\.9", shown)
    assert re.search(r"frames +320x240:bgr\n +96x64:nv12\n", shown)
    packed = document(run("pack", tiny, "-o", tmp_path / "device", "--frame", "320x240:bgr", "--json"))
    assert packed["frames"] == [{"width": 320, "height": 240, "color": "bgr"}] and len(packed["engines"]) == 1
    assert "frames/96x64-nv12.onnx" in packed["left"]


@pytest.mark.usefixtures("rtx")
def test_allow_reaches_the_build(run: Run, tiny: Path) -> None:
    given = ("--tower", "text", "--allow", "fallback", "--allow", "rotary-vit")
    (engine,) = document(run("build-engine", tiny, *GIVEN, *given, "--json"))["engines"]
    assert engine["key"]["flags"] == ["allow=fallback"]


@pytest.mark.usefixtures("rtx")
def test_a_dry_run(run: Run, tiny: Path) -> None:
    result = run("build-engine", tiny, *GIVEN, "--dry-run")
    assert result.exit_code == 0
    for words in (
        "nothing is built with --dry-run",
        "sm_86 sm_89",
        "1,1,32",
        "engine.plan",
        "The same with TensorRT's",
    ):
        assert words in result.stdout
    assert "\n  tensorrt_rtx --onnx=" in result.stdout
    assert not (tiny / "engines").exists()
    plans = document(run("build-engine", tiny, *GIVEN, "--dry-run", "--json"))["plans"]
    assert [plan["there"] for plan in plans] == [False, False]


@pytest.mark.usefixtures("rtx")
def test_what_is_refused(run: Run, tiny: Path) -> None:
    told = failure(run("build-engine", tiny, *GIVEN, "--precision", "fp8"))
    assert "holds no fp8 graph for TensorRT" in told
    assert f"clipdeploy quantize {tiny} --precision fp8 --tower both" in told
    assert "--version-compatible out" in failure(run("build-engine", tiny, *GIVEN, "--version-compatible"))
    assert "MIN <= OPT <= MAX, got 8,1,2" in failure(run("build-engine", tiny, *GIVEN, "--batch", "8,1,2"))
    assert "no compute capability: 'ada'" in failure(run("build-engine", tiny, "--compute-capability", "ada"))
    told = failure(run("build-engine", tiny, *GIVEN, "--allow", "rotary-vat"))
    assert "unknown name for --allow: rotary-vat" in told and "fallback, attention-operator" in told
    assert "--strip-weights out" in failure(run("build-engine", tiny, *GIVEN, "--strip-weights"))
    assert run("build-engine", tiny, "--workspace", "much").exit_code == 2
    assert not (tiny / "engines").exists()


def test_a_product_that_is_not_installed(run: Run, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setattr(job, "find_hardware", lambda: Hardware(None, (), None))
    told = failure(run("build-engine", tiny, "--backend", "tensorrt-rtx"))
    assert "TensorRT for RTX" in told and "clipdeploy[tensorrt-rtx]" in told
