"""`clipdeploy bank`: labels embedded once and kept in the bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from clipdeploy.cli import options
from clipdeploy.cli.console import Console
from clipdeploy.cli.verb import Verb
from clipdeploy.spec import Target, to_dict
from clipdeploy.text import one_line, plural, size, table

if TYPE_CHECKING:
    from clipdeploy.bank import BankOutcome, BankRemoved
    from clipdeploy.runtime.stored_banks import BankInfo

EXAMPLES = (
    'clipdeploy bank b32 --labels "a dog,a cat,a car"',
    "clipdeploy bank b32 --labels-file labels.txt --template openai",
    'clipdeploy bank b32 --label "a red circle on grass" --template {}',
    "clipdeploy bank b32 --list",
    'clipdeploy bank b32 --remove --label "a car"',
)


@click.command(cls=Verb, examples=EXAMPLES)
@options.bundle
@options.labels
@click.option("--list", "show", is_flag=True, help="Show the banks of the bundle.")
@click.option("--remove", is_flag=True, help="Take these labels out again.")
@click.option("--all", "everything", is_flag=True, help="With --remove: all labels of these templates.")
@options.engine
def bank(
    console: Console,
    bundle: Path,
    labels: tuple[str, ...] | None,
    template: tuple[str, ...],
    show: bool,
    remove: bool,
    everything: bool,
    precision: str,
    target: Target | None,
    backend: str,
) -> None:
    """Embed labels once and keep them in the bundle.

    Whoever classifies with these labels and templates then takes their embeddings from the bundle,
    and needs no text encoder for them: see clipdeploy pack. Labels that are there already are not
    embedded again.

    A bank holds the labels of one list of templates. The template {} keeps texts as they are.
    """
    from clipdeploy.bank import BankRequest, bank_labels, list_banks, remove_labels

    _check_options(given=labels is not None, show=show, remove=remove, everything=everything, template=template)
    if show:
        banks = list_banks(bundle)
        console.result({"bundle": bundle, "banks": to_dict(banks)}, banks_text(banks))
        return
    wanted = labels or ()
    if remove:
        removed = remove_labels(bundle, None if everything else wanted, template, progress=console.progress)
        console.result(to_dict(removed), _removed_text(removed))
        return
    request = BankRequest(bundle, wanted, template, precision=precision, target=target, backend=backend)
    console.resume_hint = "run the same command again to go on from here"
    outcome = bank_labels(request, progress=console.progress)
    console.result(to_dict(outcome), _text(outcome))


def _check_options(*, given: bool, show: bool, remove: bool, everything: bool, template: tuple[str, ...]) -> None:
    if show and (given or remove or everything or template):
        raise click.UsageError("--list goes alone.")
    if everything and (given or not remove):
        raise click.UsageError("--all goes with --remove, in place of labels.")
    if not (given or show or everything):
        more = ", or --all" if remove else ""
        raise click.UsageError(f"{options.NO_LABELS}{more}.")


def banks_text(banks: tuple[BankInfo, ...]) -> str:
    """A line for each bank."""
    if not banks:
        return "no banks"
    rows = [
        (one.id, templates_text(one.templates), str(len(one.labels)), ", ".join(one.made_by), size(one.size_bytes))
        for one in banks
    ]
    return table(("bank", "templates", "labels", "made by", "size"), rows, right=(2, 4))


def templates_text(templates: tuple[str, ...]) -> str:
    """Such as `a photo of a {}.` or `80: a bad photo of a {}., ...`."""
    from clipdeploy.runtime.labels import TEMPLATES

    if len(templates) == 1:
        return templates[0]
    name = next((name for name, known in TEMPLATES.items() if known == templates), None)
    return f"{len(templates)} of {name}" if name else f"{len(templates)}: {templates[0]}, ..."


def _text(outcome: BankOutcome) -> str:
    head = (
        f"{one_line(str(outcome.bundle))}: bank {outcome.bank}, {one_line(templates_text(outcome.templates))}, "
        f"holds {plural(outcome.count, 'label')}"
    )
    there = f"{plural(len(outcome.present), 'label')} there already"
    if not outcome.added:
        return f"{head}\n{there}, nothing to do"
    made = f"{plural(len(outcome.added), 'label')} added, {outcome.precision} on {outcome.backend}"
    return f"{head}\n" + ", ".join([made, *([there] if outcome.present else []), f"{outcome.seconds:.1f} s"])


def _removed_text(removed: BankRemoved) -> str:
    left = f"holds {plural(removed.count, 'label')}" if removed.count else "is gone"
    taken = plural(len(removed.removed), "label")
    return f"{one_line(str(removed.bundle))}: {taken} taken out; bank {removed.bank} {left}"
