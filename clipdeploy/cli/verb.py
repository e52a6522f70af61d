"""What all verbs share: --json, --quiet and --debug, examples in the help, and how an error ends."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from clipdeploy.cli.console import Console
from clipdeploy.cli.exit_codes import ExitCode
from clipdeploy.cli.lazy import write_examples
from clipdeploy.errors import ClipdeployError


class Verb(click.Command):
    """A command whose function takes a `Console` first and returns an `ExitCode`, or None for success."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)
        self.params += [
            click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON document instead of text."),
            click.Option(["--quiet", "-q"], is_flag=True, help="Print the result only, no progress and no notes."),
            click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."),
        ]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples behind the options."""
        write_examples(formatter, self.examples)

    def invoke(self, ctx: click.Context) -> NoReturn:
        """Run the verb and exit; of an error, say what is wrong and how to fix it."""
        debug = bool(ctx.params.pop("debug")) or bool(ctx.find_root().params.get("debug"))
        console = Console(as_json=ctx.params.pop("as_json"), quiet=ctx.params.pop("quiet"))
        ctx.params["console"] = console
        code = ExitCode.OK
        # A library that prints must not spoil the result on stdout.
        with console, contextlib.redirect_stdout(console.err):
            try:
                code = super().invoke(ctx) or ExitCode.OK
            except KeyboardInterrupt:
                console.interrupted()
                code = ExitCode.INTERRUPTED
            except (click.ClickException, click.exceptions.Exit, click.Abort):
                raise
            except Exception as error:  # the outermost place: a user sees no traceback
                if isinstance(error, OSError) and error.errno == errno.EPIPE:
                    raise
                if debug:
                    console.traceback(error)
                code = console.failure(*_explain(error), kind=type(error).__name__)
        ctx.exit(code)


def _explain(error: Exception) -> tuple[str, str | None]:
    """What to tell the user of an error: what is wrong, and the fix."""
    if isinstance(error, ClipdeployError):
        return error.message, error.fix
    if isinstance(error, MemoryError):
        return "out of memory", "use a smaller --batch-size, or a machine with more memory"
    if isinstance(error, OSError):
        return str(error), None
    return (
        f"unexpected {type(error).__name__}: {error}",
        "this is a defect of clipdeploy; run again with --debug and report what it prints",
    )
