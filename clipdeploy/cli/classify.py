"""`clipdeploy classify`: which label fits a picture best."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from clipdeploy.classify import ClassifyResult, PictureAnswer
from clipdeploy.cli import options
from clipdeploy.cli.console import Console
from clipdeploy.cli.exit_codes import ExitCode
from clipdeploy.cli.verb import Verb
from clipdeploy.spec import Target, to_dict
from clipdeploy.text import bar, one_line, pad, plural, width

EXAMPLES = (
    'clipdeploy classify b32 photo.jpg --labels "a dog,a cat,a car"',
    "clipdeploy classify b32 'photos/**/*.jpg' --labels-file labels.txt --top 1",
    "clipdeploy classify b32 photos/ --label dog --label cat --template openai --json",
)

_FULL = 3  # pictures that get a block of bars each; more get a line each
_BAR = 24
_SHORT_BAR = 12


@click.command(cls=Verb, examples=EXAMPLES)
@options.bundle
@click.argument("pictures", nargs=-1, required=True)
@options.labels
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Labels to show a picture.")
@options.recursive
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Pictures per run.")
@options.engine
def classify(
    console: Console,
    bundle: Path,
    pictures: tuple[str, ...],
    labels: tuple[str, ...] | None,
    template: tuple[str, ...],
    top: int,
    recursive: bool,
    batch_size: int,
    precision: str,
    target: Target | None,
    backend: str,
) -> ExitCode:
    """Say what is in pictures.

    PICTURES are files, folders, or quoted patterns such as 'photos/*.jpg'. The labels are any
    words: each is put into the template and compared with the picture. Probabilities are over the
    labels you give.

    A picture that cannot be read is skipped and named, and the exit code is 3.
    """
    from clipdeploy.classify import ClassifyRequest, classify_pictures
    from clipdeploy.pictures import find_pictures

    if labels is None:
        raise click.UsageError(f"{options.NO_LABELS}.")
    request = ClassifyRequest(
        bundle=bundle,
        pictures=find_pictures(pictures, recursive=recursive),
        labels=labels,
        templates=template,
        top=top,
        precision=precision,
        target=target,
        backend=backend,
        batch_size=batch_size,
    )
    result = classify_pictures(request, progress=console.progress)
    _tell_skipped(console, result)
    console.note(f"{result.backend}, {result.precision}: {result.backend_reason}")
    console.result(to_dict(result), _text(console, result))
    return ExitCode.PARTIAL if result.skipped else ExitCode.OK


def _tell_skipped(console: Console, result: ClassifyResult) -> None:
    for item in result.skipped:
        console.warn(f"skipped: {one_line(item.reason)}")
    if result.skipped:
        console.warn(f"skipped {len(result.skipped)} of {plural(len(result.results) + len(result.skipped), 'picture')}")


def _text(console: Console, result: ClassifyResult) -> str:
    if len(result.results) <= _FULL:
        return "\n\n".join(_block(console, answer) for answer in result.results)
    return _lines(console, result.results)


def _block(console: Console, answer: PictureAnswer) -> str:
    """A picture's name over a line with a bar for each of its labels."""
    lines = [console.style(one_line(answer.path), bold=True)]
    for score in answer.scores:
        filled = console.style(bar(score.probability, _BAR, unicode=console.unicode), fg="cyan")
        lines.append(f"  {percent(score.probability)}  {filled}  {one_line(score.label)}")
    return "\n".join(lines)


def _lines(console: Console, answers: Sequence[PictureAnswer]) -> str:
    """A line for each picture: its name and its best label."""
    column = max(width(one_line(answer.path)) for answer in answers)
    return "\n".join(
        f"{pad(one_line(answer.path), column)}  {percent(answer.probability)}  "
        f"{console.style(bar(answer.probability, _SHORT_BAR, unicode=console.unicode), fg='cyan')}  "
        f"{one_line(answer.label)}"
        for answer in answers
    )


def percent(probability: float) -> str:
    """Such as ` 97.1 %`, seven characters."""
    return f"{100 * probability:5.1f} %"
