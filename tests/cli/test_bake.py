"""clipdeploy bake."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")

import clipdeploy
from tests.cli.conftest import Run, document, failure


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.txt"
    path.write_text("ein Hund\n\nKatze, größer\n", encoding="utf-8")
    return path


def test_labels_and_frames(run: Run, bundle: Path, labels: Path, tmp_path: Path) -> None:
    result = run("bake", bundle, "--labels", labels, "--frame", "96x64:bgr", "-o", tmp_path / "door")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{tmp_path / 'door'}: ")
    assert "takes           frames of 96x64:bgr" in result.stdout
    assert "gives           2 labels, a photo of a {}." in result.stdout
    assert "it holds no golden samples" in result.stderr
    with clipdeploy.load_baked(tmp_path / "door") as baked:
        assert baked.labels == ("ein Hund", "Katze, größer")
    shown = run("inspect", tmp_path / "door").stdout
    assert "frame uint8 (batch, 64, 96, 3) to logits float32 (batch, 2)" in shown
    assert "2: ein Hund, Katze, größer" in shown
    assert document(run("inspect", tmp_path / "door", "--json"))["baked"]["frame"] == {
        "width": 96, "height": 64, "color": "bgr",
    }  # fmt: skip


def test_json(run: Run, bundle: Path, tmp_path: Path) -> None:
    answer = document(run("bake", bundle, "--labels", "a, b", "--template", "{}", "-o", tmp_path / "out", "--json"))
    assert (answer["labels"], answer["templates"], answer["frame"]) == (["a", "b"], ["{}"], None)
    assert [graph["name"] for graph in answer["graphs"]] == ["visual.onnx"]


def test_embeddings(run: Run, bundle: Path, tmp_path: Path) -> None:
    assert "gives           embeddings" in run("bake", bundle, "--embeddings", "-o", tmp_path / "eyes").stdout


def test_what_does_not_go_together(run: Run, bundle: Path, labels: Path, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "out")
    assert "--embeddings goes without labels" in run("bake", bundle, "--embeddings", "--label", "a", *out).stderr
    assert "Give labels: " in run("bake", bundle, *out).stderr
    labels.write_text("\n", encoding="utf-8")
    for arguments, message in (
        (("--labels-file", labels), "labels"),
        (("--labels", tmp_path / "none.txt"), "none.txt"),
        (("--label", "a", "--frame", "97x64:nv12"), "an nv12 frame has even sides"),
        (("--label", "a", "--frame", "big"), "no size of a frame"),
        (("--label", "a", "--precision", "int8"), "holds no int8 graph"),
    ):
        told = run("bake", bundle, *arguments, *out)
        assert told.exit_code != 0
        assert message in told.stderr
    assert not (tmp_path / "out").exists()


def test_a_baked_bundle_is_told_from_others(run: Run, bundle: Path, tmp_path: Path) -> None:
    run("bake", bundle, "--label", "a", "-o", tmp_path / "door")
    assert f"bundle {tmp_path / 'door'} is baked" in failure(run("bank", tmp_path / "door", "--label", "a"))
    assert "holds no golden samples" in failure(run("verify", tmp_path / "door"))
