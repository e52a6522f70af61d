"""`clipdeploy evaluate`: how good a bundle's answers are on labelled pictures, in every precision that runs here."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from clipdeploy.cli import options
from clipdeploy.cli.console import Console
from clipdeploy.cli.exit_codes import ExitCode
from clipdeploy.cli.verb import Verb
from clipdeploy.request import CheckpointRequest
from clipdeploy.spec import Precision, Target, to_dict
from clipdeploy.text import one_line, plural

if TYPE_CHECKING:
    from clipdeploy.evaluate.records import EvaluateResult

EXAMPLES = (
    "clipdeploy evaluate b32 photos/",
    "clipdeploy evaluate b32 photos/ --template openai --html evaluate.html",
    "clipdeploy evaluate b32 captions.csv --precision fp32 --precision int8 --output results/",
    "clipdeploy evaluate b32 photos/ --precision int8 --min acc1=0.6 --max-drop 0.01",
)

_SHOWN = 5
_SHARE = click.FloatRange(0.0, 1.0)


def _limits(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, float], ...]:
    """`METRIC=SHARE` as (metric, share)."""
    found = []
    for value in values:
        metric, sign, share = value.partition("=")
        try:
            found.append((metric.strip(), float(share)))
        except ValueError:
            sign = ""
        if not sign:
            raise click.BadParameter(f"{value!r} is not METRIC=SHARE, such as acc1=0.6.")
    return tuple(found)


def _what(function: Any) -> Any:
    """Which data, and how it is read."""
    choices = (
        click.option(
            "--classnames",
            type=options.PATH,
            metavar="FILE",
            help="Names of the classes, one a line in the order of the folders or labels; or JSON, folder to name.",
        ),
        click.option(
            "--template",
            "templates",
            multiple=True,
            metavar="TEXT",
            help="Sentence with {} for the class; or openai: its 80 sentences. Repeatable: the mean is taken.  "
            "[default: the data's own, else a photo of a {}.]",
        ),
        click.option(
            "--groups", type=options.PATH, metavar="FILE", help="CSV of picture,group: figures of each group."
        ),
        click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Pictures at most, spread evenly."),
    )
    return functools.reduce(lambda inner, choice: choice(inner), reversed(choices), function)


def _runs(function: Any) -> Any:
    """What computes."""
    precisions = [*(precision.value for precision in Precision), "all"]
    choices = (
        click.option(
            "--backend",
            "backends",
            multiple=True,
            default=("all",),
            show_default="all",
            metavar="NAME|all",
            help="What computes, by the names of clipdeploy classify. Repeatable.",
        ),
        click.option(
            "--precision",
            "precisions",
            multiple=True,
            type=click.Choice(precisions),
            default=("all",),
            show_default="all",
            help="Which graphs of the bundle. Repeatable.",
        ),
        click.option(
            "--target",
            type=click.Choice(get_args(Target)),
            help="Whose graphs to run, of int8 and fp8.  [default: the engine's own]",
        ),
        click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Inputs per run."),
        click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Of one run.  [default: all cores]"),
    )
    return functools.reduce(lambda inner, choice: choice(inner), reversed(choices), function)


@click.command(cls=Verb, examples=EXAMPLES)
@options.bundle
@click.argument("data", type=options.PATH)
@_what
@_runs
@click.option("--checkpoint", metavar="MODEL", help="Compare with this checkpoint in PyTorch. Needs the extra export.")
@options.checkpoint
@click.option(
    "-o",
    "--output",
    type=options.PATH,
    metavar="FILE|FOLDER",
    help="Write what CLIP_benchmark writes: a .json file of all pairs, or a folder with a file for each.",
)
@click.option("--html", type=options.PATH, metavar="FILE", help="Write the report as a page with the pictures.")
@click.option(
    "--min",
    "at_least",
    multiple=True,
    callback=_limits,
    metavar="METRIC=SHARE",
    help="Exit code 1 when a pair has less, such as acc1=0.6. Repeatable.",
)
@click.option(
    "--max-drop",
    type=_SHARE,
    metavar="X",
    help="Exit code 1 when top-1 lies further below the reference, such as 0.01.",
)
def evaluate(
    console: Console,
    bundle: Path,
    data: Path,
    checkpoint: str | None,
    stated: dict[str, Any],
    html: Path | None,
    output: Path | None,
    **asked: Any,
) -> ExitCode:
    """Measure how good a bundle's answers are.

    DATA is a folder with a folder a class, a folder of webdataset shards, or a file of pictures and
    captions (CSV, TSV, JSON, JSONL, Flickr, COCO). Classes give zero-shot top-1, top-5 and
    mean-per-class recall; captions give recall at 1, 5 and 10 in both directions.

    Every backend and precision that runs here takes its turn, on the same pictures. Each is held
    against PyTorch with --checkpoint, else against the bundle in fp32: how often they agree, and
    which pictures got worse. --groups tells whether a precision widens gaps between groups.

    A picture that cannot be read is skipped and named, and the exit code is 3.
    """
    from clipdeploy.evaluate.job import evaluate_bundle
    from clipdeploy.evaluate.records import EvaluateRequest
    from clipdeploy.evaluate.report import text_report

    if checkpoint is None and any(stated.values()):
        raise click.UsageError("the options that say what a checkpoint is go with --checkpoint MODEL.")
    request = EvaluateRequest(
        bundle=bundle,
        data=data,
        checkpoint=None if checkpoint is None else CheckpointRequest(checkpoint, **stated),
        html=html,
        output=output,
        **asked,
    )
    result = evaluate_bundle(request, progress=console.progress)
    console.result(to_dict(result), text_report(result))
    _tell(console, result)
    for written in (html, output):
        if written is not None:
            console.note(f"written: {one_line(str(written))}")
    if result.misses:
        return ExitCode.FAILED
    return ExitCode.PARTIAL if result.skipped else ExitCode.OK


def _tell(console: Console, result: EvaluateResult) -> None:
    for name, why in list(result.skipped.items())[:_SHOWN]:
        console.warn(f"skipped: {one_line(name)}: {one_line(why)}")
    if result.skipped:
        console.warn(f"skipped {len(result.skipped)} of {plural(result.count + len(result.skipped), 'picture')}")
    for miss in result.misses:
        console.warn(f"missed: {miss}")
