"""`clipdeploy frames`, and `clipdeploy export --frame`."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="frame graphs need: pip install 'clipdeploy[engine]'")
pytest.importorskip("onnxruntime", reason="frame graphs are run once: pip install 'clipdeploy[cpu]'")

from clipdeploy.bundle import Bundle
from clipdeploy.spec import FrameSpec
from tests.bundles import make_bundle
from tests.cli.conftest import Run, document, failure


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "tiny")


def test_text(run: Run, own: Path) -> None:
    result = run("frames", own, "--frame", "640x480:bgr", "--frame", "320x240:nv12")
    assert result.exit_code == 0, result.output
    assert "2 frame graphs added" in result.stdout
    assert "frames/640x480-bgr.onnx" in result.stdout and "32x32 at 5,0 of 42x32" in result.stdout
    assert "encode_frames(frames, color='bgr')" in result.stderr and "--frame 640x480:bgr" in result.stderr
    again = run("frames", own, "--frame", "640x480:bgr")
    assert "nothing to do" in again.stdout and "there already" in again.stdout


def test_json(run: Run, own: Path) -> None:
    found = document(run("frames", own, "--frame", "640x480:bgr", "--json"))
    (one,) = found["frames"]
    assert found["bundle"] == str(own)
    assert one["frame"] == {"width": 640, "height": 480, "color": "bgr"}
    assert (one["graph"], one["built"], one["share"]) == ("frames/640x480-bgr.onnx", True, 0)
    assert document(run("frames", own, "--frame", "640x480:bgr", "--overwrite", "--json"))["frames"][0]["built"]


@pytest.mark.parametrize(
    ("frame", "said"),
    [("1080p", "'1080p' is no size of a frame"), ("641x480:nv12", "even sides"), ("64x64:grey", "colour order 'grey'")],
)
def test_wrong_frames(run: Run, own: Path, frame: str, said: str) -> None:
    told = failure(run("frames", own, "--frame", "640x480", "--frame", frame))
    assert said in told and "fix:" in told and "1920x1080" in told
    assert Bundle.open(own).frames() == []


def test_no_frames_and_no_bundle(run: Run, own: Path, tmp_path: Path) -> None:
    assert run("frames", own).exit_code == 2
    assert "does not exist" in failure(run("frames", tmp_path / "none", "--frame", "640x480"))


def test_export(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="exporting needs the extra: pip install 'clipdeploy[export]'")
    from clipdeploy.demo import model_path

    source, folder = f"local-dir:{model_path()}", tmp_path / "bundle"
    wrong = run("export", source, "-o", folder, "--frame", "1080p")
    assert "is no size of a frame" in failure(wrong) and not folder.exists()
    options = ("--frame", "640x480:bgr", "--frame", "640x480:bgr", "--no-verify", "--no-simplify", "--json")
    found = document(run("export", source, "-o", folder, *options))
    assert [one["graph"] for one in found["frames"]] == ["frames/640x480-bgr.onnx"]
    assert Bundle.open(folder).frames() == [FrameSpec(640, 480, "bgr")]
