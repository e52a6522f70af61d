"""The bundle folder and its manifest: create, open, add a file, check hashes.

A bundle is a plain folder. `manifest.json` names every other file with its size and sha256; what it does not
name is not part of the bundle. Writing happens in a folder beside the target, which is renamed when all is there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from clipdeploy.errors import (
    BundleCorruptError,
    BundleNotFoundError,
    BundleVersionError,
    InputError,
    OutputError,
)
from clipdeploy.spec import ModelSpec, Precision, Tower, from_dict, to_dict

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class FileEntry:
    """One file of a bundle.

    Attributes:
        sha256: of the content, hexadecimal.
        size_bytes: of the content.
        kind: what it is for: `graph`, `weights`, `tokenizer`, `golden` or `report`.
        origin: which stage wrote it, and from what.
        tower: for graphs, which encoder.
        precision: for graphs, the number format.
        opset: for graphs, the ONNX operator set.
    """

    sha256: str
    size_bytes: int
    kind: str
    origin: str
    tower: Tower | None = None
    precision: Precision | None = None
    opset: int | None = None


@dataclass(frozen=True)
class Provenance:
    """Where the weights come from.

    Attributes:
        source: the name, tag or path the user gave.
        weights_sha256: over names, shapes and values of all weights.
        licence: as the checkpoint states it, None when it does not.
        created: UTC, ISO 8601.
    """

    source: str
    weights_sha256: str
    licence: str | None
    created: str


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`.

    Attributes:
        embedding_space: id over weights, activation, preprocessing and tokenizer; vectors of two bundles
            may be compared only when theirs are equal.
        tools: versions of the libraries that made the bundle.
    """

    schema_version: int
    model: ModelSpec
    embedding_space: str
    provenance: Provenance
    tools: dict[str, str]
    files: dict[str, FileEntry] = field(default_factory=dict)


class Bundle:
    """An opened bundle: its folder and its manifest. Make one with `Bundle.open` or `create_bundle`."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(cls, folder: str | Path, *, check_hashes: bool = True) -> Bundle:
        """Open a bundle and check every file that the manifest names.

        Args:
            folder: the bundle's folder.
            check_hashes: read every file and compare its sha256; False compares sizes only.

        Raises:
            BundleNotFoundError: no folder, or no manifest in it.
            BundleVersionError: written by a newer schema.
            BundleCorruptError: an unreadable manifest, or a file that is missing, truncated, altered or outside.
        """
        folder = Path(folder)
        manifest = _read_manifest(folder)
        bundle = cls(folder, manifest)
        for name in manifest.files:
            bundle._check_size(name)
        if check_hashes:
            from concurrent.futures import ThreadPoolExecutor  # a third of this module's import time

            with ThreadPoolExecutor() as pool:
                list(pool.map(bundle._check_hash, manifest.files))
        return bundle

    @property
    def model(self) -> ModelSpec:
        """What the bundle's CLIP takes and gives."""
        return self.manifest.model

    def path(self, name: str) -> Path:
        """Path of a file that the manifest names; raises BundleCorruptError for one it does not."""
        if name not in self.manifest.files:
            have = ", ".join(sorted(self.manifest.files)) or "nothing"
            raise BundleCorruptError(
                f"bundle {self.folder} has no file {name!r}; it holds {have}", fix="export the bundle anew"
            )
        return self._inside(name)

    def precisions(self, tower: Tower) -> list[Precision]:
        """The precisions in which this bundle holds a graph of `tower`, in the order of `Precision`."""
        graphs = [e for e in self.manifest.files.values() if e.kind == "graph" and e.tower is tower]
        return [p for p in Precision if any(e.precision is p for e in graphs)]

    def graph(self, tower: Tower, precision: Precision = Precision.FP32) -> Path:
        """Path of a tower's graph; raises InputError naming the precisions that are there."""
        name = tower.graph_name(precision)
        if name not in self.manifest.files:
            have = ", ".join(p.value for p in self.precisions(tower)) or "none"
            raise InputError(
                f"bundle {self.folder} holds no {precision.value} graph of the {tower.value} tower; it holds: {have}",
                fix=f"choose a precision that is there (holds: {have}), or export the checkpoint again",
            )
        return self.path(name)

    def add(
        self,
        name: str,
        source: Path,
        *,
        kind: str,
        origin: str,
        tower: Tower | None = None,
        precision: Precision | None = None,
        opset: int | None = None,
    ) -> Path:
        """Take a file into the bundle under `name` (replacing one of that name) and note it in the manifest."""
        target = self._inside(name)
        entry = FileEntry(
            sha256=sha256_file(source),
            size_bytes=source.stat().st_size,
            kind=kind,
            origin=origin,
            tower=tower,
            precision=precision,
            opset=opset,
        )
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.resolve() != target.resolve():
                with replacing(target) as beside:
                    shutil.copyfile(source, beside)
            self.manifest = replace(self.manifest, files={**self.manifest.files, name: entry})
            write_text(self.folder / MANIFEST, _dump(self.manifest))
        except OSError as error:
            raise OutputError(f"cannot write {target}: {error}", fix="free space or choose another folder") from error
        return target

    def _inside(self, name: str) -> Path:
        """The path of `name`, which must stay inside the folder."""
        pure = PurePosixPath(name)
        outside = pure.is_absolute() or ".." in pure.parts or "\\" in name or not pure.parts
        path = self.folder / pure
        if outside or not path.resolve().is_relative_to(self.folder.resolve()):
            raise BundleCorruptError(
                f"bundle {self.folder}: file name {name!r} leaves the bundle's folder",
                fix="do not use this bundle; export the checkpoint again",
            )
        return path

    def _check_size(self, name: str) -> None:
        path, entry = self._inside(name), self.manifest.files[name]
        if not path.is_file():
            raise BundleCorruptError(f"bundle {self.folder}: {name} is missing", fix=_COPY_AGAIN)
        size = path.stat().st_size
        if size != entry.size_bytes:
            state = "truncated" if size < entry.size_bytes else "altered"
            raise BundleCorruptError(
                f"bundle {self.folder}: {name} is {state}: {size} bytes, expected {entry.size_bytes}", fix=_COPY_AGAIN
            )

    def _check_hash(self, name: str) -> None:
        actual, expected = sha256_file(self._inside(name)), self.manifest.files[name].sha256
        if actual != expected:
            raise BundleCorruptError(
                f"bundle {self.folder}: {name} is altered: sha256 {actual[:12]}..., expected {expected[:12]}...",
                fix=_COPY_AGAIN,
            )


_COPY_AGAIN = "copy the bundle again, whole, from where it was made, or export the checkpoint again"


@contextmanager
def create_bundle(folder: str | Path, manifest: Manifest, *, overwrite: bool = False) -> Iterator[Bundle]:
    """Make a bundle: fill it in a folder beside `folder`, which takes its place when the block ends well.

    When the block raises, nothing is left and an existing bundle stays as it was.

    Raises:
        OutputError: `folder` exists (and `overwrite` is False, or what is there is not a bundle), or cannot be made.
    """
    folder = Path(folder)
    check_target(folder, overwrite=overwrite)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise OutputError(f"cannot write beside {folder}: {error}", fix="choose another folder with -o") from error
    work.chmod(0o755)
    try:
        write_text(work / MANIFEST, _dump(manifest))
        yield Bundle(work, manifest)
        _take_place(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def check_target(folder: Path, *, overwrite: bool) -> None:
    """Raise OutputError when a bundle must not be written to `folder`."""
    if not os.path.lexists(folder):
        return
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if not (folder / MANIFEST).is_file():
        raise OutputError(f"{folder} exists and is not a bundle", fix="choose another folder with -o")
    if not overwrite:
        raise OutputError(f"{folder} exists already", fix="choose another folder with -o, or pass --overwrite")


def _take_place(work: Path, folder: Path) -> None:
    """Put the finished `work` where `folder` is, keeping the old one until the new one stands."""
    if not folder.exists():
        work.rename(folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
    folder.rename(old)
    try:
        work.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A temporary path beside `target`, which replaces it when the block ends well and is removed otherwise."""
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        beside.chmod(0o644)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(target) as beside:
        beside.write_text(text, encoding="utf-8")


def sha256_file(path: Path) -> str:
    """The sha256 of a file's content, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def embedding_space_id(model: ModelSpec, weights_sha256: str, tokenizer_sha256: str) -> str:
    """The id of an embedding space: 16 hex digits over weights, activation, preprocessing and tokenizer."""
    facts = [weights_sha256, model.activation, to_dict(model.pixels), to_dict(model.tokens), tokenizer_sha256]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _dump(manifest: Manifest) -> str:
    return json.dumps(to_dict(manifest), indent=2, ensure_ascii=False) + "\n"


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    if not folder.is_dir():
        what = "is a file, not a bundle folder" if folder.exists() else "does not exist"
        raise BundleNotFoundError(f"{folder} {what}", fix="make a bundle: clipdeploy export MODEL -o " + str(folder))
    if not path.is_file():
        raise BundleNotFoundError(
            f"{folder} is not a bundle: it has no {MANIFEST}", fix="name the folder that clipdeploy export wrote"
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleCorruptError(f"bundle {folder}: {MANIFEST} cannot be read: {error}", fix=_COPY_AGAIN) from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BundleVersionError(
            f"bundle {folder} has schema version {version}; this clipdeploy reads up to {SCHEMA_VERSION}",
            fix="pip install --upgrade clipdeploy",
        )
    try:
        return from_dict(Manifest, data, where=MANIFEST)
    except InputError as error:
        raise BundleCorruptError(f"bundle {folder}: {error.message}", fix=_COPY_AGAIN) from error
