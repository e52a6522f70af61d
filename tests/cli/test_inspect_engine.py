"""clipdeploy inspect of an engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipdeploy.engine.records import LayerReport
from clipdeploy.findings import Finding
from tests.cli.conftest import Run, document, failure
from tests.engine_records import engine_key, write_engine

FILES = ("", "engine.plan", "engine.json")


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return write_engine(tmp_path / "visual_fp16_tensorrt-rtx-1.7.1.42_sm86-sm89_1f0c93aa")


@pytest.mark.parametrize("name", FILES)
def test_an_engine(run: Run, engine: Path, name: str) -> None:
    result = run("inspect", engine / name)
    assert result.exit_code == 0
    assert result.stderr == ""
    for expected in (
        f"engine {engine}",
        "image tower in fp16, from visual_fp16.onnx",
        "tensorrt-rtx 1.7.1.42 on linux-x86_64, 2026-11-22T01:00:00+00:00, 2.3 s",
        "compute capability 8.6, 8.9",
        "1 to 32, tuned for 8",
        "sha256 abab",
        "1.0 kB",
        "4 layers, as the build log tells; 1 of 2 attention blocks in one layer each",
        "2 checks: 1 good, 1 note",
        "fix: look",
    ):
        assert expected in result.stdout
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["gemm", "Half", "Half", "Half", "3"] in rows
    assert ["kgen", "Half", "-", "Int8", "1"] in rows


def test_as_json(run: Run, engine: Path) -> None:
    answer = document(run("inspect", engine, "--json"))
    assert (answer["kind"], answer["state"]) == ("engine", "note")
    assert answer["path"] == str(engine / "engine.plan")
    assert answer["record"]["key"]["compute_capabilities"] == ["8.6", "8.9"]
    assert answer["record"]["report"]["layers"][3]["name"] == "_gemm_mha_v2"
    assert answer["kinds"][0] == {
        "kind": "gemm",
        "reads": ["Half"],
        "constants": ["Half"],
        "writes": ["Half"],
        "count": 3,
    }


def test_an_engine_of_a_jetson(run: Run, tmp_path: Path) -> None:
    key = engine_key(
        backend="tensorrt",
        version="10.3.0.30",
        platform="linux-aarch64",
        gpu="Orin",
        compute_capabilities=("8.7",),
        jetpack="6.1",
        flags=("strip-weights", "workspace=1024MiB"),
    )
    folder = write_engine(tmp_path / "orin", key=key, report=LayerReport("none"), warnings=("slow\x1b[2J kernel",))
    result = run("inspect", folder)
    for expected in (
        "compute capability 8.7, Orin, JetPack 6.1",
        "strip-weights, workspace=1024MiB",
        "layers: neither the builder nor the engine told",
        "1 warning of the builder",
        "slow\\x1b[2J kernel",
    ):
        assert expected in result.stdout


def test_an_engine_that_is_not_what_was_asked(run: Run, tmp_path: Path) -> None:
    folder = write_engine(
        tmp_path / "bad", findings=(Finding("product types", "bad", "node_fc1 (Int8) in Half", "do"),)
    )
    result = run("inspect", folder)
    assert result.exit_code == 1
    assert "bad   product types  node_fc1 (Int8) in Half" in result.stdout
    assert document(run("inspect", folder, "--json"))["state"] == "bad"


def test_flags_of_a_checkpoint_without_one(run: Run, engine: Path) -> None:
    result = run("inspect", engine, "--preprocessing", "openai")
    assert result.exit_code == 2
    assert "is an engine; the options that say what a checkpoint is go with a checkpoint" in result.stderr


def test_an_engine_without_its_record(run: Run, engine: Path) -> None:
    (engine / "engine.json").unlink()
    assert "has no engine.json beside it" in failure(run("inspect", engine / "engine.plan"))


def test_an_engine_that_is_not_whole(run: Run, engine: Path) -> None:
    (engine / "engine.plan").write_bytes(b"x" * 10)
    assert "has 10 bytes, and engine.json says 1000" in failure(run("inspect", engine))
    (engine / "engine.plan").unlink()
    assert "is missing" in failure(run("inspect", engine))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"record_version": 99}'])
def test_a_record_that_is_none(run: Run, engine: Path, content: str) -> None:
    (engine / "engine.json").write_text(content)
    assert "engine.json is" in failure(run("inspect", engine))


def test_a_record_with_a_key_too_many(run: Run, engine: Path) -> None:
    record = json.loads((engine / "engine.json").read_text())
    (engine / "engine.json").write_text(json.dumps({**record, "colour": "red"}))
    assert "unknown key 'colour'" in failure(run("inspect", engine))
