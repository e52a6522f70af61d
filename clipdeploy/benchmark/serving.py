"""The child's end of `child.py`: a process that answers each line of JSON with one, until its input ends.

It imports the standard library only, so that processes of other environments can serve as well.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

Handler = Callable[..., Any]
"""Answers one kind of question: takes its `with` as keywords, returns what JSON can hold."""

_STATUS = "/proc/self/status"


def serve(handlers: Mapping[str, Handler]) -> None:
    """Answer until the input ends. Stdout is for answers alone: what a library prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = {"answer": handlers[asked["do"]](**asked["with"])}
        except Exception as error:  # noqa: BLE001 (the parent tells it)
            told = {"kind": type(error).__name__, "message": str(getattr(error, "message", error)) or repr(error)}
            answer = {"error": {**told, "fix": getattr(error, "fix", None)}}
        print(json.dumps(answer), file=answers, flush=True)


def timed(call: Callable[[], object], *, warm_up_s: float, seconds: float, fewest: int, most: int) -> list[float]:
    """Wall time of each call in ms: warmed up unmeasured, then measured for so long and so often.

    Args:
        call: what is measured.
        warm_up_s: seconds of unmeasured calls before; one at least.
        seconds: of measured calls.
        fewest: measured calls at least, however long they take.
        most: measured calls at most.
    """
    gc.collect()
    gc.disable()
    try:
        warm = time.perf_counter() + warm_up_s
        call()
        while time.perf_counter() < warm:
            call()
        taken: list[float] = []
        ends = time.perf_counter() + seconds
        while len(taken) < fewest or (time.perf_counter() < ends and len(taken) < most):
            started = time.perf_counter()
            call()
            taken.append((time.perf_counter() - started) * 1e3)
        return taken
    finally:
        gc.enable()


def memory() -> dict[str, int]:
    """Resident bytes of this process: `resident` now, `peak` at most so far; 0 where the system does not tell."""
    try:
        with open(_STATUS, encoding="ascii") as status:  # noqa: PTH123 (a stand-alone file, and no path to join)
            lines = dict(line.split(":", 1) for line in status)
        return {"resident": _bytes(lines.get("VmRSS")), "peak": _bytes(lines.get("VmHWM"))}
    except OSError:
        return {"resident": 0, "peak": _peak()}


def _bytes(line: str | None) -> int:
    return int(line.split()[0]) * 1024 if line else 0


def _peak() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
