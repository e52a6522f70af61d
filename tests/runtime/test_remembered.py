"""What a machine remembers: in a file where that is possible, in memory where it is not, and never an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clipdeploy.locks import locked
from clipdeploy.runtime import remembered
from clipdeploy.runtime.remembered import FILE, Remembered, cache_folder, this_machines

KEY = {"graph": "abc", "batch": 1}


def test_what_is_put_is_found_by_another(tmp_path: Path) -> None:
    file = tmp_path / "not" / "there" / FILE
    Remembered(file).put("times", KEY, {"ms": 1.5})
    other = Remembered(file)
    assert other.get("times", {"batch": 1, "graph": "abc"}) == {"ms": 1.5}
    assert other.get("times", {**KEY, "batch": 2}) is None
    assert other.get("verdicts", KEY) is None
    other.forget("times", KEY)
    assert Remembered(file).get("times", KEY) is None


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"format": 99, "entries": {}}', '{"format": 1, "entries": {"a": 3}}', "\0\xff"]
)
def test_a_corrupt_file_is_as_none_and_is_written_anew(tmp_path: Path, content: str) -> None:
    file = tmp_path / FILE
    file.write_text(content, encoding="latin-1")
    store = Remembered(file)
    assert store.get("times", KEY) is None
    store.put("times", KEY, 1)
    assert Remembered(file).get("times", KEY) == 1


def test_a_folder_that_cannot_be_written_leaves_it_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    store = Remembered(tmp_path / "file" / FILE)
    store.put("times", KEY, 1)
    assert store.get("times", KEY) == 1
    assert Remembered(store.path).get("times", KEY) is None


def test_a_full_disk_leaves_it_in_memory_and_the_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Remembered(tmp_path / FILE)
    store.put("times", KEY, 1)

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(remembered, "write_text", full)
    store.put("times", {}, 2)
    assert store.get("times", {}) == 2
    assert json.loads(store.path.read_text())["entries"]
    assert Remembered(store.path).get("times", KEY) == 1


def test_the_oldest_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "_MOST", 3)
    store = Remembered(tmp_path / FILE)
    for number in range(5):
        store.put("n", {"number": number}, number)
    kept = [Remembered(store.path).get("n", {"number": number}) for number in range(5)]
    assert kept == [None, None, 2, 3, 4]


def test_who_holds_the_lock_for_long_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "_WAIT_S", 0.1)
    store = Remembered(tmp_path / FILE)
    with locked((tmp_path / FILE).with_suffix(".lock")):
        store.put("times", KEY, 1)
    assert store.get("times", KEY) == 1
    assert not store.path.exists()


PUT = """
import sys
from pathlib import Path
from clipdeploy.runtime.remembered import Remembered
store = Remembered(Path(sys.argv[1]))
for number in range(20):
    store.put("n", {"process": sys.argv[2], "number": number}, number)
"""


def test_processes_at_once_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / FILE
    many = [subprocess.Popen([sys.executable, "-c", PUT, str(file), str(name)], env=dict(os.environ)) for name in "abc"]
    assert [process.wait(60) for process in many] == [0, 0, 0]
    store = Remembered(file)
    assert [store.get("n", {"process": p, "number": n}) for p in "abc" for n in range(20)] == [*range(20)] * 3
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_where_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPDEPLOY_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
    assert cache_folder() == tmp_path / "own"
    assert this_machines().path == tmp_path / "own" / FILE
    assert this_machines() is this_machines()
    monkeypatch.delenv("CLIPDEPLOY_CACHE")
    assert cache_folder() == tmp_path / "shared" / "clipdeploy"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "clipdeploy"


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("CLIPDEPLOY_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert cache_folder().is_dir()
    assert cache_folder() == cache_folder()
