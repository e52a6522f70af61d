"""A bundle to a smaller one that holds what a device needs, and nothing else."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from clipdeploy.bundle import Bundle, FileEntry, NewFile, check_target, create_bundle
from clipdeploy.engine_key import ENGINES
from clipdeploy.errors import BundleCorruptError, InputError, OutputError
from clipdeploy.manifest import COPY_AGAIN
from clipdeploy.progress import Progress, silent
from clipdeploy.runtime.engines import engines_of
from clipdeploy.runtime.selftest.golden_frames import answers_name
from clipdeploy.runtime.stored_banks import KIND as BANK
from clipdeploy.runtime.stored_banks import banks_of
from clipdeploy.spec import FrameSpec, Precision, Target, Tower
from clipdeploy.writing import check_space

_TOKENIZER = "tokenizer.json"
_REPORTS = ("report/parity.json", "report/preflight.json")


@dataclass(frozen=True)
class PackRequest:
    """What to take of a bundle, and where to.

    Attributes:
        bundle: the bundle's folder.
        output: the new bundle's folder; it must not exist, unless `overwrite`.
        towers: which encoders; empty takes those there are.
        precisions: which graphs; empty takes all. An encoder that has none of them is taken in fp32.
        target: whose, of 8-bit graphs; None takes all.
        frames: which frame graphs; None takes all. None are taken without the image encoder.
        engines: take the engines that were built from these graphs.
        golden: take the golden samples, which the self-test and `verify` need.
        overwrite: replace a bundle that is already there.
    """

    bundle: Path
    output: Path
    towers: tuple[Tower, ...] = ()
    precisions: tuple[str, ...] = ()
    target: Target | None = None
    frames: tuple[FrameSpec, ...] | None = None
    engines: bool = True
    golden: bool = True
    overwrite: bool = False


@dataclass(frozen=True)
class PackOutcome:
    """What was packed.

    Attributes:
        files: name -> size in bytes, of the new bundle.
        left: likewise, of what stayed behind.
        graphs: of each encoder in the new bundle, its graphs.
        frames: the camera frames that it holds graphs for.
        engines: the engines in it.
        labels: that its banks hold.
        size_bytes: of the new bundle, and
        size_before_bytes: of the old one.
        notes: what the new bundle cannot do, and what is not as asked.
    """

    bundle: Path
    output: Path
    embedding_space: str
    files: dict[str, int]
    left: dict[str, int]
    graphs: dict[str, tuple[str, ...]]
    frames: tuple[FrameSpec, ...]
    engines: tuple[str, ...]
    labels: int
    size_bytes: int
    size_before_bytes: int
    notes: tuple[str, ...]
    seconds: float


def pack_bundle(request: PackRequest, *, progress: Progress = silent) -> PackOutcome:
    """Copy what is asked for into a new bundle of the same embedding space; the old one stays as it is.

    Every file that is copied is compared with its sha256. When anything fails nothing is left.

    Raises:
        InputError: the bundle lacks an encoder or a precision that is asked for.
        BundleError: the bundle cannot be opened, or a file of it is not what the manifest says.
        OutputError: the output exists already, is the bundle itself, or cannot be written.
    """
    started = time.perf_counter()
    check_target(request.output, overwrite=request.overwrite)
    bundle = Bundle.open(request.bundle, check_hashes=False)  # those that are taken are checked as they are copied
    _check_apart(bundle.folder, request.output)
    graphs, notes = _graphs(bundle, request)
    frames = _frames(bundle, request, graphs)
    engines = _engines(bundle, request, graphs, frames)
    labels = len({(bank.id, label) for bank in banks_of(bundle) for label in bank.labels})
    taken = {name: bundle.manifest.files[name] for name in _taken(bundle, request, graphs, frames, engines)}
    _copy(bundle, taken, request, progress)
    everything = bundle.manifest.files
    return PackOutcome(
        bundle=request.bundle,
        output=request.output,
        embedding_space=bundle.manifest.embedding_space,
        files={name: entry.size_bytes for name, entry in taken.items()},
        left={name: entry.size_bytes for name, entry in everything.items() if name not in taken},
        graphs={tower.value: names for tower, names in graphs.items()},
        frames=frames,
        engines=engines,
        labels=labels,
        size_bytes=sum(entry.size_bytes for entry in taken.values()),
        size_before_bytes=sum(entry.size_bytes for entry in everything.values()),
        notes=(*notes, *_limits(request, graphs, labels, baked=bundle.manifest.baked is not None)),
        seconds=time.perf_counter() - started,
    )


def _check_apart(folder: Path, output: Path) -> None:
    here, there = folder.resolve(), output.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise OutputError(f"{output} is not apart from the bundle {folder}", fix="choose another folder with -o")


def _graphs(bundle: Bundle, request: PackRequest) -> tuple[dict[Tower, tuple[str, ...]], list[str]]:
    """The graphs to take of each encoder, and what is not as asked about them.

    Raises:
        InputError: an encoder or a precision is not there.
    """
    towers = request.towers or tuple(tower for tower in Tower if bundle.precisions(tower))
    asked = tuple(Precision.parse(name) for name in request.precisions)
    for tower in towers:
        if not bundle.precisions(tower):
            raise InputError(
                f"bundle {bundle.folder} has no {tower.value} encoder",
                fix="leave --tower away, or name a bundle that has it",
            )
    for precision in asked:
        if not any(_in(bundle, tower, precision, request.target) for tower in towers):
            bundle.graph_name(towers[0], precision, request.target)  # raises
    graphs, notes = {}, []
    for tower in towers:
        names = [name for one in asked or bundle.precisions(tower) for name in _in(bundle, tower, one, request.target)]
        if not names:
            names = _in(bundle, tower, Precision.FP32, None) or [bundle.graph_name(tower)]  # raises
            notes.append(f"the {tower.value} encoder has no {' or '.join(p.value for p in asked)} graph: taken in fp32")
        graphs[tower] = tuple(names)
    return graphs, notes


def _in(bundle: Bundle, tower: Tower, precision: Precision, target: Target | None) -> list[str]:
    """The graphs of an encoder in a precision, for a target where one is asked for and it has 8 bits."""
    return [
        name
        for name, entry in bundle.manifest.files.items()
        if (entry.kind, entry.tower, entry.precision) == ("graph", tower, precision)
        and (target is None or entry.target in (target, None))
    ]


def _frames(bundle: Bundle, request: PackRequest, graphs: dict[Tower, tuple[str, ...]]) -> tuple[FrameSpec, ...]:
    """The frames whose graphs are taken; raises InputError for one that is asked for and not there."""
    if request.frames is not None:
        for frame in request.frames:
            bundle.frame_graph(frame)  # raises
        if request.frames and Tower.IMAGE not in graphs:
            raise InputError(
                "frame graphs go with the image encoder, which is not taken", fix="leave --frame out, or --tower text"
            )
        return tuple(frame for frame in bundle.frames() if frame in request.frames)
    return tuple(bundle.frames()) if Tower.IMAGE in graphs else ()


def _engines(
    bundle: Bundle, request: PackRequest, graphs: dict[Tower, tuple[str, ...]], frames: Sequence[FrameSpec]
) -> tuple[str, ...]:
    """The engines that were built from the graphs that are taken; a processor runs none."""
    if not request.engines or request.target == "cpu":
        return ()
    taken = {name for names in graphs.values() for name in names}
    return tuple(
        name
        for name, engine in engines_of(bundle).items()
        if engine.graph in taken and (engine.key.frame is None or engine.key.frame in frames)
    )


def _taken(
    bundle: Bundle,
    request: PackRequest,
    graphs: dict[Tower, tuple[str, ...]],
    frames: Sequence[FrameSpec],
    engines: Sequence[str],
) -> list[str]:
    """The names of the files to take, in the manifest's order."""
    names = {name for group in graphs.values() for name in group}
    wanted = {*names, *(f"{name}.data" for name in names), *_REPORTS, *(frame.graph_name for frame in frames)}
    folders = tuple(f"{ENGINES}/{name}/" for name in engines)
    if Tower.TEXT in graphs:
        wanted.add(_TOKENIZER)
    if request.golden:
        # What quantising recorded of a graph: its budget, and its answers to the golden samples.
        stems = {PurePosixPath(name).stem for name in names}
        wanted |= {f"report/quantize_{stem}.json" for stem in stems} | {f"golden/{stem}.npz" for stem in stems}
        others = {PurePosixPath(name).stem for name, entry in bundle.manifest.files.items() if entry.kind == "graph"}
        behind = {f"golden/{stem}.npz" for stem in others - stems}
        behind |= {answers_name(frame) for frame in bundle.frames() if frame not in frames}
        wanted |= {
            name for name, entry in bundle.manifest.files.items() if entry.kind == "golden" and name not in behind
        }
    return [
        name
        for name, entry in bundle.manifest.files.items()
        if name in wanted or entry.kind in (BANK, "labels") or (folders and name.startswith(folders))
    ]


def _copy(bundle: Bundle, taken: dict[str, FileEntry], request: PackRequest, progress: Progress) -> None:
    total = sum(entry.size_bytes for entry in taken.values())
    with create_bundle(request.output, replace(bundle.manifest, files={}), overwrite=request.overwrite) as packed:
        check_space(packed.folder, total)
        new, done = [], 0
        for name, entry in taken.items():
            progress("copying megabytes", done // 1_000_000, total // 1_000_000)
            place = packed.folder / name
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(bundle.path(name), place)
            except OSError as error:
                raise OutputError(
                    f"{name} of bundle {bundle.folder} cannot be copied beside {request.output}: {error}",
                    fix="free space or choose another folder with -o",
                ) from error
            done += entry.size_bytes
            told = {field: getattr(entry, field) for field in ("tower", "precision", "opset", "target", "frame")}
            new.append(NewFile(name, place, entry.kind, entry.origin, **told))
        packed.add_all(new)
        for name, entry in taken.items():
            if (copied := packed.manifest.files[name]) != entry:
                raise BundleCorruptError(
                    f"bundle {bundle.folder}: {name} is altered: sha256 {copied.sha256[:12]}..., expected "
                    f"{entry.sha256[:12]}...",
                    fix=COPY_AGAIN,
                )


def _limits(request: PackRequest, graphs: dict[Tower, tuple[str, ...]], labels: int, *, baked: bool) -> list[str]:
    """What the new bundle cannot do, which may be as it should."""
    notes = []
    if Tower.IMAGE not in graphs:
        notes.append("it holds no image encoder: it embeds texts, and takes no pictures")
    elif baked:
        pass  # its graph answers by itself
    elif Tower.TEXT not in graphs and not labels:
        notes.append(
            "it holds neither a text encoder nor banked labels: it embeds pictures, and cannot classify them; bank "
            f"labels first: clipdeploy bank {request.bundle} --label ..."
        )
    elif Tower.TEXT not in graphs:
        notes.append("it holds no text encoder: it knows the banked labels and no others")
    if not request.golden:
        notes.append("it holds no golden samples: nothing tests on the device whether it answers rightly")
    return notes
