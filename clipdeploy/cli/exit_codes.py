"""The exit codes of every verb."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process returns to the shell."""

    OK = 0
    FAILED = 1
    USAGE = 2
    PARTIAL = 3
    INTERRUPTED = 130
    TERMINATED = 143


MEANING: dict[ExitCode, str] = {
    ExitCode.OK: "All done.",
    ExitCode.FAILED: "An error, a parity gate that fails, or a problem that doctor finds.",
    ExitCode.USAGE: "The command line makes no sense.",
    ExitCode.PARTIAL: "Done, but some pictures could not be read and were skipped.",
    ExitCode.INTERRUPTED: "Interrupted with Ctrl-C.",
    ExitCode.TERMINATED: "Ended by a TERM signal.",
}
