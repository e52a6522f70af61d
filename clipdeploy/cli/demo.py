"""`clipdeploy demo`: the whole way, offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from clipdeploy.cli import options
from clipdeploy.cli.classify import percent
from clipdeploy.cli.console import Console
from clipdeploy.cli.export import outcome_json, outcome_text
from clipdeploy.cli.verb import Verb
from clipdeploy.spec import to_dict
from clipdeploy.text import one_line, plural, table

if TYPE_CHECKING:
    from clipdeploy.demo.outcome import DemoOutcome


@click.command(cls=Verb, examples=("clipdeploy demo", "clipdeploy demo --pictures 100 --seed 7 -o tour"))
@click.option(
    "-o", "--output", type=options.PATH, default="clipdeploy-demo", show_default=True, help="Folder for all of it."
)
@click.option("--model", metavar="NAME", help="Which of the included CLIPs. An unknown name lists them.")
@click.option("--pictures", type=click.IntRange(min=1), default=24, show_default=True, help="Pictures to draw.")
@click.option("--seed", default=0, show_default=True, help="Seed of the pictures.")
def demo(console: Console, output: Path, model: str | None, pictures: int, seed: int) -> None:
    """Walk the whole way offline, with a small CLIP that is included.

    It draws pictures, exports and verifies the CLIP, classifies and searches the pictures, and
    writes a page that shows it all. The pictures show pairs of colour and shape that the CLIP
    never saw in training. Needs the extras export and cpu, and no network.
    """
    from clipdeploy.demo.run import run_demo

    outcome = run_demo(output, model=model, pictures=pictures, seed=seed, progress=console.progress)
    console.result({**to_dict(outcome), "right": outcome.right, "export": outcome_json(outcome.export)}, _text(outcome))
    bundle, folder = outcome.export.bundle, output / "pictures"
    console.note(
        f"\nNext:\n  open {outcome.page}\n"
        f'  clipdeploy classify -r {bundle} {folder} --labels "red circle,blue star,green ring"\n'
        f"  clipdeploy inspect {bundle}"
    )


def _text(outcome: DemoOutcome) -> str:
    rows = [
        (str(answer.path), answer.truth, answer.label, percent(answer.probability), "" if answer.right else "wrong")
        for answer in outcome.answers
    ]
    right = f"{outcome.right} of {plural(len(outcome.answers), 'picture')} right, of {outcome.labels} labels"
    found = [(s.query, ", ".join("/".join(path.parts[-2:]) for path in s.paths)) for s in outcome.searches]
    return "\n\n".join(
        [
            outcome_text(outcome.export),
            table(("picture", "shows", "answer", "", ""), rows, right=(3,)),
            f"{right}; {outcome.classify_ms:.1f} ms a picture, from file to label",
            table(("search", "nearest pictures"), found),
            f"{one_line(str(outcome.page))} shows it all; made in {outcome.seconds:.0f} s",
        ]
    )
