"""The runtime for a long time: 24 threads on one object, 10,000 calls, and opening and closing, in each backend.

    python -m bench.soak [BUNDLE] [--seconds 60] [--calls 10000] [--threads 24] [--only openvino:int8 ...] [--json FILE]

Without BUNDLE it takes the shipped `clipdeploy-demo-vit`, exported and quantised. Each backend and precision has a
process of its own, so that the memory is its own:

1. One thread makes every kind of call once: pictures, pixels in batches of 1 to 33, texts, labels.
2. 24 threads make the same calls for a minute on the same object; every answer is compared bit for bit.
3. They make 1,000 calls to warm up, then 10,000. Growth is the median resident memory of the last 1,000 calls over that
   of the first 1,000 after the warm-up.
4. The bundle is opened, asked and closed 40 times. What is held after each jumps up and down with what the allocator
   gives back, so growth is the least of the last 15 over the least of the 15 before, after 10 to warm up.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

import clipdeploy
from bench.common import OUT, environment, parser_of, table, write_json
from bench.typed_bundle import INT8_CPU, INT8_QDQ, clouds, typed_bundle
from clipdeploy.demo import class_names, model_path
from clipdeploy.errors import ClipdeployError
from clipdeploy.runtime.clip import Clip

KINDS = (
    ("onnxruntime", "fp32"),
    ("onnxruntime", "int8"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
)
GROWTH_AT_MOST = 0.02
_PAGE = os.sysconf("SC_PAGE_SIZE")
_SHARE = 10
"""Resident memory is compared over the first and the last of that many parts of the calls."""

Job = Callable[[], Any]


@dataclass
class Together:
    """What became of the calls that many threads made at once.

    Attributes:
        calls: how many were answered.
        different: of those, the answers that were not bit for bit the one of a single thread, by job.
        seconds: from the first to the last.
        resident: bytes that the process held after each call, in order.
    """

    calls: int = 0
    different: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    resident: array[int] = field(default_factory=partial(array, "q"))


def jobs(clip: Clip) -> dict[str, Job]:
    """Every kind of call, on inputs that stay the same."""
    pictures = [clouds(seed) for seed in range(5)]
    pixels = clip.images([clouds(100 + seed) for seed in range(33)])
    labels = class_names()[:10]
    made: dict[str, Job] = {
        "encode_image of 1": lambda: clip.encode_image(pictures[0]),
        "encode_image of 5": lambda: clip.encode_image(pictures),
        "encode_text of 3": lambda: clip.encode_text(labels[:3]),
        "classify of 1": lambda: clip.classify(pictures[1], labels),
        "classify of 5": lambda: clip.classify(pictures, labels, top=3),
        "encode_many of 5": lambda: np.stack([one.embedding for one in clip.encode_many(pictures, batch_size=2)]),
        "similarity of 1 and 3": lambda: clip.similarity(pictures[2], labels[3:6]),
    }
    for rows in (0, 1, 2, 7, 8, 33):
        made[f"encode_pixels of {rows}"] = partial(clip.encode_pixels, pixels[:rows])
    return made


def same(one: Any, other: Any) -> bool:
    """Whether two answers are equal bit for bit."""
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return bool(one == other)  # records of Python's own floats and strings


def together(
    made: dict[str, Job],
    expected: dict[str, Any],
    *,
    threads: int,
    seconds: float | None = None,
    calls: int | None = None,
) -> Together:
    """Have `threads` threads make the calls over and over, for that long or that many of them.

    Each thread starts with another job, and takes the next one after each answer.
    """
    found, names, tickets, lock = Together(), list(made), count(), threading.Lock()
    start, until = threading.Barrier(threads), float("inf")
    started = time.perf_counter()
    if seconds is not None:
        until = started + seconds

    def work(first: int) -> None:
        start.wait()
        for turn in count(first):
            if time.perf_counter() >= until or (calls is not None and next(tickets) >= calls):
                return
            name = names[turn % len(names)]
            right = same(made[name](), expected[name])  # what it raises ends the soak
            with lock:
                found.calls += 1
                if calls is not None:
                    found.resident.append(resident_bytes())
                if not right:
                    found.different[name] = found.different.get(name, 0) + 1

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    found.seconds = time.perf_counter() - started
    return found


def resident_bytes() -> int:
    """Memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE


def growth(resident: Sequence[int]) -> float:
    """Median of the last part over the median of the first, minus 1."""
    part = max(1, len(resident) // _SHARE)
    return statistics.median(resident[-part:]) / statistics.median(resident[:part]) - 1


def left(resident: Sequence[int]) -> float:
    """The least of the second half over the least of the first, minus 1."""
    half = len(resident) // 2
    return min(resident[half:]) / min(resident[:half]) - 1


def soak(
    bundle: Path,
    backend: str,
    precision: str,
    *,
    threads: int = 24,
    seconds: float = 60.0,
    calls: int = 10_000,
    reloads: int = 40,
) -> dict[str, Any]:
    """All four parts of one backend in one precision, in this process."""
    opening = partial(clipdeploy.load, bundle, backend=backend, precision=precision, check_hashes=False)
    with opening() as clip:
        made = jobs(clip)
        expected = {name: job() for name, job in made.items()}
        minute = together(made, expected, threads=threads, seconds=seconds)
        warm_up = together(made, expected, threads=threads, calls=max(1, calls // _SHARE))
        many = together(made, expected, threads=threads, calls=calls)
        name = clip.backend.name
    after = []
    for _ in range(reloads):
        with opening() as clip:
            clip.classify(clouds(0), ["a cloud", "a dog"])
        after.append(resident_bytes())
    settled = after[len(after) // 4 :]
    different: dict[str, int] = {}
    for part in (minute, warm_up, many):
        for job, times in part.different.items():
            different[job] = different.get(job, 0) + times
    return {
        "backend": name,
        "precision": precision,
        "threads": threads,
        "seconds": round(minute.seconds, 1),
        "calls_in_that_time": minute.calls,
        "calls": many.calls,
        "different": different,
        "resident_mb": round(statistics.median(many.resident) / 1e6, 1) if many.resident else None,
        "growth": growth(many.resident) if many.resident else None,
        "reloads": reloads,
        "growth_of_reloads": left(settled) if len(settled) > 1 else None,
    }


def holds(row: dict[str, Any]) -> bool:
    """Whether the answers were the same and nothing grew."""
    grown = [row[key] for key in ("growth", "growth_of_reloads") if row[key] is not None]
    return not row["different"] and all(value <= GROWTH_AT_MOST for value in grown)


def soak_table(rows: Sequence[dict[str, Any]]) -> str:
    """A line for each backend and precision."""
    head = ("backend, precision", "calls in the time", "different", "calls after", "resident", "growth", "of reloads")
    return table(
        head,
        [
            (
                f"{row['backend']}, {row['precision']}",
                f"{row['calls_in_that_time']} in {row['seconds']:.0f} s",
                str(sum(row["different"].values())),
                str(row["calls"]),
                f"{row['resident_mb']:.0f} MB",
                f"{row['growth']:+.2%}",
                f"{row['growth_of_reloads']:+.2%}",
            )
            for row in rows
            if "absent" not in row
        ],
    )


def main() -> None:
    """Soak each in its own process, print a table, write the record."""
    parser = parser_of("soak", __doc__)
    parser.add_argument("bundle", nargs="?", type=Path, help="a bundle with int8 graphs; the demo's when not given")
    parser.add_argument("--seconds", type=float, default=60.0, help="of many threads")
    parser.add_argument("--calls", type=int, default=10_000, help="whose memory is watched")
    parser.add_argument("--threads", type=int, default=24, help="that share the object")
    parser.add_argument("--reloads", type=int, default=40, help="openings and closings")
    parser.add_argument("--only", nargs="+", metavar="BACKEND:PRECISION", help="such as openvino:int8")
    parser.add_argument("--json", type=Path, default=OUT / "soak.json", help="result file")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # a process of its own: this one, and its row as JSON
    options = parser.parse_args()

    asked = {key: getattr(options, key) for key in ("threads", "seconds", "calls", "reloads")}
    if options.one:
        backend, precision = options.one.rsplit(":", 1)
        print(json.dumps(soak(options.bundle, backend, precision, **asked)))
        return
    model = f"local-dir:{model_path('vit')}"
    bundle = typed_bundle(model, (INT8_CPU, INT8_QDQ), options.bundle)
    rows = []
    for kind in options.only or [f"{backend}:{precision}" for backend, precision in KINDS]:
        print(f"soaking {kind}", flush=True)
        rows.append(_in_a_process(bundle, kind, asked))
    record = {
        "benchmark": "soak",
        "environment": environment(0),
        "model": clipdeploy.Bundle.open(bundle, check_hashes=False).model.name,
        "asked": asked,
        "rows": rows,
    }
    write_json(options.json, record)
    print(f"\n{soak_table(rows)}")
    for row in rows:
        told = row.get("absent") or "; ".join(f"{job}: {times} differ" for job, times in row["different"].items())
        if told:
            print(f"{row['backend']}, {row['precision']}: {told}")
    print(f"\nwritten to {options.json}")
    raise SystemExit(not all(holds(row) for row in rows if "absent" not in row))


def _in_a_process(bundle: Path, kind: str, asked: dict[str, Any]) -> dict[str, Any]:
    """The row of one backend and precision; why not, where it cannot run here."""
    backend, precision = kind.rsplit(":", 1)
    try:
        with clipdeploy.load(bundle, backend=backend, precision=precision, check_hashes=False) as clip:
            clip.encode_image(clouds(0))
    except ClipdeployError as error:
        return {"backend": backend, "precision": precision, "absent": error.message}
    command = [sys.executable, "-m", "bench.soak", str(bundle), "--one", kind]
    command += [word for key, value in asked.items() for word in (f"--{key}", str(value))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{kind} failed:\n{done.stderr}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


if __name__ == "__main__":
    main()
