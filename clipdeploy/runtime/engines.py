"""Which engine of a bundle runs on this machine: the one whose key fits, and no other."""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipdeploy.bundle import Bundle
from clipdeploy.engine_key import ENGINE_FILE, ENGINES, RECORD_FILE, Difference, EngineBackend, EngineKey
from clipdeploy.errors import BundleCorruptError, EngineError, InputError
from clipdeploy.machine import Probes, find_hardware, platform_tag, this_machine
from clipdeploy.runtime.trt.gpus import gpu_by_environment, gpu_of_cuda
from clipdeploy.spec import FrameSpec, Precision, Tower, from_dict

VERSION_COMPATIBLE, HARDWARE_COMPATIBLE = "version-compatible", "hardware-compatible"
"""Flags of a key that loosen what must be equal."""

_OPTIONS = (
    VERSION_COMPATIBLE,
    HARDWARE_COMPATIBLE,
    "allow",
    "detailed",
    "optimization-level",
    "strip-weights",
    "workspace",
)
"""Flags of a key that build-engine takes as options; the others it finds itself, from the graph and the product."""
_AMPERE = (8, 0)
_SHOWN = 4


@dataclass(frozen=True)
class EngineEntry:
    """An engine in a bundle.

    Attributes:
        name: of its folder below `engines/`.
        key: what it is tied to.
        path: of the engine file.
        size_bytes: of that file.
        graph: name of the encoder's ONNX file that it was built from.
        created: UTC, ISO 8601.
    """

    name: str
    key: EngineKey
    path: Path
    size_bytes: int
    graph: str
    created: str


@dataclass(frozen=True)
class Here:
    """What an engine is to run on.

    Attributes:
        backend: the product that loads it.
        version: of that product, in full.
        platform: such as `linux-x86_64`.
        gpu: name, None without a GPU.
        compute_capability: such as `8.7`, None where it is not known.
        jetpack: None off Jetson.
    """

    backend: EngineBackend
    version: str
    platform: str
    gpu: str | None
    compute_capability: str | None
    jetpack: str | None


def find_here(backend: EngineBackend, version: str, probes: Probes | None = None) -> Here:
    """This machine with a product of this version; engines are keyed by what this says, and chosen by it.

    Of several GPUs it is the one that CUDA uses in this thread; CUDA itself is asked where cuda-python is installed.

    Args:
        backend: the product.
        version: of it.
        probes: a machine, which is asked without CUDA; None stands for this one.

    Raises:
        EngineError: there are GPUs that differ, and neither CUDA nor its environment variables tell which is used.
    """
    used = gpu_of_cuda() if probes is None else None
    probes = probes or this_machine()
    hardware = find_hardware(probes)
    if hardware.jetson is not None and hardware.gpu is not None:
        # CUDA calls every Orin "Orin": on a Jetson, engines go by the name of the module.
        name, known = hardware.gpu.name, hardware.gpu.compute_capability
        gpu: tuple[str | None, str | None] = (name, used[1] if used else known)
    else:
        gpu = used or gpu_by_environment(hardware.gpus, probes.environment, backend)
    return Here(
        backend=backend,
        version=version,
        platform=platform_tag(probes),
        gpu=gpu[0],
        compute_capability=gpu[1],
        jetpack=hardware.jetson.jetpack if hardware.jetson else None,
    )


def graph_files(bundle: Bundle, graph_name: str, frame: FrameSpec | None = None) -> tuple[str, ...]:
    """The files of a bundle that an engine is made from: the graph, the weights beside it, and the frame graph.

    Raises:
        InputError: the graph, or the one for these frames, is not there.
    """
    files = bundle.manifest.files
    if graph_name not in files:
        raise InputError(f"bundle {bundle.folder} has no graph {graph_name!r}")
    if frame is not None:
        bundle.frame_graph(frame)  # raises
    names = (graph_name, f"{graph_name}.data", *([] if frame is None else [frame.graph_name]))
    return tuple(name for name in names if name in files)


def graph_sha256(bundle: Bundle, graph_name: str, frame: FrameSpec | None = None) -> str:
    """The hash of what an engine is made from (see `graph_files`), from the manifest; nothing is read."""
    hashes = [bundle.manifest.files[name].sha256 for name in graph_files(bundle, graph_name, frame)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def graph_now(bundle: Bundle, tower: Tower, precision: Precision, frame: FrameSpec | None = None) -> str | None:
    """The hash of what engines of this tower, precision and frame are made from; None where it is not all there."""
    try:
        return graph_sha256(bundle, engine_graph(bundle, tower, precision), frame)
    except InputError:
        return None


def engine_graph(bundle: Bundle, tower: Tower, precision: Precision) -> str:
    """The name of the graph that engines of this tower and precision are built from.

    Raises:
        InputError: there is none; what is there is named.
    """
    return bundle.graph_name(tower, precision, "tensorrt" if precision.quantised else None)


def engines_of(bundle: Bundle) -> dict[str, EngineEntry]:
    """The engines that the manifest names, by the names of their folders.

    Raises:
        BundleCorruptError: the record of one cannot be read.
    """
    found = {}
    for record in bundle.manifest.files:
        parts = record.split("/")
        if len(parts) == 3 and parts[0] == ENGINES and parts[2] == RECORD_FILE:
            plan = f"{ENGINES}/{parts[1]}/{ENGINE_FILE}"
            if plan in bundle.manifest.files:
                found[parts[1]] = _entry(bundle, parts[1], record, plan)
    return found


def stale_engines(bundle: Bundle) -> dict[str, EngineEntry]:
    """The engines whose graph is no longer in the bundle, or is another one now; nothing can load them."""
    return {
        name: entry
        for name, entry in engines_of(bundle).items()
        if entry.key.graph_sha256 != graph_now(bundle, entry.key.tower, entry.key.precision, entry.key.frame)
    }


def differences(key: EngineKey, here: Here, graph: str | None) -> tuple[Difference, ...]:
    """What keeps an engine from running here; empty where nothing does.

    Args:
        key: of the engine.
        here: the machine.
        graph: hash of the bundle's graph now, None where it has none.
    """
    found = [
        Difference(name, getattr(key, name), getattr(here, name))
        for name in ("backend", "platform")
        if getattr(key, name) != getattr(here, name)
    ]
    if not _version_fits(key, here):
        found.append(Difference("version", key.version, here.version))
    if not _capability_fits(key, here):
        found.append(Difference("compute_capability", key.compute_capabilities, here.compute_capability))
    if key.backend == "tensorrt" and HARDWARE_COMPATIBLE not in key.flags:
        found += [
            Difference(name, getattr(key, name), getattr(here, name))
            for name in ("gpu", "jetpack")
            if getattr(key, name) != getattr(here, name)
        ]
    if key.graph_sha256 != graph:
        found.append(Difference("graph_sha256", key.graph_sha256, graph))
    return tuple(found)


def candidates(
    bundle: Bundle, tower: Tower, precision: Precision, backend: EngineBackend, frame: FrameSpec | None = None
) -> list[EngineEntry]:
    """The engines of a tower in a precision, for these frames or for none, whether or not they run here."""
    asked = (tower, precision, backend, frame)
    keyed = [(entry, entry.key) for entry in engines_of(bundle).values()]
    return [entry for entry, key in keyed if (key.tower, key.precision, key.backend, key.frame) == asked]


def framed(bundle: Bundle, precision: Precision, backend: EngineBackend) -> tuple[FrameSpec, ...]:
    """The camera frames that engines of the image encoder take, whether or not they run here; by size."""
    found = {
        entry.key.frame
        for entry in engines_of(bundle).values()
        if (entry.key.tower, entry.key.precision, entry.key.backend) == (Tower.IMAGE, precision, backend)
    }
    return tuple(sorted((f for f in found if f is not None), key=lambda f: (f.width, f.height, f.color)))


def choose_engine(
    bundle: Bundle,
    tower: Tower,
    precision: Precision,
    here: Here,
    *,
    frame: FrameSpec | None = None,
    batch: int | None = None,
) -> EngineEntry:
    """The engine of a bundle that runs here.

    Of several, one built for exactly this machine comes before a portable one; then the one whose profile is made for
    `batch`; then the newest.

    Args:
        bundle: opened.
        tower: which encoder.
        precision: number format of its graph.
        here: see `find_here`.
        frame: the camera frames that it must take; None asks for one that takes what the encoder does.
        batch: pictures or texts at once, which a profile must take; None takes any.

    Raises:
        EngineError: there is none that runs here; says what each differs in, and the command that builds one.
        BundleCorruptError: the record of an engine cannot be read.
    """
    graph = graph_now(bundle, tower, precision, frame)
    built = candidates(bundle, tower, precision, here.backend, frame)
    frames = "" if frame is None else f" for frames of {frame}"
    what = f"{here.backend} engine of the {tower.value} tower{frames} in {precision.value}"
    if not built:
        have = ", ".join(sorted(engines_of(bundle))) or "none"
        command = build_command(bundle.folder, tower, precision, here, frame=frame, batch=batch)
        if frame is not None and frame not in bundle.frames():
            command = f"{shlex.join(['clipdeploy', 'frames', str(bundle.folder), '--frame', str(frame)])} && {command}"
        raise EngineError(
            f"bundle {bundle.folder} holds no {what}; engines it holds: {have}",
            fix=f"build it on this machine: {command}",
        )
    parted = {entry.name: differences(entry.key, here, graph) for entry in built}
    fitting = [entry for entry in built if not parted[entry.name]]
    if not fitting:
        nearest = sorted(built, key=lambda entry: len(parted[entry.name]))
        lines = [f"  {entry.name}: {'; '.join(map(str, parted[entry.name]))}" for entry in nearest[:_SHOWN]]
        more = [f"  and {len(nearest) - _SHOWN} more"] if len(nearest) > _SHOWN else []
        command = build_command(bundle.folder, tower, precision, here, like=nearest[0].key, batch=batch)
        raise EngineError(
            "\n".join([f"no {what} in bundle {bundle.folder} runs here:", *lines, *more]),
            fix=f"build it anew on this machine: {command}",
        )
    taking = [entry for entry in fitting if batch is None or _distance(entry.key, batch) is not None]
    if not taking:
        bands = " and ".join(f"{p.smallest}..{p.largest}" for entry in fitting for p in entry.key.profiles)
        command = build_command(bundle.folder, tower, precision, here, like=fitting[0].key, batch=batch)
        raise EngineError(
            f"no {what} in bundle {bundle.folder} takes a batch of {batch}; they take {bands}",
            fix=f"build one that does: {command}",
        )
    return max(taking, key=lambda entry: (-_looseness(entry.key), -(_distance(entry.key, batch) or 0), entry.created))


def build_command(
    folder: Path,
    tower: Tower,
    precision: Precision,
    here: Here,
    *,
    like: EngineKey | None = None,
    frame: FrameSpec | None = None,
    batch: int | None = None,
) -> str:
    """The command line that builds an engine for `here`.

    Args:
        folder: of the bundle.
        tower: which encoder.
        precision: of its graph.
        here: the machine that runs it.
        like: an engine whose frames, batch sizes and options to keep.
        frame: the camera frames that it takes.
        batch: a batch size that it must take.
    """
    words = ["clipdeploy", "build-engine", str(folder), "--tower", tower.value, "--precision", precision.value]
    frame = frame or (like.frame if like else None)
    words += ["--frame", str(frame)] if frame is not None else []
    words += ["--backend", here.backend]
    profiles = [(p.smallest, p.usual, p.largest) for p in like.profiles] if like else []
    if batch is not None and not any(low <= batch <= high for low, _, high in profiles):
        profiles.append((batch, batch, batch))
    for profile in profiles:
        words += ["--batch", ",".join(map(str, profile))]
    if here.backend == "tensorrt-rtx" and here.compute_capability:
        words += ["--compute-capability", here.compute_capability]
    for flag in like.flags if like else ():
        name, _, value = flag.partition("=")
        words += [f"--{name}", *([value] if value else [])] if name in _OPTIONS else []
    return shlex.join(words)


def _entry(bundle: Bundle, name: str, record: str, plan: str) -> EngineEntry:
    path = bundle.path(record)
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        key = from_dict(EngineKey, data["key"], where=f"{record}.key")
        graph, created = str(data["graph"]), str(data["created"])
    except (OSError, ValueError, KeyError, TypeError) as error:  # InputError is a ValueError
        raise BundleCorruptError(
            f"{path} is no record of an engine: {error}",
            fix="pip install --upgrade clipdeploy, or build the engine anew: clipdeploy build-engine --overwrite",
        ) from error
    return EngineEntry(name, key, bundle.path(plan), bundle.manifest.files[plan].size_bytes, graph, created)


def _version_fits(key: EngineKey, here: Here) -> bool:
    """The same version; or, for version-compatible engines, a later one of the same major or of the one that follows.

    TensorRT carries engines over from 8 to 10 and from 10 to 11, and over no other change of the major version:
    https://docs.nvidia.com/deeplearning/tensorrt/latest/getting-started/support-matrix.html
    """
    if key.version == here.version or key.backend != here.backend:
        return True  # versions of two products cannot be compared
    if VERSION_COMPATIBLE not in key.flags:
        return False
    built, now = _numbers(key.version), _numbers(here.version)
    return now[:2] >= built[:2] and (now[0] == built[0] or (built[0], now[0]) in ((8, 10), (10, 11)))


def _capability_fits(key: EngineKey, here: Here) -> bool:
    if here.compute_capability is None:
        return False
    if here.compute_capability in key.compute_capabilities:
        return True
    return HARDWARE_COMPATIBLE in key.flags and _numbers(here.compute_capability) >= _AMPERE


def _numbers(version: str) -> tuple[int, ...]:
    """`10.3.0.30` as (10, 3, 0, 30); what is no number ends it."""
    numbers: list[int] = []
    for part in version.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers) or (0,)


def _looseness(key: EngineKey) -> int:
    return sum(flag in key.flags for flag in (VERSION_COMPATIBLE, HARDWARE_COMPATIBLE))


def _distance(key: EngineKey, batch: int | None) -> int | None:
    """How far the nearest profile's usual batch is from this one; None where none takes it."""
    if batch is None:
        return 0
    return min((abs(p.usual - batch) for p in key.profiles if p.smallest <= batch <= p.largest), default=None)
