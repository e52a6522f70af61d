"""A bundle is written whole or not at all, and what opens is what was written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipdeploy.bundle import MANIFEST, SCHEMA_VERSION, Bundle, Manifest, Provenance, create_bundle
from clipdeploy.errors import (
    BundleCorruptError,
    BundleError,
    BundleNotFoundError,
    BundleVersionError,
    InputError,
    OutputError,
)
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
