"""A bundle's typed graphs to engines in the bundle: checked, built, looked at, and only then taken in."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from clipdeploy.building.plan import check_allow, check_graph, make_plan, missing_towers, target_of
from clipdeploy.building.records import BuildOutcome, BuildRequest, EngineOutcome, Plan
from clipdeploy.bundle import Bundle
from clipdeploy.engine.builder.build import build
from clipdeploy.engine.builder.config import check_options
from clipdeploy.engine.frames import join_frame
from clipdeploy.engine.layers.asked import check, layer_report
from clipdeploy.engine.product import Product, find_product
from clipdeploy.engine.records import BuildMachine, BuildOptions, EngineRecord
from clipdeploy.engine.store import add_engine, building, find
from clipdeploy.engine.targets.check import Prepared, before_building
from clipdeploy.engine.targets.target import EngineTarget
from clipdeploy.engine_key import ENGINE_FILE, ENGINES
from clipdeploy.errors import EngineError
from clipdeploy.findings import Finding, worst
from clipdeploy.machine import find_hardware, free_gpu_memory_bytes, free_memory_bytes
from clipdeploy.progress import Progress, silent
from clipdeploy.runtime.engines import Here, find_here
from clipdeploy.runtime.trt.inspector import inspector_json
from clipdeploy.spec import Tower
from clipdeploy.versions import installed

__all__ = ["BuildOutcome", "BuildRequest", "EngineOutcome", "Plan", "build_engines"]

_TOOLS = ("clipdeploy", "onnx", "onnx-ir", "tensorrt", "tensorrt-rtx")


@dataclass(frozen=True)
class _Workshop:
    """What builds, and where."""

    product: Product
    here: Here
    machine: BuildMachine


def build_engines(request: BuildRequest, *, progress: Progress = silent) -> BuildOutcome:
    """Add engines to a bundle; each is taken in as soon as it is done, so that one that fails costs only itself.

    Raises:
        InputError: a wrong argument; a typed graph that is not there, and no data to make it from.
        CalibrationError: quantising first, the data is unfit or the accuracy budget cannot be held.
        EngineError: the product is not installed; an engine cannot be built, or is not what was asked, and the bundle
            does not take it in.
        BundleError: the bundle cannot be opened.
        OutputError: the disk is full, or cannot be written to.
    """
    started = time.perf_counter()
    check_allow(request.allow)
    bundle = Bundle.open(request.bundle, check_hashes=False)  # what is built from is hashed then
    missing = missing_towers(request, bundle)
    shop = _workshop(request)
    # What does not go together is found before the minutes that quantising takes.
    check_options(request.options, shop.product, shop.machine)
    plans = _plans(request, bundle, shop, missing)
    quantised: tuple[str, ...] = ()
    engines: list[EngineOutcome] = []
    if not request.dry_run:
        if missing:
            quantised = _quantise(request, missing, progress)
            bundle.refresh()
            plans = _plans(request, bundle, shop, ())
        engines += [_engine(request, plan, bundle, shop, progress) for plan in plans]
    return BuildOutcome(
        bundle=request.bundle,
        backend=shop.product.backend,
        version=shop.product.version,
        quantised=quantised,
        plans=plans,
        engines=tuple(engines),
        seconds=time.perf_counter() - started,
    )


def _workshop(request: BuildRequest) -> _Workshop:
    hardware = find_hardware()
    jetson = hardware.jetson is not None
    product = find_product(request.backend, has_gpu=hardware.has_gpu, jetson=jetson)
    here = find_here(product.backend, product.version)
    machine = BuildMachine(here.compute_capability, free_memory_bytes(), free_gpu_memory_bytes(), jetson)
    return _Workshop(product, here, machine)


def _plans(request: BuildRequest, bundle: Bundle, shop: _Workshop, missing: Sequence[Tower]) -> tuple[Plan, ...]:
    return tuple(
        make_plan(request, bundle, tower, shop.product, shop.here, quantise=tower in missing, frame=frame)
        for tower in request.towers
        for frame in (request.frames if request.frames and tower is Tower.IMAGE else (None,))
    )


def _quantise(request: BuildRequest, towers: Sequence[Tower], progress: Progress) -> tuple[str, ...]:
    from clipdeploy.quantize import QuantizeRequest, quantize_bundle

    asked = QuantizeRequest(
        bundle=request.bundle,
        precision=request.precision,
        data=request.data,
        target=request.target(),
        towers=tuple(towers),
        texts=request.texts if Tower.TEXT in towers else (),
    )
    return quantize_bundle(asked, progress=progress).files


def _engine(request: BuildRequest, plan: Plan, bundle: Bundle, shop: _Workshop, progress: Progress) -> EngineOutcome:
    """One engine in the bundle, built unless it is there."""
    key = plan.key
    assert key is not None  # the graph is there by now
    folder = f"{ENGINES}/{key.name}"
    with building(bundle, key, progress=progress) as scratch:
        there = None if request.overwrite else find(bundle, key)
        if there is not None:
            return EngineOutcome(there, folder, built=False)
        file = scratch / ENGINE_FILE
        options = replace(request.options_for(plan.frame), compute_capabilities=key.compute_capabilities)
        record = _make(request, options, plan, bundle, shop, file, progress)
        progress("writing the bundle", 0, 0)
        cache = request.options.timing_cache
        add_engine(bundle, record, file, timing_cache=cache if cache and cache.is_file() else None, progress=progress)
    return EngineOutcome(record, folder, built=True)


def _make(
    request: BuildRequest,
    options: BuildOptions,
    plan: Plan,
    bundle: Bundle,
    shop: _Workshop,
    file: Path,
    progress: Progress,
) -> EngineRecord:
    """Build an engine into `file` and look at it; raises EngineError unless it is what was asked."""
    key = plan.key
    assert key is not None
    progress(f"{plan.what}: checking", 0, 0)
    prepared = _prepare(request, plan, bundle, target_of(key), file.parent)
    if options.strip_weights and prepared.rewrites:
        # The weights come back from the bundle's graph when the engine is loaded, and this engine is of another one.
        rewrites = ", ".join(prepared.rewrites)
        raise EngineError(
            f"{plan.graph} is rewritten for {target_of(key)} ({rewrites}), so an engine of it cannot take its weights "
            "from the bundle",
            fix="build without --strip-weights",
        )
    built = build(prepared.graph, file, options, shop.product, machine=shop.machine, progress=progress)
    progress(f"{plan.what}: looking at the engine", 0, 0)
    report = layer_report(prepared.graph, built, inspector=_inspected(options, shop, file))
    findings = (*prepared.findings, *check(prepared.graph, plan.precision, built, report, options, request.allow))
    if worst(findings) == "bad":
        raise _not_what_was_asked(plan, findings)
    return EngineRecord(
        key=key,
        graph=plan.graph,
        size_bytes=built.size_bytes,
        build_seconds=round(built.seconds, 3),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        tools={**installed(_TOOLS), key.backend: key.version},
        report=report,
        findings=findings,
        warnings=built.warnings,
    )


def _prepare(request: BuildRequest, plan: Plan, bundle: Bundle, target: EngineTarget, scratch: Path) -> Prepared:
    """The graph to build from: what it must become for this version and these GPUs, where some are known to build it
    wrong; with the frame graph in front where the engine takes frames."""
    check_graph(bundle, plan.graph)
    source = bundle.path(plan.graph)
    prepared = before_building(source, target, scratch, precision=plan.precision, allow=request.allow)
    if plan.frame is None:
        return prepared
    check_graph(bundle, plan.frame.graph_name)
    front = before_building(bundle.frame_graph(plan.frame), target, scratch, allow=request.allow)
    joined = scratch / f"{source.stem}_{front.graph.name}"
    join_frame(front.graph, prepared.graph, joined)
    findings = tuple(dict.fromkeys((*front.findings, *prepared.findings)))
    return Prepared(joined, findings, tuple(dict.fromkeys((*front.rewrites, *prepared.rewrites))))


def _inspected(options: BuildOptions, shop: _Workshop, file: Path) -> str | None:
    """What the engine says of itself, where it can be loaded here; otherwise the builder's log tells of its layers.

    TensorRT for RTX logs what its inspector says.
    """
    if shop.product.rtx or shop.here.gpu is None or options.strip_weights:
        return None
    return inspector_json(file, shop.product.module, host_code=options.version_compatible)


def _not_what_was_asked(plan: Plan, findings: Sequence[Finding]) -> EngineError:
    bad = [finding for finding in findings if finding.state == "bad"]
    said = "\n".join(f"  {finding.check}: {finding.message}" for finding in bad)
    fixes = dict.fromkeys(finding.fix for finding in bad if finding.fix)
    return EngineError(
        f"the engine of {plan.what} is not what was asked, and the bundle does not take it in:\n{said}",
        fix="; ".join(fixes) or "build with --detailed --debug, and report what it prints",
    )
