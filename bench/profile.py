"""Where the time from a picture file to its label goes: the runtime as it was and as it is, by turns in one run.

    python -m bench.profile [BUNDLE] --before REVISION [--images FOLDER] [--count 48] [--rounds 5]

Each side and backend is a process of its own, from the sources of that revision and from those that are here; all read
the same 1080p JPEGs and take turns in each round. Wall time, and the time that all cores together were at work.
"""

from __future__ import annotations

import argparse
import io
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.common import OUT, environment, full_hd_jpeg, table, write_json
from bench.typed_bundle import INT8_CPU, INT8_QDQ, typed_bundle
from clipdeploy.benchmark.child import Child
from clipdeploy.pictures import find_pictures

ROOT = Path(__file__).resolve().parents[1]
HOST = Path(__file__).with_name("profile_host.py")
BACKENDS = (("onnxruntime", "int8"), ("openvino", "int8"))
BEFORE, NOW = "before", "now"
READING = {
    "decode": "decode",
    "resize": "resize and crop",
    "first pass": "  of it, along the width",
    "second pass": "  of it, along the height",
    "array": "to an array",
    "normalise": "normalise",
}
"""What is done to a picture before the encoder, in one thread."""
_ADDED = ("decode", "resize", "array", "normalise", "encoder", "score")

Sides = dict[str, dict[str, dict[str, list[list[float]]]]]
"""Of each backend and side, the parts with [wall ms, processor ms] of every call, a picture."""


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=str(__doc__).splitlines()[0])
    parser.add_argument("bundle", nargs="?", type=Path, help="bundle of ViT-B-32 with int8 graphs for both targets")
    parser.add_argument("--before", required=True, help="the git revision to compare with")
    parser.add_argument("--images", type=Path, help="folder of photographs to make the JPEGs of; drawn when not given")
    parser.add_argument("--count", type=int, default=48, help="pictures in the folder (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="pictures in one run (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of each (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=6, help="measured calls of a part in a round")
    parser.add_argument("--json", type=Path, default=OUT / "profile.json", help="result file (default: %(default)s)")
    options = parser.parse_args()

    bundle = typed_bundle("ViT-B-32", (INT8_CPU, INT8_QDQ), options.bundle)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as opened:
        files = _pictures(Path(scratch) / "pictures", options.count, options.images)
        hosts = {
            (name, side): opened.enter_context(_host(f"{side}, {name[0]}", sources, Path(scratch)))
            for side, sources in ((BEFORE, _sources(options.before, Path(scratch) / BEFORE)), (NOW, ROOT))
            for name in BACKENDS
        }
        for ((backend, precision), side), host in hosts.items():
            where = host.ask(
                "open",
                bundle=str(bundle.resolve()),
                backend=backend,
                precision=precision,
                threads=options.threads,
                batch=options.batch,
                files=[str(file) for file in files],
            )
            print(f"{side}, {backend} {precision}: {where}", flush=True)
        taken = _rounds(hosts, options.rounds, options.calls)
        mean_bytes = statistics.mean(file.stat().st_size for file in files)
    record = {
        "benchmark": "profile",
        "environment": environment(options.threads),
        "model": "ViT-B-32",
        "before": options.before,
        "pictures": {
            "source": "photographs" if options.images else "drawn",
            "count": len(files),
            "width": 1920,
            "height": 1080,
            "mean_bytes": mean_bytes,
        },
        "batch": options.batch,
        "rounds": options.rounds,
        "backends": {name: {side: _told(parts) for side, parts in sides.items()} for name, sides in taken.items()},
    }
    write_json(options.json, record)
    print(f"\n{report(record)}\n\nwritten to {options.json}")


def _sources(revision: str, folder: Path) -> Path:
    """The package as it was at a revision."""
    packed = subprocess.run(["git", "archive", revision, "clipdeploy"], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def _host(name: str, sources: Path, scratch: Path) -> Child:
    started = f"import runpy; runpy.run_path({str(HOST)!r}, run_name='__main__')"
    settings = {"PYTHONPATH": str(sources), "CLIPDEPLOY_CACHE": str(scratch / "remembered")}
    return Child(name, [sys.executable, "-c", started], environment=settings, folder=scratch)


def _pictures(folder: Path, count: int, images: Path | None) -> list[Path]:
    photos: Sequence[Path | None] = find_pictures([images], recursive=True) if images else [None]
    return [full_hd_jpeg(folder / f"{i:03}.jpg", photos[i % len(photos)], seed=i) for i in range(count)]


def _rounds(hosts: Mapping[tuple[tuple[str, str], str], Child], rounds: int, calls: int) -> Sides:
    """Every host in turn, in each round beginning with another; what each measured."""
    taken: Sides = {}
    names = list(hosts)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            (backend, precision), side = name
            parts = taken.setdefault(f"{backend} {precision}", {}).setdefault(side, {})
            for part, found in hosts[name].ask("round", calls=calls).items():
                parts.setdefault(part, []).extend(found)
        print(f"round {turn + 1} of {rounds}", flush=True)
    return taken


def _told(parts: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, Any]:
    """Median and fastest of every part, and how far apart the whole way's runs were."""
    return {
        part: {
            "wall_ms": statistics.median(wall for wall, _ in found),
            "core_ms": statistics.median(core for _, core in found),
            "fastest_wall_ms": min(wall for wall, _ in found),
            "least_core_ms": min(core for _, core in found),
            "most_core_ms": max(core for _, core in found),
            "calls": len(found),
        }
        for part, found in parts.items()
    }


def report(record: Mapping[str, Any]) -> str:
    """What a picture costs before the encoder, and the whole way of each backend, before and now."""
    pictures, threads = record["pictures"], record["environment"]["threads"]
    reading = next(iter(record["backends"].values()))
    tables = [
        f"{record['model']}, {pictures['count']} JPEGs of {pictures['width']}x{pictures['height']} "
        f"({pictures['source']}, {pictures['mean_bytes'] / 1e3:.0f} kB), before: {record['before']}",
        table(
            ("one picture, one thread, ms of a core", BEFORE, "least", NOW, "least", "before / now"),
            [_row(name, reading, part) for part, name in READING.items()],
        ),
    ]
    for backend, sides in record["backends"].items():
        names = {
            "encoder": f"encoder, batch {record['batch']}, a picture",
            "score": "similarity, a picture",
            "one": "one file to label",
            "many": f"many files to labels, {threads} threads, a picture",
        }
        head = (
            backend,
            *(f"{side}: {what}" for side in (BEFORE, NOW) for what in ("ms", "core ms")),
            "core ms, before / now",
        )
        rows = [
            (
                name,
                *(f"{sides[side][part][what]:.2f}" for side in (BEFORE, NOW) for what in ("wall_ms", "core_ms")),
                f"{sides[BEFORE][part]['core_ms'] / sides[NOW][part]['core_ms']:.2f}x",
            )
            for part, name in names.items()
        ]
        lost = {side: _lost(parts, threads) for side, parts in sides.items()}
        for place, name in enumerate(("  of it, more than its parts on their own", "  of it, cores that waited")):
            rows.append((name, *(cell for side in (BEFORE, NOW) for cell in ("", f"{lost[side][place]:.2f}")), ""))
        tables.append(table(head, rows))
    return "\n\n".join(tables)


def _row(name: str, sides: Mapping[str, Any], part: str) -> tuple[str, ...]:
    before, now = sides[BEFORE][part], sides[NOW][part]
    cells = [f"{side[what]:.2f}" for side in (before, now) for what in ("core_ms", "least_core_ms")]
    return name, *cells, f"{before['core_ms'] / now['core_ms']:.2f}x"


def _lost(parts: Mapping[str, Any], threads: int) -> tuple[float, float]:
    """Of many pictures, core ms a picture: at work beyond the sum of the parts, and idle while others worked."""
    whole = parts["many"]
    added = sum(parts[part]["core_ms"] for part in _ADDED)
    return whole["core_ms"] - added, max(threads * whole["wall_ms"] - whole["core_ms"], 0.0)


if __name__ == "__main__":
    main()
