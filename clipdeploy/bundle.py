"""The bundle folder: create, open, add files, check hashes.

A bundle is a plain folder. `manifest.json` names every other file with its size and sha256; what it does not
name is not part of the bundle. Writing happens in a folder beside the target, which is renamed when all is there.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

from clipdeploy.errors import BundleCorruptError, InputError, OutputError
from clipdeploy.manifest import (
    COPY_AGAIN,
    MANIFEST,
    SCHEMA_VERSION,
    FileEntry,
    Manifest,
    NewFile,
    Provenance,
    dump,
    embedding_space_id,
    read_manifest,
    sha256_file,
)
from clipdeploy.spec import ModelSpec, Precision, Target, Tower
from clipdeploy.writing import Exchange, replacing, write_text

__all__ = [
    "MANIFEST",
    "SCHEMA_VERSION",
    "Bundle",
    "FileEntry",
    "Manifest",
    "NewFile",
    "Provenance",
    "check_target",
    "create_bundle",
    "embedding_space_id",
    "replacing",
    "sha256_file",
    "write_text",
]


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
        manifest = read_manifest(folder)
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

    def targets(self, tower: Tower, precision: Precision) -> list[Target | None]:
        """What the graphs of `tower` in `precision` are made for; empty where there are none."""
        return [entry.target for entry in self._graphs(tower, precision).values()]

    def graph_name(self, tower: Tower, precision: Precision = Precision.FP32, target: Target | None = None) -> str:
        """Name of a tower's graph.

        Args:
            tower: which encoder.
            precision: the number format.
            target: what the graph must be made for, where the bundle tells; None takes the only one there is.

        Raises:
            InputError: there is none, or several and no target given; what is there is named.
        """
        graphs = self._graphs(tower, precision)
        fit = [name for name, entry in graphs.items() if target is None or entry.target in (target, None)]
        if len(fit) == 1:
            return fit[0]
        if fit and target is not None:
            return next(name for name in fit if graphs[name].target == target)
        if fit:
            raise InputError(
                f"bundle {self.folder} holds {precision.value} graphs of the {tower.value} tower for several targets",
                fix=f"name the target: {' or '.join(str(entry.target) for entry in graphs.values())}",
            )
        raise self._lacks(tower, precision, target)

    def graph(self, tower: Tower, precision: Precision = Precision.FP32, target: Target | None = None) -> Path:
        """Path of a tower's graph; see `graph_name`."""
        return self.path(self.graph_name(tower, precision, target))

    def _graphs(self, tower: Tower, precision: Precision) -> dict[str, FileEntry]:
        return {
            name: entry
            for name, entry in self.manifest.files.items()
            if entry.kind == "graph" and entry.tower is tower and entry.precision is precision
        }

    def _lacks(self, tower: Tower, precision: Precision, target: Target | None) -> InputError:
        have = ", ".join(p.value for p in self.precisions(tower)) or "none"
        make = f"clipdeploy quantize {self.folder} --precision {precision.value}"
        others = [str(other) for other in self.targets(tower, precision)]
        if others:
            check = f"pass --target {others[0]} to compute what is there as it is written, slowly, to check it"
            make += f" --target {target} --calibration-data PICTURES"
            return InputError(
                f"bundle {self.folder} holds the {precision.value} graph of the {tower.value} tower for "
                f"{' and '.join(others)}, none for {target}",
                fix=check if precision is Precision.FP8 else f"make it: {make}; or {check}",
            )
        fix = f"choose a precision that is there (holds: {have}), or "
        if precision is Precision.FP32:
            fix += "export the checkpoint again"
        else:
            fix += f"make it: {make} --tower {tower.value} --calibration-data PICTURES"
        return InputError(
            f"bundle {self.folder} holds no {precision.value} graph of the {tower.value} tower; it holds: {have}",
            fix=fix,
        )

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
        new = NewFile(name, source, kind, origin, tower=tower, precision=precision, opset=opset)
        self.add_all([new])
        return self._inside(name)

    def add_all(self, files: Sequence[NewFile], *, without: Collection[str] = ()) -> None:
        """Take files into the bundle, all or none, and note them in the manifest.

        All contents are copied first; then the files take their places, and the manifest the last one. When anything
        fails or the user interrupts, the bundle is as it was.

        Args:
            files: each replaces one of its name.
            without: names of files that leave the bundle.

        Raises:
            OutputError: they cannot be written.
        """
        places = {new.name: self._inside(new.name) for new in files}
        try:
            noted = {name: entry for name, entry in self.manifest.files.items() if name not in without}
            manifest = replace(self.manifest, files={**noted, **{new.name: new.entry() for new in files}})
            with Exchange() as exchange:
                for new in files:
                    target = places[new.name]
                    if new.source.resolve() != target.resolve():
                        target.parent.mkdir(parents=True, exist_ok=True)
                        shutil.copyfile(new.source, exchange.beside(target))
                exchange.beside(self.folder / MANIFEST).write_text(dump(manifest), encoding="utf-8")
                exchange.run(leaving=[self._inside(name) for name in without if name not in places])
            self.manifest = manifest
        except OSError as error:
            raise OutputError(
                f"cannot write to {self.folder}: {error}", fix="free space or choose another folder"
            ) from error

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
            raise BundleCorruptError(f"bundle {self.folder}: {name} is missing", fix=COPY_AGAIN)
        size = path.stat().st_size
        if size != entry.size_bytes:
            state = "truncated" if size < entry.size_bytes else "altered"
            raise BundleCorruptError(
                f"bundle {self.folder}: {name} is {state}: {size} bytes, expected {entry.size_bytes}", fix=COPY_AGAIN
            )

    def _check_hash(self, name: str) -> None:
        actual, expected = sha256_file(self._inside(name)), self.manifest.files[name].sha256
        if actual != expected:
            raise BundleCorruptError(
                f"bundle {self.folder}: {name} is altered: sha256 {actual[:12]}..., expected {expected[:12]}...",
                fix=COPY_AGAIN,
            )


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
        write_text(work / MANIFEST, dump(manifest))
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
