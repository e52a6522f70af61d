"""A bundle is written whole or not at all, and what opens is what was written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from clipdeploy.bundle import LOCK, MANIFEST, SCHEMA_VERSION, Bundle, Manifest, NewFile, Provenance, create_bundle
from clipdeploy.errors import (
    BundleCorruptError,
    BundleError,
    BundleNotFoundError,
    BundleVersionError,
    InputError,
    OutputError,
)
from clipdeploy.locks import locked
from clipdeploy.spec import Precision, Tower
from tests.test_spec import model_spec


def manifest() -> Manifest:
    provenance = Provenance("test", "0" * 64, None, "2026-01-01T00:00:00Z")
    return Manifest(SCHEMA_VERSION, model_spec(), "0123456789abcdef", provenance, {"clipdeploy": "0"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "graph"
    source.write_bytes(b"graph" * 1000)
    target = tmp_path / "bundle"
    with create_bundle(target, manifest()) as bundle:
        bundle.add("visual.onnx", source, kind="graph", origin="test", tower=Tower.IMAGE, precision=Precision.FP32)
        bundle.add("golden/a.bin", source, kind="golden", origin="test")
    return target


def edit_manifest(folder: Path, **changes: object) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_was_written_opens(folder: Path) -> None:
    bundle = Bundle.open(folder)
    assert bundle.model == model_spec()
    assert bundle.graph(Tower.IMAGE).read_bytes() == b"graph" * 1000
    assert bundle.precisions(Tower.IMAGE) == [Precision.FP32]
    assert bundle.precisions(Tower.TEXT) == []


def test_a_copy_is_a_bundle(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for path in folder.rglob("*"):
        if path.is_file():
            (copy / path.relative_to(folder)).parent.mkdir(exist_ok=True)
            (copy / path.relative_to(folder)).write_bytes(path.read_bytes())
    assert Bundle.open(copy).manifest == Bundle.open(folder).manifest


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFoundError, match="does not exist"):
        Bundle.open(tmp_path / "nothing")


def test_a_folder_without_manifest(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFoundError, match=r"has no manifest\.json"):
        Bundle.open(tmp_path)


def test_a_file_in_place_of_a_folder(folder: Path) -> None:
    with pytest.raises(BundleNotFoundError, match="is a file"):
        Bundle.open(folder / MANIFEST)


def test_a_missing_file(folder: Path) -> None:
    (folder / "visual.onnx").unlink()
    with pytest.raises(BundleCorruptError, match=r"visual\.onnx is missing"):
        Bundle.open(folder)


def test_a_truncated_file(folder: Path) -> None:
    (folder / "visual.onnx").write_bytes(b"graph")
    with pytest.raises(BundleCorruptError, match=r"visual\.onnx is truncated: 5 bytes, expected 5000"):
        Bundle.open(folder, check_hashes=False)


def test_an_altered_file(folder: Path) -> None:
    (folder / "visual.onnx").write_bytes(b"grapH" * 1000)
    with pytest.raises(BundleCorruptError, match=r"visual\.onnx is altered: sha256"):
        Bundle.open(folder)


def test_a_newer_schema(folder: Path) -> None:
    edit_manifest(folder, schema_version=SCHEMA_VERSION + 1, novelty=True)
    with pytest.raises(BundleVersionError, match=f"schema version {SCHEMA_VERSION + 1}; this clipdeploy reads up to"):
        Bundle.open(folder)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "golden/../../outside", "a\\b", ""])
def test_a_path_that_leaves_the_folder(folder: Path, name: str) -> None:
    (folder.parent / "outside").write_bytes(b"secret")
    entry = json.loads((folder / MANIFEST).read_text())["files"]["visual.onnx"]
    edit_manifest(folder, files={name: entry})
    with pytest.raises(BundleCorruptError, match="leaves the bundle's folder"):
        Bundle.open(folder)


def test_a_link_that_leaves_the_folder(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.write_bytes(b"graph" * 1000)
    (folder / "visual.onnx").unlink()
    (folder / "visual.onnx").symlink_to(outside)
    with pytest.raises(BundleCorruptError, match="leaves the bundle's folder"):
        Bundle.open(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 1}', '{"schema_version": "1"}'])
def test_a_manifest_that_is_none(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text)
    with pytest.raises(BundleCorruptError, match=r"manifest\.json"):
        Bundle.open(folder)


def test_a_block_that_raises_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), create_bundle(tmp_path / "bundle", manifest()):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_failed_overwrite_keeps_the_old(folder: Path) -> None:
    with pytest.raises(KeyError), create_bundle(folder, manifest(), overwrite=True):
        raise KeyError
    assert Bundle.open(folder).precisions(Tower.IMAGE) == [Precision.FP32]


def test_overwrite_replaces_the_whole_folder(folder: Path) -> None:
    with create_bundle(folder, manifest(), overwrite=True):
        pass
    assert sorted(p.name for p in folder.iterdir()) == [MANIFEST]
    assert not [p for p in folder.parent.iterdir() if p.name.startswith(".")]


def test_an_existing_bundle_is_kept(folder: Path) -> None:
    with pytest.raises(OutputError, match="exists already"), create_bundle(folder, manifest()):
        pytest.fail("the block must not run")


def test_a_users_folder_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years")
    with pytest.raises(OutputError, match="is not a bundle"), create_bundle(tmp_path, manifest(), overwrite=True):
        pytest.fail("the block must not run")
    assert (tmp_path / "thesis.txt").read_text() == "three years"


def test_adding_replaces_one_file_of_that_name(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"other")
    Bundle.open(folder).add("visual.onnx", other, kind="graph", origin="test", tower=Tower.IMAGE)
    assert Bundle.open(folder).path("visual.onnx").read_bytes() == b"other"


def test_adding_cannot_leave_the_folder(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="leaves the bundle's folder"):
        Bundle.open(folder).add("../other", tmp_path / "graph", kind="report", origin="test")


def test_a_precision_that_is_not_there(folder: Path) -> None:
    with pytest.raises(InputError, match="holds no int8 graph of the image tower; it holds: fp32"):
        Bundle.open(folder).graph(Tower.IMAGE, Precision.INT8)


# Several processes, and processes that die.

RUN = """
import os, sys
from pathlib import Path
from clipdeploy.bundle import Bundle, NewFile
folder, work, number = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
bundle = Bundle.open(folder)
print("open", flush=True)
sys.stdin.readline()
for i in range(6):
    source = work / f"{number}-{i}"
    source.write_bytes(os.urandom(2000 + i))
    names = [f"engines/{number}-{i}/engine.plan", f"engines/{number}-{i}/engine.json"]
    if number == "0":
        names.append("golden/a.bin")
    bundle.add_all([NewFile(name, source, "engine", "test") for name in names])
"""

# A child for every change that adding makes to the disk, which is killed right before it.
KILL = """
import os, shutil, signal, sys
from pathlib import Path
from clipdeploy.bundle import Bundle, NewFile
before, work = Path(sys.argv[1]), Path(sys.argv[2])
os.fsync = lambda _: None  # a process that dies loses nothing that was written, and this is ten times as fast
EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.truncate"}
point = 0
while True:
    folder = work / str(point)
    shutil.copytree(before, folder)
    bundle = Bundle.open(folder)
    pid = os.fork()
    if pid == 0:
        seen = 0
        def hook(event, arguments):
            global seen
            if event in EVENTS and str(folder) in str(arguments[:2]):
                seen += 1
                if seen > point:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        bundle.add_all(
            [NewFile(n, work / "new", "engine", "test") for n in ("engines/k/plan", "engines/k/json", "golden/a.bin")],
            without=["golden/b.bin"],
        )
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    if status == 0:
        print(point)
        break
    assert os.WTERMSIG(status) == signal.SIGKILL, status
    point += 1
"""


def everything(folder: Path) -> dict[str, bytes | None]:
    """What lies in a folder, hidden or not; None for folders."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def is_clean(folder: Path) -> bool:
    """Whether nothing lies there but what the manifest names."""
    named = Bundle.open(folder).manifest.files
    folders = {str(parent) for name in named for parent in PurePosixPath(name).parents} - {"."}
    return set(everything(folder)) == {MANIFEST, *named, *folders}


def kill_at_every_point(before: Path, work: Path) -> list[Path]:
    """The folders that killed processes left, and as the last one that of a process which came to its end."""
    done = subprocess.run([sys.executable, "-c", KILL, str(before), str(work)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [work / str(point) for point in range(int(done.stdout) + 1)]


@pytest.fixture
def two(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle with one file to replace and one to take away; what is new lies in `work`."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # for speed
    Bundle.open(folder).add("golden/b.bin", tmp_path / "graph", kind="golden", origin="test")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "new").write_bytes(b"new" * 1000)
    return folder


def test_processes_that_add_at_once_lose_nothing_and_readers_see_whole_bundles(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    command = [sys.executable, "-c", RUN, str(folder), str(tmp_path / "work")]
    processes = [
        subprocess.Popen([*command, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for number in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    counts = []
    while any(process.poll() is None for process in processes):
        bundle = Bundle.open(folder)
        assert "golden/a.bin" in bundle.manifest.files  # though it is being replaced
        counts.append(len(bundle.manifest.files))
    for process in processes:
        with process:
            assert process.returncode == 0
    assert counts == sorted(counts)
    bundle = Bundle.open(folder)
    engines = {
        f"engines/{number}-{i}/engine.{end}" for number in range(3) for i in range(6) for end in ("plan", "json")
    }
    assert set(bundle.manifest.files) == {"visual.onnx", "golden/a.bin", *engines}
    assert bundle.path("golden/a.bin").read_bytes() == (tmp_path / "work" / "0-5").read_bytes()
    assert is_clean(folder)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes that it forks")
def test_a_process_killed_at_any_point_leaves_a_bundle_that_opens(two: Path, tmp_path: Path) -> None:
    old = Bundle.open(two).manifest.files
    left = kill_at_every_point(two, tmp_path / "work")
    after = Bundle.open(left[-1]).manifest.files
    assert {*old, "engines/k/plan", "engines/k/json"} - {"golden/b.bin"} == set(after)
    assert old["golden/a.bin"] != after["golden/a.bin"]
    between = {name: entry for name, entry in old.items() if name not in ("golden/a.bin", "golden/b.bin")}
    states = []
    for folder in left:
        state = Bundle.open(folder).manifest.files  # every hash is checked
        assert state in (old, between, after)
        states.append("old" if state == old else "between" if state == between else "after")
        # The next to add cleans up, and has all of it back or all of it done.
        Bundle.open(folder).add("report/x", tmp_path / "graph", kind="report", origin="test")
        cleaned = {name: entry for name, entry in Bundle.open(folder).manifest.files.items() if name != "report/x"}
        assert cleaned == (after if state == after else old)
        assert is_clean(folder)
    assert len(left) > 20
    assert states == sorted(states, key=["old", "between", "after"].index)
    assert {"old", "between", "after"} == set(states)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes that it forks")
def test_a_process_killed_while_it_cleans_up_changes_nothing_of_that(two: Path, tmp_path: Path) -> None:
    old = Bundle.open(two).manifest.files
    left = kill_at_every_point(two, tmp_path / "work")
    half = [folder for folder in left if Bundle.open(folder).manifest.files.keys() == {"visual.onnx"}][-1]
    assert (half / "engines" / "k" / "plan").exists()  # in its place, named by nobody
    second = tmp_path / "second"
    second.mkdir()
    (second / "new").write_bytes(b"newer" * 1000)
    for folder in kill_at_every_point(half, second):
        Bundle.open(folder).add("report/x", tmp_path / "graph", kind="report", origin="test")
        files = Bundle.open(folder).manifest.files
        assert files["visual.onnx"] == old["visual.onnx"]
        assert (
            ("golden/b.bin" in files) == (files["golden/a.bin"] == old["golden/a.bin"]) != ("engines/k/plan" in files)
        )
        assert is_clean(folder)


def test_a_replaced_file_is_waited_for(two: Path, tmp_path: Path) -> None:
    stage = two / ".adding" / "old"
    stage.mkdir(parents=True)
    with locked(two / LOCK):
        done = threading.Timer(0.2, stage.rmdir)
        done.start()
        Bundle.open(two)
        assert not stage.exists()
        done.join()
    # but not for a process that died
    stage.mkdir()
    started = time.monotonic()
    Bundle.open(two)
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("names", [{"new": ["../outside"], "old": []}, {"new": [], "old": ["/etc/hostname"]}, {}, "[]"])
def test_a_list_of_what_to_undo_cannot_leave_the_folder(folder: Path, tmp_path: Path, names: object) -> None:
    outside = folder.parent / "outside"
    outside.write_bytes(b"mine")
    (folder / ".adding").mkdir()
    (folder / ".adding" / "undo.json").write_text(names if isinstance(names, str) else json.dumps(names))
    (folder / ".adding" / "after").write_text("{}")
    with pytest.raises(OutputError, match="does not come from clipdeploy"):
        Bundle.open(folder).add("report/x", tmp_path / "graph", kind="report", origin="test")
    assert outside.read_bytes() == b"mine"


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("target", ["clipdeploy.writing.shutil.copyfile", "clipdeploy.writing.os.fsync"])
def test_a_disk_that_fills_leaves_the_bundle_as_it_was(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    before = everything(two)
    new = [NewFile(f"engines/k/{i}", tmp_path / "graph", "engine", "test") for i in range(3)]
    usage = shutil.disk_usage(two)._replace(free=6000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match=r"is full: 0\.0 MB are needed, 0\.0 MB are free; nothing was changed"):
        Bundle.open(two).add_all(new)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**9))
    with monkeypatch.context() as patch:
        patch.setattr(target, full)
        with pytest.raises(OutputError, match=r"is full \(No space left on device\): .* 1000\.0 MB are free"):
            Bundle.open(two).add_all(new, without=["golden/b.bin"])
    assert everything(two) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full(
    two: Path, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small_disk / "bundle"
    shutil.copytree(two, folder)
    (tmp_path / "plan").write_bytes(bytes(2_000_000))
    before = everything(folder)
    new = [NewFile("golden/a.bin", tmp_path / "graph", "golden", "test")]
    new.append(NewFile("engines/k/engine.plan", tmp_path / "plan", "engine", "test"))
    told = r"is full: 2\.0 MB are needed, 1\.0 MB are free; nothing was changed"
    with pytest.raises(OutputError, match=told) as caught:
        Bundle.open(folder).add_all(new)
    assert caught.value.fix == "free 1.0 MB there"
    monkeypatch.setattr("clipdeploy.bundle.check_space", lambda *_: None)  # found while writing
    with pytest.raises(OutputError, match=told):
        Bundle.open(folder).add_all(new)
    assert everything(folder) == before


OPEN_AS_NOBODY = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
from clipdeploy.bundle import Bundle
from clipdeploy.errors import OutputError
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
os.chdir(sys.argv[1])
bundle = Bundle.open("bundle")
try:
    bundle.add("report/x", __import__("pathlib").Path("graph"), kind="report", origin="test")
except OutputError as error:
    print(error.message)
"""


def test_a_read_only_bundle_opens(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        place = Path(name)
        place.chmod(0o755)
        shutil.copytree(folder, place / "bundle")
        (place / "graph").write_bytes(b"graph")
        for path in (place / "bundle", place / "bundle" / "golden"):
            path.chmod(0o555)
        try:
            done = subprocess.run([sys.executable, "-c", OPEN_AS_NOBODY, name], capture_output=True, text=True)
        finally:
            (place / "bundle").chmod(0o755)
            (place / "bundle" / "golden").chmod(0o755)
        assert done.stderr == ""
        assert done.stdout.startswith("cannot write to bundle: [Errno 13]")
        assert is_clean(place / "bundle")


def test_what_a_file_was_made_from_must_not_change(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"other")
    mine, theirs = Bundle.open(folder), Bundle.open(folder)
    theirs.add("visual.onnx", other, kind="graph", origin="test", tower=Tower.IMAGE)
    new = [NewFile("engines/k/engine.plan", tmp_path / "graph", "engine", "test")]
    with pytest.raises(OutputError, match=r"has changed meanwhile: visual\.onnx is not the one that was read"):
        mine.add_all(new, unchanged=["visual.onnx"])
    mine.refresh()
    mine.add_all(new, unchanged=["visual.onnx"])
    assert is_clean(folder)


def test_a_bundle_that_was_made_anew_takes_nothing_in(folder: Path, tmp_path: Path) -> None:
    mine = Bundle.open(folder)
    with create_bundle(folder, replace(manifest(), embedding_space="f" * 16), overwrite=True):
        pass
    with pytest.raises(OutputError, match="has changed meanwhile: it has been made anew"):
        mine.add("report/x", tmp_path / "graph", kind="report", origin="test")
    assert is_clean(folder)


def test_folders_of_files_that_leave_go_too(two: Path) -> None:
    Bundle.open(two).add_all([], without=["golden/a.bin", "golden/b.bin", "never/there"])
    assert set(everything(two)) == {MANIFEST, "visual.onnx"}


def test_a_file_that_the_manifest_does_not_name_is_given_back_when_adding_fails(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (two / "report").mkdir()
    (two / "report" / "x").write_text("a note of mine")
    before = everything(two)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", full)
        with pytest.raises(OutputError):
            Bundle.open(two).add("report/x", tmp_path / "graph", kind="report", origin="test")
    assert everything(two) == before
