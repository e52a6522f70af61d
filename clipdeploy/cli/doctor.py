"""`clipdeploy doctor`: what this machine has and what to install on it."""

from __future__ import annotations

from pathlib import Path

import click

from clipdeploy.cli import options
from clipdeploy.cli.console import Console
from clipdeploy.cli.exit_codes import ExitCode
from clipdeploy.cli.verb import Verb
from clipdeploy.doctor import Diagnosis
from clipdeploy.spec import to_dict
from clipdeploy.text import one_line, pairs

_TITLES = {
    "machine": "Machine",
    "engines": "Engines",
    "backends": "Backends",
    "export": "For export",
    "bundle": "Bundle",
}


@click.command(cls=Verb, examples=("clipdeploy doctor", "clipdeploy doctor --bundle b32"))
@click.option("--bundle", type=options.PATH, help="Check this bundle too, every file against its sha256.")
def doctor(console: Console, bundle: Path | None) -> ExitCode:
    """Look at this machine and say what to install.

    It finds the inference engines, two wheels of onnxruntime that overwrite each other, the GPU,
    the Jetson and its JetPack. For each problem it gives the command that fixes it.
    It changes nothing. Exit code 1 when there is a problem.
    """
    from clipdeploy.doctor import diagnose

    console.progress("looking at this machine", 0, 0)
    diagnosis = diagnose(bundle=bundle)
    console.result({"healthy": diagnosis.healthy, **to_dict(diagnosis)}, _text(console, diagnosis))
    return ExitCode.OK if diagnosis.healthy else ExitCode.FAILED


def _text(console: Console, diagnosis: Diagnosis) -> str:
    blocks = []
    for section, title in _TITLES.items():
        rows = [(fact.name, fact.value) for fact in diagnosis.facts if fact.section == section]
        if rows:
            blocks.append(f"{console.style(title, bold=True)}\n{pairs(rows)}")
    if diagnosis.advice:
        lines = [f"  to {a.purpose}:\n" + "\n".join(f"    {c}" for c in a.commands) for a in diagnosis.advice]
        blocks.append("\n".join([console.style("To install", bold=True), *lines]))
    if diagnosis.problems:
        lines = [
            f"  {one_line(p.message)}\n    {console.style('fix:', fg='green')} {p.fix}" for p in diagnosis.problems
        ]
        blocks.append("\n".join([console.style("Problems", fg="red", bold=True), *lines]))
    else:
        blocks.append(console.style("No problem found.", fg="green"))
    return "\n\n".join(blocks)
