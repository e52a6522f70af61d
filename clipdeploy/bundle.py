"""The bundle folder: create, open, add files, check hashes.

A bundle is a plain folder. `manifest.json` names every other file with its size and sha256; what it does not
name is not part of the bundle. Writing happens in a folder beside the target, which is renamed when all is there.

Several processes may open a bundle and add to it at once. Opening takes no lock and writes nothing; adding takes the
bundle's lock, reads the manifest anew, and changes it last.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from clipdeploy.bundle_folder import LOCK, check_files, check_target, path_inside, stamp, take_place
from clipdeploy.errors import BundleCorruptError, InputError, OutputError
from clipdeploy.locks import is_locked, locked
from clipdeploy.manifest import (
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
from clipdeploy.progress import Progress, silent
from clipdeploy.spec import FrameSpec, ModelSpec, Precision, Target, Tower
from clipdeploy.writing import (
    Index,
    check_space,
    exchange,
    full_disk,
    replacing,
    settle,
    wait_for_exchange,
    write_text,
)

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
    """An opened bundle: its folder and its manifest. Make one with `Bundle.open` or `create_bundle`.

    `draft` is True while `create_bundle` fills it where nobody else looks.
    """

    def __init__(self, folder: Path, manifest: Manifest, *, draft: bool = False) -> None:
        self.folder = folder
        self.manifest = manifest
        self._draft = draft

    @classmethod
    def open(
        cls, folder: str | Path, *, check_hashes: bool = True, sha256: Callable[[Path], str] = sha256_file
    ) -> Bundle:
        """Open a bundle and check every file that the manifest names.

        Args:
            folder: the bundle's folder.
            check_hashes: compare the sha256 of every file; False compares sizes only.
            sha256: tells that of a file; as given it reads the file whole.

        Raises:
            BundleNotFoundError: no folder, or no manifest in it.
            BundleVersionError: written by a newer schema.
            BundleCorruptError: an unreadable manifest, or a file that is missing, truncated, altered or outside.
        """
        folder = Path(folder)
        while True:
            wait_for_exchange(folder, busy=lambda: is_locked(folder / LOCK))
            told = stamp(folder)
            bundle = cls(folder, read_manifest(folder))
            try:
                check_files(folder, bundle.manifest, sha256 if check_hashes else None)
                return bundle
            except BundleCorruptError:
                if stamp(folder) == told:
                    raise
                # Another process has replaced files meanwhile: look again.

    def refresh(self) -> None:
        """Take over what other processes have added since this bundle was opened."""
        self.manifest = read_manifest(self.folder)

    def stamp(self) -> tuple[int, ...]:
        """Tells the bundle that lies in the folder now from the next one; empty where there is none."""
        return stamp(self.folder)

    def as_now(self) -> Bundle:
        """The bundle as it lies in the folder now; of its files only the manifest is read."""
        wait_for_exchange(self.folder, busy=lambda: is_locked(self.folder / LOCK))
        return Bundle(self.folder, read_manifest(self.folder), draft=self._draft)

    @property
    def model(self) -> ModelSpec:
        """What the bundle's CLIP takes and gives."""
        return self.manifest.model

    def check_unbaked(self, what: str) -> None:
        """Raise InputError where labels are folded into the image graph, so that nobody can `what`."""
        if self.manifest.baked is not None:
            raise InputError(
                f"bundle {self.folder} is baked: its image graph answers by itself, and nobody can {what} it",
                fix=f"{what} the bundle that it was baked from, and bake that again; this one is opened by "
                "clipdeploy.load_baked",
            )

    def path(self, name: str) -> Path:
        """Path of a file that the manifest names; raises BundleCorruptError for one it does not."""
        if name not in self.manifest.files:
            have = ", ".join(sorted(self.manifest.files)) or "nothing"
            raise BundleCorruptError(
                f"bundle {self.folder} has no file {name!r}; it holds {have}", fix="export the bundle anew"
            )
        return path_inside(self.folder, name)

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

    def frames(self) -> list[FrameSpec]:
        """The camera frames that this bundle holds a graph for, in the manifest's order."""
        return [entry.frame for entry in self.manifest.files.values() if entry.kind == "frame" and entry.frame]

    def frame_graph(self, frame: FrameSpec) -> Path:
        """Path of the graph that makes pixels of these frames; raises InputError where there is none."""
        if frame not in self.frames():
            have = ", ".join(map(str, self.frames())) or "none"
            raise InputError(
                f"bundle {self.folder} holds no graph for frames of {frame}; it holds: {have}",
                fix=f"make it: clipdeploy frames {self.folder} --frame {frame}",
            )
        return self.path(frame.graph_name)

    def _graphs(self, tower: Tower, precision: Precision) -> dict[str, FileEntry]:
        return {
            name: entry
            for name, entry in self.manifest.files.items()
            if entry.kind == "graph" and entry.tower is tower and entry.precision is precision
        }

    def _lacks(self, tower: Tower, precision: Precision, target: Target | None) -> InputError:
        have = ", ".join(p.value for p in self.precisions(tower))
        if not have:
            return InputError(
                f"bundle {self.folder} holds no graph of the {tower.value} tower",
                fix="use the bundle that this one was packed from, or export the checkpoint again",
            )
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
        return path_inside(self.folder, name)

    def add_all(
        self,
        files: Sequence[NewFile],
        *,
        without: Collection[str] = (),
        unchanged: Collection[str] = (),
        progress: Progress = silent,
    ) -> None:
        """Take files into the bundle, all or none, and note them in the manifest.

        All contents are copied first; then the files take their places, and the manifest the last one. When anything
        fails or the user interrupts, the bundle is as it was; when the process is killed, the bundle opens, and the
        next one to add cleans up. What other processes add at the same time stays.

        Args:
            files: each replaces one of its name.
            without: names of files that leave the bundle.
            unchanged: names of files that `files` were made from, and that must be as they were when this was opened.
            progress: told when another process is writing to the bundle and this one waits.

        Raises:
            OutputError: they cannot be written, or the bundle is another one by now.
        """
        places = {new.name: path_inside(self.folder, new.name) for new in files}
        try:
            entries = {new.name: new.entry() for new in files}
            with self._alone(progress):
                settle(self.folder, MANIFEST)  # what a process left that was killed
                now = read_manifest(self.folder)
                self._check_same(now, unchanged)
                stay = {name: entry for name, entry in now.files.items() if name not in without}
                after = replace(now, files={**stay, **entries})
                between = replace(now, files={name: entry for name, entry in stay.items() if name not in entries})
                moving = {n.name: n.source for n in files if n.source.resolve() != places[n.name].resolve()}
                check_space(self.folder, sum(entries[name].size_bytes for name in moving))
                leaving = [name for name in without if name in now.files and name not in entries]
                index = Index(MANIFEST, dump(between), dump(after))
                exchange(self.folder, moving, leaving, index, durable=not self._draft)
            self.manifest = after
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise full_disk(self.folder, sum(new.source.stat().st_size for new in files), error) from error
            raise OutputError(
                f"cannot write to {self.folder}: {error}", fix="free space or choose another folder"
            ) from error

    def _alone(self, progress: Progress) -> AbstractContextManager[None]:
        """While nobody else adds to the bundle."""
        if self._draft:
            return nullcontext()
        return locked(
            self.folder / LOCK, waiting=lambda holder: progress(f"waiting for {holder}, which adds files", 0, 0)
        )

    def _check_same(self, now: Manifest, unchanged: Collection[str]) -> None:
        """Raise OutputError when what this bundle was opened as is not what lies there now."""
        told = f"bundle {self.folder} has changed meanwhile: "
        if (now.embedding_space, now.provenance) != (self.manifest.embedding_space, self.manifest.provenance):
            raise OutputError(f"{told}it has been made anew", fix="run the command again")
        for name in unchanged:
            if now.files.get(name) != self.manifest.files.get(name):
                raise OutputError(f"{told}{name} is not the one that was read", fix="run the command again")


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
        yield Bundle(work, manifest, draft=True)
        take_place(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
