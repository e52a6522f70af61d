"""Import and first answer: a fresh process from its start to the embedding of one file."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.peers.turns import REST_S, Row
from clipdeploy.errors import BackendError


@dataclass
class Starts:
    """Of one mode of one peer.

    Attributes:
        seconds: from the start of the process to its first embedding, of each process.
        resident, peak: bytes of the process after that, of the last one.
    """

    seconds: list[float] = field(default_factory=list)
    resident: int = 0
    peak: int = 0


def starts_of(rows: Sequence[Row], picture: str, count: int, say: Callable[[str], None]) -> dict[str, Starts]:
    """`count` fresh processes of each row, by turns; those that fail tell so in `Row.failed`.

    The processes that are measured for work must have been ended: nobody else runs meanwhile. Files of packages and
    checkpoints are in the system's cache by then.
    """
    starts = {row.name: Starts() for row in rows}
    for turn in range(count):
        say(f"first answers: {turn + 1} of {count}")
        for row in rows:
            if row.failed:
                continue
            time.sleep(REST_S)
            _start(row, picture, starts[row.name])
    return {name: one for name, one in starts.items() if one.seconds}


def _start(row: Row, picture: str, into: Starts) -> None:
    row.process.close()
    try:
        child = row.process.child()
        memory = child.ask("first", settings=row.mode.settings, path=picture)
        into.seconds.append(time.perf_counter() - child.started)
        into.resident, into.peak = memory["resident"], memory["peak"]
    except BackendError as error:
        row.failed = " ".join(error.message.split())[-400:]
    finally:
        row.process.close()
