"""clipdeploy pack."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bundles import make_bundle
from tests.cli.conftest import Run, document, failure


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A bundle that may be changed."""
    return make_bundle(tmp_path / "own")


def test_a_device_classifies_what_was_banked(run: Run, own: Path, photos_folder: Path, tmp_path: Path) -> None:
    device = tmp_path / "device"
    run("bank", own, "--labels", "a dog,a cat")
    expected = document(run("classify", own, photos_folder, "--labels", "a cat,a dog", "--json"))
    result = run("pack", own, "-o", device, "--tower", "image")
    assert result.exit_code == 0
    assert result.stderr.splitlines() == ["warning: it holds no text encoder: it knows the banked labels and no others"]
    head, *facts = result.stdout.splitlines()
    assert head.startswith(f"{device}: 3 files, ") and "embedding space" in head
    assert "  banked labels  2" in facts
    assert any(line.startswith("  image encoder  visual.onnx, ") for line in facts)
    assert any(line.startswith("  left behind    textual.onnx, ") for line in facts)
    answer = document(run("classify", device, photos_folder, "--labels", "a cat,a dog", "--json"))
    assert answer["results"] == expected["results"]
    said = failure(run("classify", device, photos_folder, "--labels", "a cat,a cow"))
    assert "no bank of it holds the label 'a cow'" in said and "clipdeploy bank BUNDLE --label 'a cow'" in said
    shown = run("inspect", device).stdout
    assert "image fp32; text none" in shown and "2 labels with a photo of a {}." in shown


def test_json(run: Run, own: Path, tmp_path: Path) -> None:
    answer = document(run("pack", own, "-o", tmp_path / "device", "--json"))
    assert answer["graphs"] == {"image": ["visual.onnx"], "text": ["textual.onnx"]}
    assert answer["size_bytes"] == answer["size_before_bytes"] == sum(answer["files"].values())
    assert answer["left"] == {} and answer["notes"] == []


def test_an_output_that_is_there(run: Run, own: Path, tmp_path: Path) -> None:
    run("pack", own, "-o", tmp_path / "device")
    assert "pass --overwrite" in failure(run("pack", own, "-o", tmp_path / "device"))
    assert run("pack", own, "-o", tmp_path / "device", "--overwrite").exit_code == 0


def test_a_precision_that_is_not_there(run: Run, own: Path, tmp_path: Path) -> None:
    said = failure(run("pack", own, "-o", tmp_path / "device", "--precision", "int8"))
    assert "holds no int8 graph" in said
    assert not (tmp_path / "device").exists()
