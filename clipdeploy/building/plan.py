"""What building an engine comes to, before anything is built: its graph, its key, its stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clipdeploy.building.records import BuildRequest, Plan
from clipdeploy.bundle import Bundle
from clipdeploy.engine.builder.capabilities import choose_capabilities
from clipdeploy.engine.builder.config import flags
from clipdeploy.engine.builder.outline import Outline, read_outline
from clipdeploy.engine.builder.profiles import check_profiles
from clipdeploy.engine.layers.asked import FALLBACK
from clipdeploy.engine.product import Product
from clipdeploy.engine.records import BuildOptions
from clipdeploy.engine.store import find
from clipdeploy.engine.targets.check import REWRITTEN, key_flags
from clipdeploy.engine.targets.hardware import precision_finding
from clipdeploy.engine.targets.known_bad import allowable
from clipdeploy.engine.targets.target import EngineTarget
from clipdeploy.engine.trtexec import trtexec_line
from clipdeploy.engine_key import ENGINE_FILE, ENGINES, EngineKey
from clipdeploy.errors import BundleCorruptError, EngineError, InputError
from clipdeploy.manifest import COPY_AGAIN, sha256_file
from clipdeploy.runtime.engines import Here, engine_graph, graph_sha256
from clipdeploy.spec import FrameSpec, Precision, Tower


def missing_towers(request: BuildRequest, bundle: Bundle) -> tuple[Tower, ...]:
    """The encoders whose graph must be made first.

    Raises:
        InputError: a graph is not there, and there is no data to make it from.
    """
    precision = Precision.parse(request.precision)
    _check_frames(request, bundle)
    missing = []
    for tower in request.towers:
        try:
            engine_graph(bundle, tower, precision)
        except InputError:
            if precision is Precision.FP32:
                raise
            bundle.graph_name(tower)  # what it would be made from
            missing.append(tower)
    if missing and not request.data:
        raise _no_graph(request, bundle, missing)
    return tuple(missing)


def _check_frames(request: BuildRequest, bundle: Bundle) -> None:
    """Raise InputError unless the bundle holds the graphs for the frames that are asked for, and they are of use."""
    for index, frame in enumerate(request.frames):
        bundle.frame_graph(frame)  # raises
        if frame in request.frames[:index]:
            raise InputError(f"the frame {frame} is given twice", fix="name each --frame once")
    if request.frames and Tower.IMAGE not in request.towers:
        raise InputError(
            "frames are for the image encoder, and the text encoder alone is asked for", fix="pass --tower image"
        )
    if request.frames and request.options.strip_weights:
        raise InputError(
            "an engine for camera frames is made of two graphs, and cannot take its weights from the bundle when it "
            "is loaded",
            fix="leave --strip-weights out, or build the engine that takes pixels: leave --frame out",
        )


def check_allow(names: Sequence[str]) -> None:
    """Raise InputError for a name that nothing has which could be built, or taken in, all the same."""
    known = (FALLBACK, *allowable())
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"unknown name for --allow: {', '.join(unknown)}", fix=f"pass one of {', '.join(known)}")


def target_of(key: EngineKey) -> EngineTarget:
    """What the engine of a key is for."""
    return EngineTarget.of(key.backend, key.version, key.compute_capabilities, device=key.gpu, jetpack=key.jetpack)


def check_graph(bundle: Bundle, name: str) -> None:
    """Raise BundleCorruptError unless a graph, and the weights beside it, are what the manifest says."""
    for file in (name, f"{name}.data"):
        entry = bundle.manifest.files.get(file)
        if entry is not None and sha256_file(bundle.path(file)) != entry.sha256:
            raise BundleCorruptError(
                f"bundle {bundle.folder}: {file} is altered: its sha256 is not {entry.sha256[:12]}...", fix=COPY_AGAIN
            )


def _no_graph(request: BuildRequest, bundle: Bundle, missing: list[Tower]) -> InputError:
    both = len(missing) == 2
    towers = " and ".join(tower.value for tower in missing)
    make = f"clipdeploy quantize {bundle.folder} --precision {request.precision}"
    make += f" --tower {'both' if both else missing[0].value} --calibration-data PICTURES"
    make += " --texts FILE" if Tower.TEXT in missing else ""
    fix = f"make {'them' if both else 'it'}: {make}; or pass --calibration-data here, which does the same first"
    others = [tower.value for tower in request.towers if tower not in missing]
    if others:
        fix = f"build the {others[0]} encoder alone: --tower {others[0]}; or {fix}"
    target = " for TensorRT" if request.target() else ""
    return InputError(
        f"bundle {bundle.folder} holds no {request.precision} graph{target} of the {towers} "
        f"encoder{'s' if both else ''}; an engine takes its types from the graph",
        fix=fix,
    )


def make_plan(
    request: BuildRequest,
    bundle: Bundle,
    tower: Tower,
    product: Product,
    here: Here,
    *,
    quantise: bool,
    frame: FrameSpec | None = None,
) -> Plan:
    """What one engine of the request comes to.

    Args:
        request: what is asked.
        bundle: opened.
        tower: of the engine.
        product: what will build.
        here: where.
        quantise: whether its graph is not there yet.
        frame: the camera frames that it takes; None for what the encoder takes.

    Raises:
        InputError, EngineError: the product, the machine and the graph do not go together.
    """
    precision, options = Precision.parse(request.precision), request.options_for(frame)
    if quantise:
        _check_precision(request, product, here)
        name = tower.graph_name(precision, request.target())
        line = _line(bundle, name, bundle.folder / ENGINES / ENGINE_FILE, options, product, frame, bundle.graph(tower))
        return Plan(tower, precision, name, True, None, None, False, _stages(request, True, frame), line, None, frame)
    name = engine_graph(bundle, tower, precision)
    key = make_key(request, bundle, name, tower, product, here, frame)
    folder = f"{ENGINES}/{key.name}"
    there = find(bundle, key) is not None
    options = replace(options, compute_capabilities=key.compute_capabilities)
    line = _line(bundle, name, bundle.folder / folder / ENGINE_FILE, options, product, frame, None)
    stages = () if there and not request.overwrite else _stages(request, False, frame)
    mark = f"{REWRITTEN}="
    rewrites = tuple(flag.removeprefix(mark) for flag in key.flags if flag.startswith(mark))
    return Plan(tower, precision, name, False, key, folder, there, stages, line, rewrites, frame)


def _line(
    bundle: Bundle,
    name: str,
    plan: Path,
    options: BuildOptions,
    product: Product,
    frame: FrameSpec | None,
    like: Path | None,
) -> str:
    """The line for the product's own tool; of frames none, whose joined graph is not kept."""
    if frame is not None:
        return ""
    return trtexec_line(bundle.folder / name, plan, options, product, like=like)


def _check_precision(request: BuildRequest, product: Product, here: Here) -> None:
    """Raise EngineError where no GPU that is asked for computes in the precision; the graph itself is not there yet."""
    own = (here.compute_capability,) if here.compute_capability else ()
    capabilities = request.options.compute_capabilities or own
    target = EngineTarget.of(product.backend, product.version, capabilities, device=here.gpu, jetpack=here.jetpack)
    finding = precision_finding(target, Precision.parse(request.precision))
    if finding.state == "bad":
        raise EngineError(f"{target} does not take {request.precision}: {finding.message}", fix=finding.fix)


def make_key(
    request: BuildRequest,
    bundle: Bundle,
    name: str,
    tower: Tower,
    product: Product,
    here: Here,
    frame: FrameSpec | None = None,
) -> EngineKey:
    """What the engine of graph `name` will be tied to; see `make_plan`."""
    outline, options = read_outline(bundle.path(name)), request.options_for(frame)
    check_profiles(options.profiles, outline)
    asked = request.options.compute_capabilities
    key = EngineKey(
        backend=product.backend,
        version=product.version,
        platform=here.platform,
        gpu=None if product.rtx else here.gpu,
        compute_capabilities=choose_capabilities(product, outline, asked=asked, here=here.compute_capability),
        jetpack=None if product.rtx else here.jetpack,
        tower=tower,
        precision=Precision.parse(request.precision),
        graph_sha256=graph_sha256(bundle, name, frame),
        profiles=options.profiles,
        flags=flags(options),
        frame=frame,
    )
    more = set(_graph_flags(request, bundle, name, outline, target_of(key)))
    if frame is not None:
        front = read_outline(bundle.frame_graph(frame))
        check_profiles(options.profiles, front)
        more |= set(_graph_flags(request, bundle, frame.graph_name, front, target_of(key)))
    return replace(key, flags=tuple(sorted((*key.flags, *more))))


def _graph_flags(
    request: BuildRequest, bundle: Bundle, name: str, outline: Outline, target: EngineTarget
) -> tuple[str, ...]:
    """The flags that tell what becomes of the graph first, and what is taken in all the same."""
    operators = {node.operator for node in outline.nodes}
    try:
        found = key_flags(bundle.path(name), operators, target, request.allow)
    except Exception:
        check_graph(bundle, name)  # one that was altered is told as such
        raise
    return (*found, f"allow={FALLBACK}") if FALLBACK in request.allow else found


def _stages(request: BuildRequest, quantise: bool, frame: FrameSpec | None) -> tuple[str, ...]:
    """What is done, for people."""
    cache, profiles = request.options.timing_cache, request.options_for(frame).profiles
    stages = [
        f"quantise: {' '.join(request.data)}" if quantise else "",
        "lock: one build of a key at a time",
        "check: the graph's hash, what this version takes, versions known to build it wrong",
        f"join: the graph for frames of {frame}, in float32, and the encoder behind it" if frame else "",
        "memory: what is free, and what the build takes",
        f"build: {len(profiles)} optimisation profile(s)" + (f", timings in {cache}" if cache else ""),
        "look: types of the layers, size, attention",
        "store: the engine and its JSON, in the bundle's manifest too",
    ]
    return tuple(stage for stage in stages if stage)
