"""`clipdeploy bake`: frames and labels folded into the image graph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from clipdeploy.cli import options
from clipdeploy.cli.bank import templates_text
from clipdeploy.cli.console import Console
from clipdeploy.cli.verb import Verb
from clipdeploy.spec import FrameSpec, Precision, Target, to_dict
from clipdeploy.text import one_line, pairs, plural, size

if TYPE_CHECKING:
    from clipdeploy.baking import BakedGraph, BakeOutcome

EXAMPLES = (
    "clipdeploy bake b32 --labels labels.txt -o door",
    'clipdeploy bake b32 --labels "a cat,a dog" --frame 1920x1080:bgr --precision int8 -o door',
    "clipdeploy bake b32 --labels labels.txt --template openai --frame 1280x720:nv12 --precision fp16 -o jetson",
    "clipdeploy bake b32 --embeddings --frame 1920x1080 -o eyes",
)


@click.command(cls=Verb, examples=EXAMPLES)
@options.bundle
@options.labels
@click.option("--embeddings", is_flag=True, help="Bake no labels: the graph gives embeddings.")
@click.option(
    "--frame",
    metavar="WxH[:COLOR]",
    help="Frames that a camera gives, such as 1920x1080:bgr; COLOR is rgb, bgr or nv12.  [default: pixels]",
)
@click.option(
    "--precision",
    multiple=True,
    default=(Precision.FP32.value,),
    show_default=True,
    type=click.Choice([precision.value for precision in Precision]),
    help="Which graphs of the image encoder. Repeatable.",
)
@click.option(
    "--target",
    type=click.Choice(get_args(Target)),
    help="Whose graphs, of int8 and fp8. cpu: also lay frames out for processors alone.  [default: all]",
)
@click.option("-o", "--output", type=options.PATH, required=True, help="Folder of the baked bundle.")
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is already there.")
def bake(
    console: Console,
    bundle: Path,
    labels: tuple[str, ...] | None,
    template: tuple[str, ...],
    embeddings: bool,
    frame: str | None,
    precision: tuple[str, ...],
    target: Target | None,
    output: Path,
    overwrite: bool,
) -> None:
    """Fold labels, and a camera's frames, into the image graph.

    Frame in, probabilities out: one graph, or one engine that clipdeploy build-engine makes of it. The
    device needs no tokenizer and no text encoder, and in C++ nothing of clipdeploy: labels.txt holds the
    labels in the order of the outputs.

    The labels' embeddings come from the bundle's banks, else from its text encoder. What the graph
    answers is held against the bundle before it is written.
    """
    from clipdeploy.baking import BakeRequest, bake_bundle

    if embeddings and (labels is not None or template):
        raise click.UsageError("--embeddings goes without labels and templates.")
    if labels is None and not embeddings:
        raise click.UsageError(f"{options.NO_LABELS}; or --embeddings for none.")
    request = BakeRequest(
        bundle=bundle,
        output=output,
        labels=labels,
        templates=template,
        frame=None if frame is None else FrameSpec.parse(frame),
        precisions=precision,
        target=target,
        overwrite=overwrite,
    )
    outcome = bake_bundle(request, progress=console.progress)
    for note in outcome.notes:
        console.warn(one_line(note))
    console.result(to_dict(outcome), _text(outcome))


def _text(outcome: BakeOutcome) -> str:
    gives = plural(len(outcome.labels), "label") if outcome.labels else "embeddings"
    facts = [("takes", f"frames of {outcome.frame}" if outcome.frame else "pixels that are ready for the model")]
    facts += [("gives", f"{gives}, {templates_text(outcome.templates)}" if outcome.labels else gives)]
    facts += [("graphs", "\n".join(map(_graph, outcome.graphs)))]
    facts += [("golden samples", str(outcome.samples or "none"))]
    head = f"{one_line(str(outcome.output))}: {size(outcome.size_bytes)}, made in {outcome.seconds:.0f} s"
    return f"{head}\n{pairs(facts)}"


def _graph(graph: BakedGraph) -> str:
    held = "not compared" if graph.max_abs is None else f"cosines within {graph.max_abs:.1e} of the unbaked graph's"
    return f"{graph.name}, {size(graph.size_bytes)}, {held}"
