"""The head of docs/benchmarks.md: which is fastest for whom, first of all."""

from __future__ import annotations

from typing import Any

from bench.pages.peers import best_lines
from bench.pages.runtime import EAGER
from bench.pages.section import Results, markdown_table

HEAD = """# Benchmarks

Written by `python -m bench.page` from `bench/results/`; not edited by hand. Each section names the command that
measures it again, on the machine it runs on; [bench/README.md](../bench/README.md) lists them all. Candidates take
turns in one run and have the same number of threads; the figures are medians. Weights are random, which changes no
time. For a bundle of your own, `clipdeploy bench BUNDLE` measures what counts for an app."""

PEERS_ANCHOR = "beside-the-peers"

_WHICH = "## Which is fastest for you"

_ELSEWHERE = """Measured on an x86 server processor that has matrix units for few bits; a processor without them, an ARM
board or a GPU orders them otherwise: `backend="auto", precision="auto"` measures on the spot and takes the fastest pair
that passes the bundle's own samples. No GPU and no Jetson have been measured yet."""


def answers(results: Results) -> list[str]:
    """What to take for which work, each with what it was measured at and the section that has the rest."""
    rows = [*_peers(results), *_encoder(results), *_folder(results), *_frames(results)]
    head = ("your work", "take", "measured here", "beside")
    return [_WHICH, *([markdown_table(head, rows)] if rows else []), _ELSEWHERE]


def _peers(results: Results) -> list[tuple[str, ...]]:
    record = results.get("peers")
    if record is None:
        return []
    return [(f"[{work}](#{PEERS_ANCHOR})", *cells) for work, *cells in best_lines(record)]


def _encoder(results: Results) -> list[tuple[str, ...]]:
    record = results.get("runtime")
    if record is None:
        return []
    where = "[encoder alone](#the-runtime-on-a-processor)"
    rows = []
    exact = fastest(record["batches"]["1"], "fp32")
    for batch, row in record["batches"].items():
        name = fastest(row)
        rows.append((f"pixels, {batch} at a time, {where}", *_cells(row, name)))
    if exact is not None:
        rows.append((f"the same, 1 at a time, in float32, {where}", *_cells(record["batches"]["1"], exact)))
    return rows


def fastest(row: dict[str, Any], precision: str = "") -> str:
    """Ours with the least median at one batch of bench.runtime, of a precision where one is named."""
    ours = [name for name in row["to_bare"] if precision in name]
    return min(ours, key=lambda name: row["encode_ms"][name]["median_ms"])


def _cells(row: dict[str, Any], name: str) -> tuple[str, str, str]:
    ms, eager = (row["encode_ms"][one]["median_ms"] for one in (name, EAGER))
    return f"`{name.split(', ')[1]}`", f"{ms:.1f} ms", f"PyTorch eager: {eager:.1f} ms"


def _folder(results: Results) -> list[tuple[str, ...]]:
    record = results.get("folder")
    if record is None:
        return []
    taken = {name: one["median_ms"] for name, one in record["picture_ms"].items()}
    ours = min((name for name in taken if name.startswith("clipdeploy")), key=taken.__getitem__)
    others = min((name for name in taken if not name.startswith("clipdeploy")), key=taken.__getitem__)
    where = "[JPEGs of 1080p, file to label](#a-folder-of-jpegs-to-labels)"
    cells = (f"{1e3 / taken[ours]:.0f} pictures/s", f"{others}: {1e3 / taken[others]:.0f}")
    return [(where, f"`{ours.split(', ')[1]}`", *cells)]


def _frames(results: Results) -> list[tuple[str, ...]]:
    record = results.get("frames")
    if record is None:
        return []
    ratios = {
        (engine, frame): row["whole"]["median"]
        for engine, kinds in record["engines"].items()
        for frame, row in kinds.items()
    }
    engine, frame = min(ratios, key=ratios.__getitem__)
    ms = record["engines"][engine][frame]["ms"]
    inside, before = (ms[name]["median_ms"] for name in ("frame graph, then tower", "Pillow, then tower"))
    where = f"[raw frames of a camera, {frame}](#frames-in-the-graph)"
    beside = f"Pillow, then the encoder: {before:.1f} ms"
    return [(where, f"frames in the graph, `{engine} fp32`", f"{inside:.1f} ms", beside)]
