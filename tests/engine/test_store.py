"""One process builds an engine at a time, and the bundle holds whole engines only."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from clipdeploy.bundle import Bundle, NewFile
from clipdeploy.engine.records import EngineLayer, EngineRecord, EngineTensor, LayerReport
from clipdeploy.engine.store import (
    add_engine,
    building,
    engine_folder,
    find,
    read_record,
    record_text,
    remove_engines,
    remove_stale,
    stale_engines,
)
from clipdeploy.engine_key import EngineKey, Profile
from clipdeploy.errors import BundleCorruptError, EngineError, InputError, OutputError
from clipdeploy.findings import Finding
from clipdeploy.runtime.engines import choose_engine, engines_of
from clipdeploy.spec import Precision, Tower
from tests.runtime.test_engines import ORIN, fp16_bundle, own
from tests.test_bundle import everything, full, is_clean

PLAN = bytes(range(256)) * 40


def record_of(key: EngineKey, size_bytes: int = len(PLAN)) -> EngineRecord:
    layer = EngineLayer("gemm", "gemm", (EngineTensor("x", "Half"),), (EngineTensor("y", "Half"),), ("node_1",))
    return EngineRecord(
        key=key,
        graph="visual_fp16.onnx",
        size_bytes=size_bytes,
        build_seconds=2.5,
        created="2026-01-01T00:00:00+00:00",
        tools={"clipdeploy": "0"},
        report=LayerReport("build log", (layer,), attention_blocks=12, attention_fused=None),
        findings=(Finding("types", "good", "all in half"),),
        warnings=("slow",),
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return fp16_bundle(tmp_path)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan"
    path.write_bytes(PLAN)
    return path


@pytest.fixture
def key(bundle: Bundle) -> EngineKey:
    return own(bundle)


def test_what_is_added_is_found(bundle: Bundle, key: EngineKey, plan: Path) -> None:
    assert find(bundle, key) is None
    folder = add_engine(bundle, record_of(key), plan)
    assert folder == engine_folder(bundle, key) == bundle.folder / "engines" / key.name
    assert find(bundle, key) == record_of(key)
    opened = Bundle.open(bundle.folder)
    assert find(opened, key) == record_of(key)
    assert choose_engine(opened, Tower.IMAGE, Precision.FP16, ORIN).path.read_bytes() == PLAN
    assert opened.manifest.files[f"engines/{key.name}/engine.plan"].kind == "engine"
    assert find(opened, replace(key, profiles=(Profile(1, 1, 1),))) is None
    assert is_clean(bundle.folder)


def test_a_record_is_read_as_it_was_written(key: EngineKey, tmp_path: Path) -> None:
    path = tmp_path / "engine.json"
    path.write_text(record_text(record_of(key)))
    assert read_record(path) == record_of(key)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"record_version": 2}, r"record of version 2; this clipdeploy reads 1"),
        ({"novelty": 1}, "unknown key 'novelty'"),
        ({"size_bytes": "many"}, "size_bytes"),
    ],
)
def test_a_record_that_cannot_be_read(key: EngineKey, tmp_path: Path, changes: dict[str, object], told: str) -> None:
    path = tmp_path / "engine.json"
    path.write_text(json.dumps({**json.loads(record_text(record_of(key))), **changes}))
    with pytest.raises(BundleCorruptError, match=told):
        read_record(path)


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_file_that_is_no_record(tmp_path: Path, text: str) -> None:
    (tmp_path / "engine.json").write_text(text)
    with pytest.raises(BundleCorruptError, match="is no record of an engine"):
        read_record(tmp_path / "engine.json")


def test_an_engine_replaces_one_of_its_key(bundle: Bundle, key: EngineKey, plan: Path, tmp_path: Path) -> None:
    (tmp_path / "timing").write_bytes(b"timing")
    folder = add_engine(bundle, record_of(key), plan, timing_cache=tmp_path / "timing")
    assert (folder / "timing.cache").read_bytes() == b"timing"
    plan.write_bytes(b"another")
    newer = record_of(key, size_bytes=7)
    add_engine(bundle, newer, plan)
    assert find(Bundle.open(bundle.folder), key) == newer
    assert (folder / "engine.plan").read_bytes() == b"another"
    assert not (folder / "timing.cache").exists()
    assert is_clean(bundle.folder)


@pytest.mark.parametrize("content", [b"", PLAN[:-1]])
def test_half_an_engine_is_not_taken_in(bundle: Bundle, key: EngineKey, plan: Path, content: bytes) -> None:
    plan.write_bytes(content)
    before = everything(bundle.folder)
    with pytest.raises(EngineError, match=f"is no whole engine: {len(content)} bytes, expected {len(PLAN)}"):
        add_engine(bundle, record_of(key), plan)
    assert everything(bundle.folder) == before


def change_graph(folder: Path) -> None:
    other = folder.parent / "other"
    other.write_bytes(b"other graph")
    told = {"tower": Tower.IMAGE, "precision": Precision.FP16}
    Bundle.open(folder).add_all([NewFile("visual_fp16.onnx", other, "graph", "test", **told)])  # type: ignore[arg-type]


def test_a_graph_that_was_replaced_while_its_engine_was_built(
    bundle: Bundle,
    key: EngineKey,
    plan: Path,
) -> None:
    change_graph(bundle.folder)
    with pytest.raises(OutputError, match=r"has changed meanwhile: visual_fp16\.onnx is not the one that was read"):
        add_engine(bundle, record_of(key), plan)
    with pytest.raises(EngineError, match="is not the graph that engine"):
        add_engine(Bundle.open(bundle.folder), record_of(key), plan)
    assert is_clean(bundle.folder)


def test_stale_engines_are_not_found_and_can_be_removed(bundle: Bundle, key: EngineKey, plan: Path) -> None:
    add_engine(bundle, record_of(key), plan)
    change_graph(bundle.folder)
    opened = Bundle.open(bundle.folder)
    assert find(opened, key) is None
    assert list(stale_engines(opened)) == [key.name]
    fresh = own(opened)
    add_engine(opened, record_of(fresh), plan)
    assert remove_stale(opened) == (key.name,)
    assert list(engines_of(Bundle.open(bundle.folder))) == [fresh.name]
    assert not engine_folder(opened, key).exists()
    assert remove_stale(opened) == ()
    remove_engines(opened, [fresh.name])
    assert not (bundle.folder / "engines").exists()
    with pytest.raises(InputError, match="has no engine 'nothing'"):
        remove_engines(opened, ["nothing"])
    assert is_clean(bundle.folder)


def test_a_full_disk_says_how_much_an_engine_needs(
    bundle: Bundle,
    key: EngineKey,
    plan: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan.write_bytes(bytes(3_000_000))
    before = everything(bundle.folder)
    usage = shutil.disk_usage(bundle.folder)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match=r"is full: 3\.0 MB are needed, 1\.0 MB are free") as caught:
        add_engine(bundle, record_of(key, size_bytes=3_000_000), plan)
    assert caught.value.fix == "free 2.0 MB there"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**9))
    monkeypatch.setattr("clipdeploy.writing.shutil.copyfile", full)
    with pytest.raises(OutputError, match="is full"):
        add_engine(bundle, record_of(key, size_bytes=3_000_000), plan)
    assert everything(bundle.folder) == before


def test_a_build_that_fails_leaves_nothing(bundle: Bundle, key: EngineKey) -> None:
    before = everything(bundle.folder)
    with pytest.raises(KeyboardInterrupt), building(bundle, key) as work:
        (work / "plan").write_bytes(b"half")
        raise KeyboardInterrupt
    assert everything(bundle.folder) == before


# Two processes ask for the same engine; each tells what it did.
BUILD = """
import sys
from pathlib import Path
from clipdeploy.bundle import Bundle
from clipdeploy.engine.store import add_engine, building, find
from tests.engine.test_store import PLAN, record_of
from tests.runtime.test_engines import own
bundle = Bundle.open(sys.argv[1])
key = own(bundle)
told = []
def progress(what, done, total):
    if not told:
        print(what, flush=True)
    told.append(what)
with building(bundle, key, progress=progress) as work:
    if find(bundle, key) is None:
        print("building", flush=True)
        (work / "plan").write_bytes(PLAN)
        sys.stdin.readline()
        add_engine(bundle, record_of(key), work / "plan")
        print("built")
    else:
        print("there")
"""


def build(folder: Path) -> subprocess.Popen[str]:
    root = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])},
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_of_two_builds_of_a_key_one_builds_and_the_other_finds(bundle: Bundle, key: EngineKey) -> None:
    with build(bundle.folder) as first:
        assert line(first) == "building"
        with build(bundle.folder) as second:
            assert line(second) == f"waiting for process {first.pid}, which builds the same engine"
            # meanwhile the bundle opens, and has no engine
            assert engines_of(Bundle.open(bundle.folder)) == {}
            go_on(first)
            assert line(first) == "built"
            assert line(second) == "there"
        assert (first.wait(), second.wait()) == (0, 0)
    assert find(Bundle.open(bundle.folder), key) == record_of(key)
    assert is_clean(bundle.folder)


def test_a_killed_build_lets_the_next_one_go_on(bundle: Bundle, key: EngineKey) -> None:
    with build(bundle.folder) as first:
        assert line(first) == "building"
        with build(bundle.folder) as second:
            assert line(second).startswith("waiting for process")
            first.send_signal(signal.SIGKILL)
            assert line(second) == "building"
            go_on(second)
            assert line(second) == "built"
    assert find(Bundle.open(bundle.folder), key) == record_of(key)
    assert is_clean(bundle.folder)


def test_what_a_killed_build_left_goes_with_the_next_engine(bundle: Bundle, key: EngineKey, plan: Path) -> None:
    with build(bundle.folder) as killed:
        assert line(killed) == "building"
        killed.kill()
    left = [path.name for path in bundle.folder.iterdir() if path.name.startswith(".")]
    assert sorted(left) == [f".{key.name}.lock", f".{key.name}.work"]
    assert engines_of(Bundle.open(bundle.folder)) == {}
    other = replace(key, flags=("detailed",))
    with build(bundle.folder) as living:
        assert line(living) == "building"
        (bundle.folder / ".another.work").mkdir()
        add_engine(bundle, record_of(other), plan)
        assert (bundle.folder / f".{key.name}.work" / "plan").exists()  # of a process that lives
        assert not (bundle.folder / ".another.work").exists()
        go_on(living)
    assert set(engines_of(Bundle.open(bundle.folder))) == {key.name, other.name}
    assert is_clean(bundle.folder)
