"""Writes docs/cli.md from the help of the verbs: `python -m clipdeploy.cli.docs [FILE]`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from clipdeploy.bundle import write_text
from clipdeploy.cli.exit_codes import MEANING
from clipdeploy.cli.root import CONTEXT, EXAMPLES, SECTIONS, root
from clipdeploy.cli.verb import Verb

TARGET = Path(__file__).parents[2] / "docs" / "cli.md"
_SHARED = {"--json", "--quiet", "--debug", "--help"}


def render() -> str:
    """The page, Markdown."""
    context = click.Context(root, info_name="clipdeploy", **CONTEXT)  # type: ignore[arg-type]
    blocks = [
        "# The command line",
        "<!-- Written by `python -m clipdeploy.cli.docs`; change the help of the verbs instead. -->",
        _paragraphs(root),
        _code(EXAMPLES),
        "| verb | |\n|---|---|\n"
        + "\n".join(
            f"| [`{name}`](#{name}) | {help_} |" for verbs in SECTIONS.values() for name, help_ in verbs.items()
        ),
        "Every verb takes `--json` (one JSON document on stdout; everything else goes to stderr), `--quiet` (no "
        "progress, no notes), `--debug` (the traceback of an error) and `--help`. `NO_COLOR` is honoured. With "
        '`--json`, an error is a document too: `{"error": {"kind": ..., "message": ..., "fix": ...}}`.',
        "## Exit codes",
        "| code | meaning |\n|---|---|\n" + "\n".join(f"| {int(code)} | {text} |" for code, text in MEANING.items()),
    ]
    for title, verbs in SECTIONS.items():
        blocks.append(f"## {title}")
        for name in verbs:
            command = root.get_command(context, name)
            assert isinstance(command, Verb)
            blocks += _verb(command, click.Context(command, info_name=name, parent=context))
    return "\n\n".join(blocks) + "\n"


def _verb(command: Verb, context: click.Context) -> list[str]:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    rows = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Option) and record is not None and not _SHARED & set(parameter.opts):
            names, text = (cell.replace("|", "\\|") for cell in record)
            rows.append(f"| `{names}` | {text} |")
    options = ["| option | |\n|---|---|\n" + "\n".join(rows)] if rows else []
    return [f"### {command.name}", _code([usage]), _paragraphs(command), *options, _code(command.examples)]


def _paragraphs(command: click.Command) -> str:
    lines = (command.help or "").strip().splitlines()
    return "\n".join(line.strip() for line in lines)


def _code(lines: tuple[str, ...] | list[str]) -> str:
    return "\n".join(["```sh", *lines, "```"])


if __name__ == "__main__":
    write_text(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET, render())
