"""What was read once is not read again, and what was changed is, however it was changed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import clipdeploy
from clipdeploy.bundle import Bundle
from clipdeploy.errors import BundleCorruptError, InputError
from clipdeploy.manifest import sha256_file
from clipdeploy.runtime import hashed
from clipdeploy.runtime.hashed import RememberedHashes, open_bundle
from clipdeploy.runtime.remembered import Remembered, cache_folder
from clipdeploy.spec import Tower
from tests.bundles import make_bundle


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Names of the files that are read whole."""
    names: list[str] = []

    def noted(path: Path) -> str:
        names.append(path.name)
        return sha256_file(path)

    monkeypatch.setattr(hashed, "sha256_file", noted)
    monkeypatch.setattr(hashed, "_SETTLED_NS", -1)  # else a file must lie still for seconds
    monkeypatch.setenv("CLIPDEPLOY_CACHE", str(tmp_path / "cache"))
    return names


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """One that a test may change."""
    return make_bundle(tmp_path / "bundle")


def test_a_bundle_is_read_once(bundle: Path, read: list[str]) -> None:
    open_bundle(bundle)
    assert len(read) == len(Bundle.open(bundle, check_hashes=False).manifest.files)
    read.clear()
    with clipdeploy.load(bundle, backend="onnxruntime") as clip:
        assert clip.encode_text(["a red circle"]).shape == (1, clip.spec.embed_dim)
    assert not read
    link = bundle.with_name("link")
    link.symlink_to(bundle)
    open_bundle(link)
    open_bundle(os.path.relpath(bundle))
    open_bundle(bundle, "again")
    open_bundle(Bundle.open(bundle, check_hashes=False))
    assert not read  # `again` reads by itself


def _overwritten(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.seek(100)
        byte = stream.read(1)
        stream.seek(100)
        stream.write(bytes([byte[0] ^ 1]))


def _set_back(path: Path) -> None:
    told = path.stat()
    _overwritten(path)
    os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))


def _replaced(path: Path) -> None:
    told, other = path.stat(), path.with_name("other")
    shutil.copy2(path, other)
    _overwritten(other)
    os.utime(other, ns=(told.st_atime_ns, told.st_mtime_ns))
    other.replace(path)


def _swapped_by_link(path: Path) -> None:
    other = path.with_name("other")
    shutil.copy2(path, other)
    _overwritten(other)
    path.unlink()
    path.symlink_to(other.name)


@pytest.mark.parametrize("change", [_overwritten, _set_back, _replaced, _swapped_by_link])
def test_a_changed_file_is_caught(bundle: Path, read: list[str], change: Callable[[Path], None]) -> None:
    open_bundle(bundle)
    time.sleep(0.02)  # a tick of the file system's clock
    graph = Bundle.open(bundle, check_hashes=False).graph(Tower.IMAGE)
    change(graph)
    for check_hashes in (True, "again"):
        with pytest.raises(BundleCorruptError, match=r"visual\.onnx is altered"):
            clipdeploy.load(bundle, check_hashes=check_hashes)
    with pytest.raises(BundleCorruptError, match=r"visual\.onnx is altered"):
        clipdeploy.load(bundle)  # and what was refused is not remembered as right


def test_decay_that_no_time_tells_is_found_by_again(
    bundle: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_bundle(bundle)
    graph = Bundle.open(bundle, check_hashes=False).graph(Tower.IMAGE)
    facts = hashed._facts(graph)
    _overwritten(graph)
    told = hashed._facts
    monkeypatch.setattr(hashed, "_facts", lambda path: facts if path.name == graph.name else told(path))
    open_bundle(bundle)
    with pytest.raises(BundleCorruptError):
        open_bundle(bundle, "again")


def test_a_file_that_was_just_written_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, store = tmp_path / "file", Remembered(tmp_path / "cache" / "remembered.json")
    file.write_bytes(b"one")
    first = RememberedHashes(tmp_path, store)
    first.sha256(file)
    first.keep()
    assert store.get(hashed.KIND, {"folder": str(tmp_path)}) is None
    monkeypatch.setattr(hashed.time, "time_ns", lambda: file.stat().st_ctime_ns + 4_000_000_000)
    later = RememberedHashes(tmp_path, store)
    later.sha256(file)
    later.keep()
    assert store.get(hashed.KIND, {"folder": str(tmp_path)})["file"][0] == sha256_file(file)


def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, store = tmp_path / "file", Remembered(tmp_path / "cache" / "remembered.json")
    file.write_bytes(b"one")

    def meanwhile(path: Path) -> str:
        sha256 = sha256_file(path)
        path.write_bytes(b"two and more")
        return sha256

    monkeypatch.setattr(hashed, "sha256_file", meanwhile)
    hashes = RememberedHashes(tmp_path, store)
    hashes.sha256(file)
    hashes.keep()
    assert not store.get(hashed.KIND, {"folder": str(tmp_path)})


@pytest.mark.parametrize("entry", [3, {"x": 1}, {"file": ["abc"]}, {"file": "abc"}, {"file": [1, 2, 3, 4, 5]}])
def test_what_was_remembered_wrongly_is_as_nothing(tmp_path: Path, entry: object) -> None:
    file, store = tmp_path / "file", Remembered(tmp_path / "cache" / "remembered.json")
    file.write_bytes(b"one")
    store.put(hashed.KIND, {"folder": str(tmp_path)}, entry)
    assert RememberedHashes(tmp_path, store).sha256(file) == sha256_file(file)


def test_where_nothing_can_be_kept_all_is_read(
    bundle: Path, read: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("CLIPDEPLOY_CACHE", str(tmp_path / "file" / "cache"))
    assert not cache_folder().exists()
    open_bundle(bundle)
    assert "visual.onnx" in read


def test_another_word_is_refused(bundle: Path) -> None:
    with pytest.raises(InputError, match='True, False or "again"'):
        clipdeploy.load(bundle, check_hashes="never")  # type: ignore[arg-type]
