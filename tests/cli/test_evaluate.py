"""clipdeploy evaluate: what it prints, writes and returns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")

from tests.cli.conftest import Run, document, failure
from tests.evaluate.noise import noise_bundle, noise_data

ORT = ("--backend", "onnxruntime")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise_bundle(tmp_path_factory.mktemp("cli-evaluate") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    return noise_data(tmp_path_factory.mktemp("cli-evaluate") / "noise", tiny, count=60)


def test_tables(run: Run, tiny: Path, data: Path, tmp_path: Path) -> None:
    result = run("evaluate", tiny, data, *ORT, "--html", tmp_path / "page.html", "-o", tmp_path / "out.json")
    assert result.exit_code == 0, result.stderr
    for words in ("60 pictures of 6 classes", "onnxruntime fp32", "100.00 %", "lost", "worst classes", "worst drops"):
        assert words in result.stdout
    assert "written:" in result.stderr
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    rows = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [row["precision"] for row in rows] == ["fp32", "fp16"]


def test_json_and_a_limit(run: Run, tiny: Path, data: Path) -> None:
    answer = document(run("evaluate", tiny, data, *ORT, "--precision", "fp32", "--limit", "10", "--json"))
    assert (answer["count"], answer["task"], answer["dataset"]) == (10, "zeroshot_classification", "noise")
    assert [pair["precision"] for pair in answer["pairs"]] == ["fp32"]
    assert answer["pairs"][0]["metrics"]["acc1"] == 1.0


def test_a_gate_for_ci(run: Run, tiny: Path, data: Path) -> None:
    kept = run("evaluate", tiny, data, *ORT, "--precision", "fp32", "--min", "acc1=0.9", "--max-drop", "0.01", "-q")
    assert kept.exit_code == 0, kept.stderr
    missed = run("evaluate", tiny, data, *ORT, "--precision", "fp16", "--max-drop", "0.01", "-q")
    assert missed.exit_code == 1
    assert "missed: onnxruntime fp16: acc1 is " in missed.stderr
    assert "below onnxruntime fp32; 1.00% was allowed" in missed.stderr
    assert "onnxruntime fp16" in missed.stdout  # the tables are there all the same


def test_broken_pictures(run: Run, tiny: Path, data: Path, tmp_path: Path) -> None:
    for folder in data.iterdir():
        (tmp_path / "some" / folder.name).mkdir(parents=True)
    picture = next(data.rglob("*.png"))
    (tmp_path / "some" / picture.parent.name / "a.png").write_bytes(picture.read_bytes())
    (tmp_path / "some" / picture.parent.name / "b.png").write_bytes(b"nothing")
    result = run("evaluate", tiny, tmp_path / "some", *ORT, "--precision", "fp32")
    assert result.exit_code == 3
    assert f"skipped: {picture.parent.name}/b.png" in result.stderr
    assert "skipped 1 of 2 pictures" in result.stderr


def test_what_makes_no_sense(run: Run, tiny: Path, data: Path, tmp_path: Path) -> None:
    assert "does not exist" in failure(run("evaluate", tiny, tmp_path / "none"))
    assert "does not exist" in failure(run("evaluate", tiny, data, "--html", tmp_path / "no" / "page.html"))
    assert "no metric 'acc9'" in failure(run("evaluate", tiny, data, *ORT, "--min", "acc9=0.5"))
    for given, told in (
        (("--min", "acc1"), "is not METRIC=SHARE"),
        (("--min", "acc1=much"), "is not METRIC=SHARE"),
        (("--pretrained", "laion2b"), "go with --checkpoint MODEL"),
        (("--max-drop", "2"), "--max-drop"),
        (("--precision", "auto"), "--precision"),
    ):
        result = run("evaluate", tiny, data, *given)
        assert result.exit_code == 2
        assert told in result.stderr
