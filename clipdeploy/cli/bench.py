"""`clipdeploy bench`: how fast a bundle is on this machine, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from clipdeploy.benchmark.records import ALL, BenchRequest, BenchResult
from clipdeploy.cli import options
from clipdeploy.cli.console import Console
from clipdeploy.cli.exit_codes import ExitCode
from clipdeploy.cli.verb import Verb
from clipdeploy.spec import Precision, Target, to_dict
from clipdeploy.text import one_line

EXAMPLES = (
    "clipdeploy bench b32",
    "clipdeploy bench b32 --backend openvino --precision int8 --batch 1,16 --threads 2",
    "clipdeploy bench b32 --images photos/ --output bench.json --html bench.html",
    "clipdeploy bench b32 --rounds 9 --seconds 1 --no-texts",
)

_DEFAULT = BenchRequest(Path())


def _batches(_context: click.Context, _option: click.Parameter, value: str) -> tuple[int, ...]:
    """`1,8,32` as numbers."""
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"{value!r} is not a list of whole numbers, such as 1,8,32.")
    return tuple(int(part) for part in parts)


@click.command(cls=Verb, examples=EXAMPLES)
@options.bundle
@click.option(
    "--backend",
    "backends",
    multiple=True,
    default=(ALL,),
    show_default=ALL,
    metavar="NAME|all",
    help="What computes, as for classify; all: every one that is installed. Repeatable.",
)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice([*(precision.value for precision in Precision), ALL]),
    multiple=True,
    default=(ALL,),
    show_default=ALL,
    help="Which graphs; all: every one that the bundle holds or a backend makes. Repeatable.",
)
@click.option(
    "--target",
    type=click.Choice(get_args(Target)),
    help="Whose graphs to run, of int8 and fp8.  [default: the engine's own]",
)
@click.option(
    "--batch",
    "batches",
    callback=_batches,
    default=",".join(map(str, _DEFAULT.batches)),
    show_default=True,
    metavar="N,N,...",
    help="Pictures, and texts, in one run.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Of one run, and for reading pictures.  [default: all]")
@click.option(
    "--images",
    multiple=True,
    metavar="PICTURES",
    help="Files, a folder or a pattern to measure with. Repeatable.  [default: drawn JPEGs of 1920x1080]",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=_DEFAULT.rounds,
    show_default=True,
    help="In which all take turns.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=_DEFAULT.seconds,
    show_default=True,
    help="Of measured calls in one turn, at one batch; one call at least.",
)
@click.option(
    "--cold-starts",
    type=click.IntRange(min=1),
    default=_DEFAULT.cold_starts,
    show_default=True,
    help="Fresh processes for the cold start of each.",
)
@click.option("--no-texts", is_flag=True, help="Leave the text encoder out.")
@click.option("-o", "--output", type=options.PATH, metavar="FILE", help="Write the result as JSON.")
@click.option("--html", type=options.PATH, metavar="FILE", help="Write a page with the plots, in one file.")
def bench(
    console: Console,
    bundle: Path,
    backends: tuple[str, ...],
    precisions: tuple[str, ...],
    target: Target | None,
    batches: tuple[int, ...],
    threads: int | None,
    images: tuple[str, ...],
    rounds: int,
    seconds: float,
    cold_starts: int,
    no_texts: bool,
    output: Path | None,
    html: Path | None,
) -> ExitCode:
    """Measure how fast a bundle is here, and what it costs.

    Every backend and precision has a process of its own, and all take turns: latency and throughput
    by batch, the stages of a picture from its file to its labels, the cold start, memory, files.

    A pair that cannot run here, or that fails on the way, is listed with the reason. One whose
    backend and precision are both named must be able to run.

    Let nothing else run meanwhile. How much the rounds differ stands beside each number.
    """
    from clipdeploy.benchmark.job import measure_bundle
    from clipdeploy.benchmark.report import text_table
    from clipdeploy.pictures import find_pictures

    result = measure_bundle(
        BenchRequest(
            bundle=bundle,
            backends=backends,
            precisions=precisions,
            batches=batches,
            threads=threads,
            target=target,
            pictures=find_pictures(images) if images else (),
            rounds=rounds,
            seconds=seconds,
            texts=not no_texts,
            cold_starts=cold_starts,
            output=output,
            html=html,
        ),
        progress=console.progress,
    )
    _tell_absent(console, result, backends, precisions)
    console.result(to_dict(result), text_table(result))
    for written in (output, html):
        if written is not None:
            console.note(f"written to {one_line(str(written))}")
    return ExitCode.OK


def _tell_absent(console: Console, result: BenchResult, backends: tuple[str, ...], precisions: tuple[str, ...]) -> None:
    """Warn of what was asked for by name and is not in the result."""
    for one in result.absent:
        if one.backend in backends or one.precision in precisions:
            console.warn(f"{one.backend} {one.precision} is left out: {one_line(one.why)}")
