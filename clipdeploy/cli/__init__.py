"""The command line: one file a verb, which parses, calls the library and prints.

Nothing heavy is imported until a verb runs.
"""

from __future__ import annotations


def main() -> None:
    """Entry point of the `clipdeploy` command."""
    import signal
    import sys
    import warnings
    from types import FrameType

    from clipdeploy.cli.exit_codes import ExitCode
    from clipdeploy.cli.root import root

    def terminate(number: int, frame: FrameType | None) -> None:
        sys.exit(ExitCode.TERMINATED)

    # As an exception, so that half-written files beside their target are removed on the way out.
    signal.signal(signal.SIGTERM, terminate)
    # Pillow warns of a huge picture before the runtime refuses it with an error of its own.
    warnings.filterwarnings("ignore", category=Warning, module=r"PIL\.Image", message=".*decompression bomb.*")
    try:
        root(prog_name="clipdeploy")
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
