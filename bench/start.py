"""How long a process takes from its start to its first answers, step by step, each time in a fresh process.

    python -m bench.start BUNDLE [--picture FILE] [--before FOLDER] [--rounds 5] [--threads 2]
        [--pair onnxruntime:int8 ...] [--add]

Each backend and precision starts in two states: `new`, on a machine that has seen nothing (an empty cache folder, so
that every file of the bundle is hashed and the self-test runs), and `known`, as ever after. The files are in the
system's memory, modules are compiled. All take turns, each round begins with another one. `--before` names a folder
that holds another version of the package: both are run. `--add` adds to what the result file holds, so that a machine
which is quiet for half a minute at a time can be measured, a pair or a round at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.common import OUT, environment, full_hd_jpeg, table, write_json

ROOT = Path(__file__).resolve().parents[1]
CHILD = Path(__file__).with_name("start_child.py")
PAIRS = (("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("openvino", "fp32"), ("openvino", "int8"))
NOW, BEFORE = "now", "before"
NEW, KNOWN = "new", "known"
STEPS = (
    "interpreter",
    "import clipdeploy",
    "import the runtime",
    "load",
    "first picture",
    "first answer",
    "second picture",
    "first text",
    "first classify",
)
"""`first answer` is all up to the first picture's embedding; the others are what each took by itself."""


@dataclass(frozen=True)
class _Start:
    """What is started: a version of the package, an engine, and what the machine knows."""

    version: str
    backend: str
    precision: str
    state: str


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.start", description=str(__doc__).splitlines()[0])
    parser.add_argument("bundle", type=Path, help="with int8 graphs for both targets")
    parser.add_argument("--picture", type=Path, help="to answer to; a 1920x1080 JPEG is drawn when not given")
    parser.add_argument("--before", type=Path, help="folder with the package clipdeploy of another version")
    parser.add_argument("--rounds", type=int, default=5, help="fresh processes of each (default: %(default)s)")
    parser.add_argument("--pair", action="append", help="backend:precision to start; all four when not given")
    parser.add_argument("--add", action="store_true", help="keep what the result file holds, and add to it")
    parser.add_argument("--threads", type=int, default=2, help="of one run (default: %(default)s)")
    parser.add_argument("--json", type=Path, default=OUT / "start.json", help="result file (default: %(default)s)")
    options = parser.parse_args()
    picture = options.picture or full_hd_jpeg(OUT / "start.jpg")
    versions = {NOW: ROOT} | ({BEFORE: options.before.absolute()} if options.before else {})
    pairs = [tuple(pair.rsplit(":", 1)) for pair in options.pair] if options.pair else PAIRS
    with tempfile.TemporaryDirectory() as scratch:
        place = _Workplace(options.bundle.absolute(), picture.absolute(), versions, options.threads, Path(scratch))
        record = measure(place, pairs, options.rounds)
    if options.add and options.json.exists():
        record = added(json.loads(options.json.read_text(encoding="utf-8")), record)
    write_json(options.json, record)
    print(report(record))


def measure(place: _Workplace, pairs: Sequence[tuple[str, ...]], rounds: int) -> dict[str, Any]:
    """The record: of each start and step what it took in each round, in ms."""
    starts = [_Start(version, *pair, state) for pair in pairs for state in (NEW, KNOWN) for version in place.versions]
    taken: dict[_Start, list[dict[str, float]]] = {start: [] for start in starts}
    for start in starts:
        if start.state == KNOWN:
            place.run(start)  # unmeasured: compiles modules, and lets the machine know the bundle
    for turn in range(rounds):
        first = turn * len(starts) // rounds
        for start in starts[first:] + starts[:first]:
            taken[start].append(place.run(start))
    return {
        "environment": environment(place.threads),
        "bundle": place.bundle.name,
        "starts": [
            {**asdict(start), "ms": {step: [round(one[step], 1) for one in found] for step in STEPS}}
            for start, found in taken.items()
        ],
    }


def added(earlier: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """Both records as one, which is dated by the later."""
    starts = {_name(start): start for start in earlier["starts"]}
    for start in record["starts"]:
        before = starts.get(_name(start))
        if before is not None:
            start = {**start, "ms": {step: before["ms"][step] + start["ms"][step] for step in STEPS}}
        starts[_name(start)] = start
    return {**record, "starts": list(starts.values())}


def _name(start: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(start[key] for key in ("version", "backend", "precision", "state"))


@dataclass(frozen=True)
class _Workplace:
    """Where the processes run: their cache folders lie in `scratch`."""

    bundle: Path
    picture: Path
    versions: Mapping[str, Path]
    threads: int
    scratch: Path

    def run(self, start: _Start) -> dict[str, float]:
        """What the steps of one fresh process took, in ms."""
        cache = self.scratch / f"{start.version}-{start.backend}-{start.precision}-{start.state}"
        if start.state == NEW:
            shutil.rmtree(cache, ignore_errors=True)
        own = {
            "PYTHONPATH": str(self.versions[start.version]),
            "PYTHONPYCACHEPREFIX": str(self.scratch / f"{start.version}-compiled"),
            "CLIPDEPLOY_CACHE": str(cache),
        }
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        given = (self.bundle, self.picture, start.backend, start.precision, self.threads)
        command = [sys.executable, str(CHILD), repr(time.monotonic()), *map(str, given)]
        done = subprocess.run(
            command, env=inherited | own, cwd=self.scratch, capture_output=True, text=True, check=True
        )
        steps: dict[str, float] = json.loads(done.stdout)
        return steps


def report(record: Mapping[str, Any]) -> str:
    """The medians in ms, a row a start; `before -> now` where both were run."""
    median = {
        _name(start): {step: f"{statistics.median(start['ms'][step]):.0f}" for step in STEPS}
        for start in record["starts"]
    }
    rows = []
    for (version, *start), now in median.items():
        before = median.get((BEFORE, *start))
        if version == NOW:
            told = [f"{before[step]} -> {now[step]}" if before else now[step] for step in STEPS[1:]]
            rows.append((f"{start[0]} {start[1]}, {start[2]}", *told))
    counts = {len(start["ms"][STEPS[0]]) for start in record["starts"]}
    many = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    return f"{table(('ms', *STEPS[1:]), rows)}\n\nmedians of {many} fresh processes"


if __name__ == "__main__":
    main()
