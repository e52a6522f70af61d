"""A click group whose verbs are imported only when they run."""

from __future__ import annotations

import difflib
import importlib
import keyword
from collections.abc import Mapping, Sequence
from typing import Any

import click

from clipdeploy.cli.exit_codes import MEANING

Sections = Mapping[str, Mapping[str, str]]
"""Title of a section -> name of a verb -> its one-line help."""


class LazyGroup(click.Group):
    """Verbs named in `sections`; the verb `x` is the command `x` of the module `{package}.x`.

    Where `x` is a word of Python's own, such as `import`, both are called `x_`; a dash becomes an underscore.
    """

    def __init__(
        self, *args: Any, package: str, sections: Sections, examples: Sequence[str] = (), **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.package = package
        self.sections = sections
        self.examples = tuple(examples)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order of the sections."""
        return [name for verbs in self.sections.values() for name in verbs]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a verb, None for a name that is none."""
        if cmd_name not in self.list_commands(ctx):
            return None
        name = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name.replace("-", "_")
        command = getattr(importlib.import_module(f"{self.package}.{name}"), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; an unknown one is an error that names the nearest."""
        name, known = args[0], self.list_commands(ctx)
        if name not in known and not name.startswith("-") and not ctx.resilient_parsing:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Verbs: {', '.join(known)}."
            ctx.fail(f"No such verb {name!r}. {hint}")
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs, and then the options, which are of less interest."""
        self.format_commands(ctx, formatter)
        click.Command.format_options(self, ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs by section, without importing one."""
        for title, verbs in self.sections.items():
            with formatter.section(title):
                formatter.write_dl(list(verbs.items()), col_max=14)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write examples and exit codes behind the options."""
        write_examples(formatter, self.examples)
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), text) for code, text in MEANING.items()], col_max=14)


def write_examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    """Write command lines as they are, unwrapped."""
    if not examples:
        return
    with formatter.section("Examples"):
        for example in examples:
            formatter.write(f"{'':{formatter.current_indent}}{example}\n")
