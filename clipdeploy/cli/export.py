"""`clipdeploy export`: checkpoint to bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipdeploy.cli import options
from clipdeploy.cli.console import Console
from clipdeploy.cli.findings import findings_text, summary
from clipdeploy.cli.frames import frames_table
from clipdeploy.cli.verb import Verb
from clipdeploy.request import CheckpointRequest
from clipdeploy.spec import to_dict
from clipdeploy.text import one_line, size, table

if TYPE_CHECKING:
    from clipdeploy.export.tower import TowerResult
    from clipdeploy.pipeline import ExportOutcome

EXAMPLES = (
    "clipdeploy export ViT-B-32 --pretrained laion2b_s34b_b79k -o b32",
    "clipdeploy export ViT-B-32 --pretrained finetuned.safetensors -o mine",
    "clipdeploy export hf-hub:timm/ViT-B-16-SigLIP -o siglip",
    "clipdeploy export local-dir:checkpoints/siglip -o siglip",
    "clipdeploy export hf-hub:openai/clip-vit-base-patch32 --library transformers -o b32",
    "clipdeploy export ViT-B-32.pt -o openai",
    "clipdeploy export ViT-B-32 --pretrained epoch_9.pt --entry state_dict_ema -o mine",
    "clipdeploy export ViT-B-32 --random-weights -o benchmark",
    "clipdeploy export ViT-B-32 --pretrained laion2b_s34b_b79k --frame 1920x1080:bgr -o b32",
)


@click.command(cls=Verb, examples=EXAMPLES)
@click.argument("model")
@options.checkpoint
@click.option("-o", "--output", type=options.PATH, required=True, help="Folder of the new bundle.")
@click.option("--opset", default=19, show_default=True, help="ONNX operator set. 19 suits TensorRT from 10.3 on.")
@click.option("--no-simplify", is_flag=True, help="Keep the graphs as the exporter traces them.")
@click.option("--no-verify", is_flag=True, help="Do not compare the bundle with the checkpoint.")
@click.option("--measure", is_flag=True, help="Time the graphs before and after each simplifying step.")
@click.option("--golden", multiple=True, metavar="PICTURES", help="Pictures for the golden samples. Repeatable.")
@options.frames()
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is already there.")
def export(
    console: Console,
    model: str,
    stated: dict[str, Any],
    output: Path,
    opset: int,
    no_simplify: bool,
    no_verify: bool,
    measure: bool,
    golden: tuple[str, ...],
    frames: tuple[str, ...],
    overwrite: bool,
) -> None:
    """Make a bundle from a checkpoint.

    MODEL is an open_clip architecture (with --pretrained), a folder or hf-hub:ORG/REPO[@REVISION] of
    open_clip or transformers, or a weights file of OpenAI's own. Needs the extra export.

    A weights file states neither its preprocessing nor its activation. The preprocessing is the one
    that all published weights of the architecture share; where they differ, name it with
    --preprocessing. The activation is the architecture's; weights trained with QuickGELU belong to
    an architecture of their own, such as ViT-B-32-quickgelu.

    Image and text tower become one ONNX graph each. They are simplified, every step checked
    numerically, and compared with the checkpoint. A bundle that drifts is not written. With --frame it
    takes a camera's frames as they come too: see clipdeploy frames.
    """
    from clipdeploy.pictures import find_pictures
    from clipdeploy.pipeline import ExportRequest, export_bundle

    request = ExportRequest(
        checkpoint=CheckpointRequest(model, **stated),
        output=output,
        opset=opset,
        simplify=not no_simplify,
        measure=measure,
        verify=not no_verify,
        overwrite=overwrite,
        golden_images=find_pictures(golden) if golden else (),
        frames=frames,
    )
    outcome = export_bundle(request, progress=console.progress)
    console.result(outcome_json(outcome), outcome_text(outcome))
    name = one_line(str(outcome.bundle))
    console.note(
        f"\nNext:\n  clipdeploy verify {name}\n"
        f'  clipdeploy classify {name} PICTURES --labels "a dog,a cat"\n'
        f"  or copy {name} to a device: it runs there without PyTorch"
    )


def outcome_json(outcome: ExportOutcome) -> dict[str, Any]:
    """The outcome as plain JSON types."""
    report = outcome.report
    parity = None if report is None else {"passed": report.passed, "first_drift": report.first_drift}
    return {
        "bundle": outcome.bundle,
        "size_bytes": outcome.size_bytes,
        "seconds": outcome.seconds,
        "towers": [_tower_json(outcome.bundle, tower) for tower in outcome.towers],
        "parity": parity,
        "preflight": to_dict(outcome.findings),
        "frames": to_dict(outcome.frames),
    }


def _tower_json(bundle: Path, tower: TowerResult) -> dict[str, Any]:
    """A tower's record, with its files where they are now: they were written beside the bundle and moved."""
    weights = None if tower.weights is None else bundle / tower.weights.name
    return {**to_dict(tower), "graph": bundle / tower.graph.name, "weights": weights}


def outcome_text(outcome: ExportOutcome) -> str:
    """The outcome for people: what preflight notes, what simplifying did, and the parity report."""
    notes = [finding for finding in outcome.findings if finding.state != "good"]
    blocks = [f"preflight, {summary(outcome.findings)}\n{findings_text(notes)}".rstrip()] if outcome.findings else []
    blocks += [simplify_table(tower) for tower in outcome.towers]
    if outcome.report is None:
        blocks.append("not verified")
    else:
        from clipdeploy.verify.report import text_table

        blocks.append(text_table(outcome.report).rstrip())
    if outcome.frames:
        blocks.append(frames_table(outcome.frames))
    blocks.append(f"{one_line(str(outcome.bundle))}: {size(outcome.size_bytes)}, made in {outcome.seconds:.0f} s")
    return "\n\n".join(blocks)


def simplify_table(result: TowerResult) -> str:
    """What each step did to a tower's graph; `difference` is to the step before, of the first to the checkpoint."""
    timed = any(step.latency_ms is not None for step in result.steps)
    header = ["step", "nodes", "size", "difference"] + (["time"] if timed else [])
    rows = []
    for step in result.steps:
        row = [step.name, str(step.nodes), size(step.size_bytes), f"{step.max_abs:.1e}"]
        if timed:
            row.append("" if step.latency_ms is None else f"{step.latency_ms:.2f} ms")
        rows.append(row)
    head = f"{result.tower.value} tower, opset {result.opset}, {result.seconds:.0f} s"
    return f"{head}\n{table(header, rows, right=range(1, len(header)))}"
