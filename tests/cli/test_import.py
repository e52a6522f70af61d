"""`clipdeploy import`, and what the other verbs make of its bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="needs the extra: pip install 'clipdeploy[import,cpu]'")
pytest.importorskip("onnxruntime")
pytest.importorskip("tokenizers")

from tests.cli.conftest import Run, document, failure
from tests.importing import graphs

SAID = ("--preprocessing", "openai", "--cleaning", "lower", "--pad-id", graphs.PAD, "--logit-scale", 50)


def test_a_bundle_is_made_and_serves(run: Run, tmp_path: Path, photos_folder: Path) -> None:
    graphs.write(tmp_path / "given")
    done = run("import", tmp_path / "given", "-o", tmp_path / "bundle", *SAID)
    assert done.exit_code == 0, done.output
    assert "note" in done.stdout and "length" in done.stdout
    assert f"clipdeploy verify {tmp_path / 'bundle'}\n" in done.stderr
    assert "--checkpoint MODEL" in done.stderr
    verified = run("verify", tmp_path / "bundle")
    assert verified.exit_code == 0, verified.output
    assert "never compared with PyTorch" in verified.stdout
    shown = document(run("inspect", tmp_path / "bundle", "--json"))
    assert shown["provenance"]["source"] == str(tmp_path / "given")
    answered = document(run("classify", tmp_path / "bundle", photos_folder, "--labels", "a cat,two dogs", "--json"))
    assert len(answered["results"]) == 3


def test_json_holds_the_findings(run: Run, tmp_path: Path) -> None:
    graphs.write(tmp_path / "given")
    told = document(run("import", tmp_path / "given", "-o", tmp_path / "bundle", *SAID, "--json"))
    assert told["bundle"] == str(tmp_path / "bundle")
    assert told["layout"] == "plain"
    assert {finding["state"] for finding in told["findings"]} == {"good", "note"}


def test_a_bad_finding_ends_with_exit_code_1(run: Run, tmp_path: Path) -> None:
    graphs.write(tmp_path / "given", None, graphs.text(causal=False))
    done = run("import", tmp_path / "given", "-o", tmp_path / "bundle", *SAID)
    assert done.exit_code == 1
    assert "causal mask" in done.stdout and "--no-causal-mask" in done.stdout
    assert "--accept-bad" in done.stderr
    assert not (tmp_path / "bundle").exists()
    assert run("import", tmp_path / "given", "-o", tmp_path / "bundle", *SAID, "--no-causal-mask").exit_code == 0


def test_an_existing_bundle_is_kept(run: Run, tmp_path: Path) -> None:
    graphs.write(tmp_path / "given")
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/manifest.json").touch()
    assert "--overwrite" in failure(run("import", tmp_path / "given", "-o", tmp_path / "bundle", *SAID))


def test_what_is_not_stated_names_its_flag(run: Run, tmp_path: Path) -> None:
    graphs.write(tmp_path / "given")
    assert "--preprocessing FAMILY" in failure(run("import", tmp_path / "given", "-o", tmp_path / "bundle"))


def test_a_folder_that_is_not_there(run: Run, tmp_path: Path) -> None:
    assert "does not exist" in failure(run("import", tmp_path / "none", "-o", tmp_path / "bundle"))
