"""`clipdeploy build-engine`: TensorRT engines for a bundle."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipdeploy.cli import options
from clipdeploy.cli.console import Console
from clipdeploy.cli.findings import findings_text
from clipdeploy.cli.verb import Verb
from clipdeploy.spec import FrameSpec, Precision, Tower
from clipdeploy.text import one_line, pairs, plural, table

if TYPE_CHECKING:
    from clipdeploy.building.records import BuildOutcome

EXAMPLES = (
    "clipdeploy build-engine b32",
    "clipdeploy build-engine b32 --precision int8 --tower image --calibration-data photos/",
    "clipdeploy build-engine b32 --precision fp16 --batch 1,1,1 --batch 2,8,32 --workspace 1024",
    "clipdeploy build-engine b32 --backend tensorrt-rtx --compute-capability 8.6 --compute-capability 8.9",
    "clipdeploy build-engine b32 --precision fp16 --frame 1920x1080:bgr",
    "clipdeploy build-engine b32 --precision fp16 --dry-run",
)

_TOWERS = {"image": (Tower.IMAGE,), "text": (Tower.TEXT,), "both": tuple(Tower)}


def _mebibytes(_context: click.Context, _option: click.Parameter, value: str | None) -> int | None:
    """`1024` or `1024MiB` in bytes."""
    if value is None:
        return None
    found = re.fullmatch(r"([1-9]\d*)\s*(?:MiB)?", value.strip(), re.IGNORECASE)
    if found is None:
        raise click.BadParameter(f"{value!r} is no number of MiB, such as 1024 or 1024MiB.")
    return int(found.group(1)) << 20


@click.command("build-engine", cls=Verb, examples=EXAMPLES)
@options.bundle
@click.option(
    "--precision",
    type=click.Choice([p.value for p in Precision]),
    default=Precision.FP32.value,
    show_default=True,
    help="Which graphs of the bundle to build from; a graph's types are the engine's.",
)
@click.option("--tower", type=click.Choice(list(_TOWERS)), help="Which encoders.  [default: both; with --frame image]")
@click.option(
    "--frame",
    "frames",
    multiple=True,
    metavar="WxH[:COLOR]",
    help="An image engine that takes raw frames of a camera, such as 1920x1080:bgr; clipdeploy frames makes the graph "
    "for them. Repeatable: one engine each.",
)
@click.option(
    "--batch",
    "batches",
    multiple=True,
    metavar="MIN,OPT,MAX",
    help="Batch sizes it takes, and the one it is tuned for. Repeatable: one profile each.  [default: 1,1,32; of "
    "frames as many as fit into 256 MiB as float32]",
)
@click.option(
    "--backend",
    type=click.Choice(["auto", "tensorrt", "tensorrt-rtx"]),
    default="auto",
    show_default=True,
    help="Which product builds; auto takes the one that is installed.",
)
@click.option(
    "--calibration-data",
    "data",
    multiple=True,
    metavar="DATA",
    help="Quantise first, on these pictures, where the graph is not there yet. As quantize takes it. Repeatable.",
)
@click.option("--texts", type=options.PATH, metavar="FILE", help="Calibration texts for the text encoder, one a line.")
@click.option(
    "--compute-capability",
    "capabilities",
    multiple=True,
    metavar="X.Y",
    help="GPUs it must run on, such as 8.6. TensorRT for RTX only. Repeatable.  [default: this machine's GPU; without "
    "one all from Ampere on]",
)
@click.option(
    "--workspace",
    callback=_mebibytes,
    metavar="MIB",
    help="Scratch memory at most, such as 1024 or 1024MiB.  [default: what is free]",
)
@click.option(
    "--timing-cache", type=options.PATH, metavar="FILE", help="Timings of earlier builds: read if there, and written."
)
@click.option("--version-compatible", is_flag=True, help="Let later versions load it too. TensorRT only.")
@click.option("--hardware-compatible", is_flag=True, help="Let it run on any GPU from Ampere on. TensorRT only.")
@click.option("--strip-weights", is_flag=True, help="Leave the weights out; loading takes them from the graph.")
@click.option(
    "--optimization-level",
    type=click.IntRange(0, 5),
    metavar="N",
    help="How long to search for fast kernels, 0 to 5.  [default: the product's]",
)
@click.option("--detailed", is_flag=True, help="Keep what the inspector says of each layer in the engine.")
@click.option(
    "--allow",
    multiple=True,
    metavar="NAME",
    help="Build in spite of a pattern known to be built wrongly, by the name that check gives it; or, with fallback, "
    "take in an engine in which some products compute in a wider type. Repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and the line for trtexec; build nothing.")
@click.option("--overwrite", is_flag=True, help="Build again what is there.")
def build_engine(
    console: Console,
    bundle: Path,
    precision: str,
    tower: str | None,
    frames: tuple[str, ...],
    batches: tuple[str, ...],
    backend: str,
    data: tuple[str, ...],
    texts: Path | None,
    capabilities: tuple[str, ...],
    workspace: int | None,
    timing_cache: Path | None,
    version_compatible: bool,
    hardware_compatible: bool,
    strip_weights: bool,
    optimization_level: int | None,
    detailed: bool,
    allow: tuple[str, ...],
    dry_run: bool,
    overwrite: bool,
) -> None:
    """Add TensorRT engines to a bundle, for TensorRT or TensorRT for RTX.

    An engine is tied to the product, its full version, the GPU, the batch sizes, the options and the
    graph. All of that is its key, and its folder: engines/KEY. An engine that is there already is
    not built again.

    TensorRT builds on the device itself. TensorRT for RTX builds on any machine, without a GPU.

    What was built is looked at before the bundle takes it in: the types of its layers, its size, the
    attention blocks that became one layer. An engine that is not what was asked is an error; what
    --allow names stays in engine.json as a note.
    """
    from clipdeploy.building.job import BuildRequest, build_engines
    from clipdeploy.engine.builder.capabilities import parse_capabilities
    from clipdeploy.engine.builder.profiles import parse_batches
    from clipdeploy.engine.records import BuildOptions
    from clipdeploy.manifest import read_manifest
    from clipdeploy.pictures import read_lines

    profiles = parse_batches(batches) if batches else None
    more: dict[str, Any] = {"profiles": profiles} if profiles else {}
    request = BuildRequest(
        bundle=bundle,
        precision=precision,
        towers=_TOWERS[tower or ("image" if frames else "both")],
        frames=tuple(map(FrameSpec.parse, frames)),
        frame_profiles=profiles,
        backend=backend,
        options=BuildOptions(
            compute_capabilities=parse_capabilities(capabilities),
            workspace_bytes=workspace,
            timing_cache=timing_cache,
            version_compatible=version_compatible,
            hardware_compatible=hardware_compatible,
            strip_weights=strip_weights,
            optimization_level=optimization_level,
            detailed=detailed,
            **more,
        ),
        data=data,
        texts=() if texts is None else read_lines(texts, what="texts"),
        overwrite=overwrite,
        dry_run=dry_run,
        allow=allow,
    )
    outcome = build_engines(request, progress=console.progress)
    console.result(outcome_json(outcome), plan_text(outcome) if dry_run else engines_text(outcome))
    for warning in dict.fromkeys(w for engine in outcome.engines if engine.built for w in engine.record.warnings):
        console.warn(one_line(warning))
    if outcome.engines:
        name, run = one_line(str(bundle)), f"--backend {outcome.backend} --precision {precision}"
        baked = read_manifest(bundle).baked is not None  # which tests itself where it is loaded
        then = f"watch {name} /dev/video0 {run}" if baked else f"verify {name} {run}"
        console.note(
            f"\nNext:\n  clipdeploy inspect {name}/{outcome.engines[0].folder}\n  clipdeploy {then}   (on its GPU)"
        )


def outcome_json(outcome: BuildOutcome) -> dict[str, Any]:
    """The outcome as plain JSON types."""
    from clipdeploy.building.report import document

    return document(outcome)


def engines_text(outcome: BuildOutcome) -> str:
    """The engines as a table, and below it what was found of those that were built."""
    from clipdeploy.building.report import ENGINE_HEAD, engine_row

    built = sum(engine.built for engine in outcome.engines)
    there = len(outcome.engines) - built
    said = [f"{plural(built, 'engine')} built"] if built else []
    said += [f"{plural(there, 'engine')} there already, nothing done; --overwrite builds again"] if there else []
    blocks = [
        f"{outcome.backend} {outcome.version}: {'; '.join(said)}",
        table(ENGINE_HEAD, [engine_row(engine) for engine in outcome.engines], right=(3, 4, 5)),
    ]
    if outcome.quantised:
        blocks.insert(0, f"quantised first: {', '.join(outcome.quantised)}")
    for engine in outcome.engines:
        found = [finding for finding in engine.record.findings if engine.built or finding.state != "good"]
        if found:
            key = engine.record.key
            frames = "" if key.frame is None else f" for frames of {key.frame}"
            blocks.append(f"{key.tower.value} encoder{frames}, {key.precision.value}\n{findings_text(found)}")
    return "\n\n".join(blocks)


def plan_text(outcome: BuildOutcome) -> str:
    """What would be done, an encoder at a time."""
    from clipdeploy.building.report import plan_rows

    blocks = [f"{outcome.backend} {outcome.version}: nothing is built with --dry-run"]
    for plan in outcome.plans:
        frames = "" if plan.frame is None else f" for frames of {plan.frame}"
        blocks.append(f"{plan.tower.value} encoder{frames}, {plan.precision.value}\n{pairs(plan_rows(plan))}")
        as_it_is = ", of the graph as it is, not rewritten" if plan.rewrites else ""
        if plan.trtexec:
            blocks.append(f"  The same with TensorRT's own tool{as_it_is}:\n  {one_line(plan.trtexec)}")
    return "\n\n".join(blocks)
