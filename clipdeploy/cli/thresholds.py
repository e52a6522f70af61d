"""`clipdeploy thresholds`: how well each label must fit, so that "none of these" is an answer."""

from __future__ import annotations

from pathlib import Path

import click

from clipdeploy.cli import options
from clipdeploy.cli.console import Console
from clipdeploy.cli.exit_codes import ExitCode
from clipdeploy.cli.verb import Verb
from clipdeploy.spec import to_dict
from clipdeploy.text import one_line, pad, plural, width

EXAMPLES = (
    'clipdeploy thresholds b32 --labels "a person,a parcel" --negatives empty-porch/ -o thresholds.json',
    "clipdeploy thresholds b32 --labels-file labels.txt --negatives night.mp4 --negatives day.mp4 -o thresholds.json",
)


@click.command(cls=Verb, examples=EXAMPLES)
@options.bundle
@options.labels
@click.option(
    "--negatives",
    multiple=True,
    required=True,
    metavar="FOLDER|VIDEO",
    help="Pictures or a video in which none of the labels is to be seen. Repeatable.",
)
@click.option(
    "--false-alarms",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.01,
    show_default=True,
    help="Share of such frames that a label may still pass on; 0.01 takes 99 of them, 0.001 takes 999.",
)
@click.option(
    "--fps",
    type=click.FloatRange(min=0, min_open=True),
    default=2.0,
    show_default=True,
    help="Frames a second to take of a video.",
)
@click.option("-o", "--output", type=options.PATH, required=True, metavar="FILE", help="JSON file to write.")
@click.option("--backend", default="auto", show_default=True, metavar="NAME", help="What computes; see classify.")
@click.option("--precision", default="fp32", show_default=True, metavar="NAME", help="Which graphs of the bundle.")
def thresholds(
    console: Console,
    bundle: Path,
    labels: tuple[str, ...] | None,
    template: tuple[str, ...],
    negatives: tuple[str, ...],
    false_alarms: float,
    fps: float,
    output: Path,
    backend: str,
    precision: str,
) -> ExitCode:
    """Measure how well each label must fit to be in view.

    A CLIP compares: of the labels that it is given, one always fits best, even where none is to be
    seen. Thresholds measured on pictures of the place without any of them make "none of these" an
    answer. Give pictures of all hours, weathers and lights, and of things that resemble what you
    look for: frames of one minute are much alike, and count as few.

    The file is for `clipdeploy watch --thresholds` and `Stream(thresholds=...)`, with the same
    bundle, precision and template.
    """
    from clipdeploy.thresholds import ThresholdsOutcome, ThresholdsRequest, find_thresholds

    request = ThresholdsRequest(
        bundle=bundle,
        negatives=negatives,
        output=output,
        labels=labels,
        templates=template,
        false_alarms=false_alarms,
        fps=fps,
        precision=precision,
        backend=backend,
    )

    def text(found: ThresholdsOutcome) -> str:
        column = max(width(one_line(one.label)) for one in found.thresholds)
        rows = [
            f"  {pad(one_line(one.label), column)}  above {one.enter:8.3f}, until below {one.leave:8.3f}"
            for one in found.thresholds
        ]
        share = f"{100 * found.false_alarms:g} %"
        head = f"{found.path}: logits that {share} of {plural(found.negatives, 'negative')} may pass"
        return "\n".join([head, *rows])

    result = find_thresholds(request, progress=console.progress)
    console.result(to_dict(result), text(result))
    return ExitCode.OK
