"""`clipdeploy check`: what a TensorRT takes of a bundle, before anything is built."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipdeploy.cli import options
from clipdeploy.cli.console import Console
from clipdeploy.cli.exit_codes import ExitCode
from clipdeploy.cli.findings import findings_text
from clipdeploy.cli.verb import Verb
from clipdeploy.findings import Finding
from clipdeploy.spec import Precision, Tower
from clipdeploy.text import pairs, table

if TYPE_CHECKING:
    from clipdeploy.engine.targets.check import CheckOutcome, GraphCheck

EXAMPLES = (
    'clipdeploy check b32 --target "tensorrt 10.3, sm_87"',
    'clipdeploy check b32 --target "agx orin" --precision int8',
    'clipdeploy check b32 --target "tensorrt-rtx 1.7, rtx 4090" --json',
)

_TOWERS = {"image": (Tower.IMAGE,), "text": (Tower.TEXT,), "both": tuple(Tower)}
_TOLD = {
    "accepted": "accepted",
    "rewritten": "accepted after rewriting",
    "refused": "refused",
    "absent": "not in the bundle",
}


@click.command(cls=Verb, examples=EXAMPLES)
@options.bundle
@click.option(
    "--target",
    required=True,
    metavar="TARGET",
    help='What to build for: a TensorRT and a GPU, such as "tensorrt 10.3, sm_87", or a name, such as "jetpack 6", '
    '"thor" or "rtx 4090".',
)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice([precision.value for precision in Precision]),
    multiple=True,
    help="Only graphs of this precision; they must be accepted. Repeatable.  [default: all]",
)
@click.option("--tower", type=click.Choice(list(_TOWERS)), default="both", show_default=True, help="Which encoders.")
def check(console: Console, bundle: Path, target: str, precisions: tuple[str, ...], tower: str) -> ExitCode:
    """Say what a TensorRT takes of a bundle, without a GPU.

    Each graph is held against what is documented of the target: opset, operators, types, FP8, DLA,
    and against patterns that some versions compile wrongly. Where there is a safe form, the graph
    counts as accepted after rewriting, and build-engine rewrites it so. What such a pattern is called
    here is what build-engine takes with --allow, to build in spite of it.

    What cannot be known without the device is not claimed: compare there with verify. Exit code 1
    when a precision that was asked for is refused, or an encoder has no graph that is accepted.
    """
    from clipdeploy.engine.targets.check import check_bundle
    from clipdeploy.engine.targets.target import parse_target

    outcome = check_bundle(
        bundle,
        parse_target(target),
        precisions=tuple(Precision(precision) for precision in precisions),
        towers=_TOWERS[tower],
        progress=console.progress,
    )
    console.result(outcome_json(outcome), outcome_text(outcome))
    return ExitCode.OK if outcome.passed else ExitCode.FAILED


def outcome_json(outcome: CheckOutcome) -> dict[str, Any]:
    """The outcome as plain JSON types."""
    from clipdeploy.spec import to_dict

    answer: dict[str, Any] = to_dict(outcome)
    return {"passed": outcome.passed, **answer}


def outcome_text(outcome: CheckOutcome) -> str:
    """The device, a table of the graphs, and what there is to say of each."""
    there = [graph for graph in outcome.graphs if graph.verdict != "absent"]
    rows = [(graph.name, graph.precision.value, f"{graph.opset or ''}", _verdict(graph)) for graph in there]
    blocks = [
        f"{outcome.bundle} on {outcome.target}",
        findings_text(outcome.device),
        *(("", table(("graph", "precision", "opset", "verdict"), rows, right=(2,))) if rows else ()),
    ]
    for names, findings in _told(there).items():
        every = len(names) == len(there) > 1
        blocks += ["", "all graphs" if every else ", ".join(names), findings_text(findings)]
    absent = [(graph.name, _absence(graph)) for graph in outcome.graphs if graph.verdict == "absent"]
    return "\n".join([*blocks, "", "not in the bundle", pairs(absent)] if absent else blocks)


def _told(graphs: Sequence[GraphCheck]) -> dict[tuple[str, ...], list[Finding]]:
    """What is to be said, once for all graphs that it is said of: their names -> the findings."""
    of: dict[Finding, tuple[str, ...]] = {}
    for graph in graphs:
        for finding in graph.findings:
            if finding.state != "good":
                of[finding] = (*of.get(finding, ()), graph.name)
    together: dict[tuple[str, ...], list[Finding]] = {}
    for finding, names in of.items():
        together.setdefault(names, []).append(finding)
    return together


def _verdict(graph: GraphCheck) -> str:
    reasons = [finding.check for finding in graph.findings if finding.state == "bad"]
    return _TOLD[graph.verdict] + (f": {', '.join(dict.fromkeys(reasons))}" if reasons else "")


def _absence(graph: GraphCheck) -> str:
    (finding,) = graph.findings
    return finding.message if finding.state == "bad" else finding.fix or finding.message
