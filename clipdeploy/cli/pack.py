"""`clipdeploy pack`: what a device needs of a bundle, as a bundle of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from clipdeploy.cli import options
from clipdeploy.cli.console import Console
from clipdeploy.cli.verb import Verb
from clipdeploy.spec import FrameSpec, Precision, Target, Tower, to_dict
from clipdeploy.text import one_line, pairs, plural, size

if TYPE_CHECKING:
    from clipdeploy.pack import PackOutcome

EXAMPLES = (
    "clipdeploy pack b32 -o device --precision int8",
    "clipdeploy pack b32 -o camera --tower image --precision int8 --target cpu",
    "clipdeploy pack b32 -o jetson --tower image --precision fp16 --overwrite",
)

_NAMED = 4
_TOWERS = {"image": (Tower.IMAGE,), "text": (Tower.TEXT,), "both": tuple(Tower)}


@click.command(cls=Verb, examples=EXAMPLES)
@options.bundle
@click.option("-o", "--output", type=options.PATH, required=True, help="Folder of the new bundle.")
@click.option("--tower", type=click.Choice(list(_TOWERS)), help="Which encoders.  [default: those there are]")
@click.option(
    "--precision",
    multiple=True,
    type=click.Choice([precision.value for precision in Precision]),
    help="Which graphs; an encoder without one is taken in fp32. Repeatable.  [default: all]",
)
@click.option("--target", type=click.Choice(get_args(Target)), help="Whose graphs, of int8 and fp8.  [default: all]")
@click.option(
    "--frame",
    "frames",
    multiple=True,
    metavar="WxH[:COLOR]",
    help="Which frame graphs, such as 1920x1080:bgr. Repeatable.  [default: all]",
)
@click.option(
    "--engines/--no-engines", default=True, show_default=True, help="Take the engines built from these graphs."
)
@click.option("--no-golden", is_flag=True, help="Leave the golden samples behind; then nothing tests the device.")
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is already there.")
def pack(
    console: Console,
    bundle: Path,
    output: Path,
    tower: str | None,
    precision: tuple[str, ...],
    target: Target | None,
    frames: tuple[str, ...],
    engines: bool,
    no_golden: bool,
    overwrite: bool,
) -> None:
    """Copy what a device needs of a bundle into a new one.

    Graphs, frame graphs, engines, the tokenizer with the text encoder, banks and golden samples go along; pages and
    what nobody asked for stay behind. The new bundle is of the same embedding space.

    With --tower image there is no text encoder: the device knows the labels that clipdeploy bank
    put into the bundle, and no others.
    """
    from clipdeploy.pack import PackRequest, pack_bundle

    request = PackRequest(
        bundle=bundle,
        output=output,
        towers=_TOWERS[tower] if tower else (),
        precisions=precision,
        target=target,
        frames=tuple(map(FrameSpec.parse, frames)) if frames else None,
        engines=engines,
        golden=not no_golden,
        overwrite=overwrite,
    )
    outcome = pack_bundle(request, progress=console.progress)
    for note in outcome.notes:
        console.warn(one_line(note))
    console.result(to_dict(outcome), _text(outcome))


def _text(outcome: PackOutcome) -> str:
    facts = [(f"{tower} encoder", _sized(outcome.files, names)) for tower, names in outcome.graphs.items()]
    facts += [("frames", "\n".join(map(str, outcome.frames)))] if outcome.frames else []
    facts += [("engines", "\n".join(outcome.engines))] if outcome.engines else []
    facts += [("banked labels", str(outcome.labels))] if outcome.labels else []
    facts += [("left behind", _left(outcome.left))]
    share = 100 * outcome.size_bytes / max(outcome.size_before_bytes, 1)
    head = (
        f"{one_line(str(outcome.output))}: {plural(len(outcome.files), 'file')}, {size(outcome.size_bytes)} of "
        f"{size(outcome.size_before_bytes)} ({share:.0f} %), embedding space {outcome.embedding_space}"
    )
    return f"{head}\n{pairs(facts)}"


def _sized(files: dict[str, int], graphs: tuple[str, ...]) -> str:
    """Each graph with its size, the weights beside it included."""
    return "\n".join(f"{name}, {size(files[name] + files.get(f'{name}.data', 0))}" for name in graphs)


def _left(files: dict[str, int]) -> str:
    """The largest files, and how many more."""
    largest = sorted(files, key=lambda name: -files[name])[:_NAMED]
    named = [f"{name}, {size(files[name])}" for name in largest]
    rest = [f"and {plural(len(files) - _NAMED, 'more file')}"] if len(files) > _NAMED else []
    return "\n".join([*named, *rest]) or "nothing"
