"""For a container's health: whether process 1, or the one given, takes turns at all. Exit code 1 where it does not.

A stream that waits for a camera still wakes up several times a second; one that is stopped or locked up never does.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path


def turns(process: str) -> int:
    """How often its threads have given up the processor, since it began."""
    total = 0
    for status in Path("/proc", process, "task").glob("*/status"):
        try:
            lines = status.read_text().splitlines()
        except OSError:  # the thread has just ended
            continue
        total += sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)
    return total


if __name__ == "__main__":
    process = sys.argv[1] if len(sys.argv) > 1 else "1"
    before = turns(process)
    time.sleep(2)
    sys.exit(turns(process) <= before)
