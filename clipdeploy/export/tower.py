"""The export stage: one encoder of a checkpoint to a lean fp32 ONNX graph, checked against the checkpoint."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import ExportError, OutputError
from clipdeploy.export.checkpoint import Checkpoint
from clipdeploy.export.graph.checks import Feeds, embeddings
from clipdeploy.export.graph.opset import DEFAULT_OPSET, check_opset
from clipdeploy.export.graph.simplify import SimplifyStep, describe_graph, simplify_graph
from clipdeploy.export.graph.trace import trace_tower
from clipdeploy.export.towers.build import build_tower
from clipdeploy.graphs.files import INLINE_LIMIT_BYTES, data_path, load_graph, save_graph, scratch_folder
from clipdeploy.memory import collect
from clipdeploy.progress import Progress, silent
from clipdeploy.spec import TokenSpec, Tower

TRACE_TOLERANCE = 1e-4
"""Largest difference that tracing may make to an embedding of length 1, as the fp32 gate of `verify`."""

_SAMPLES = 3


@dataclass(frozen=True)
class ExportOptions:
    """How a tower is exported.

    Attributes:
        opset: ONNX operator set, 17 to 23.
        simplify: run onnxsim and the passes.
        measure: time the graph before and after.
        inline_limit_bytes: weights beyond this lie in a file beside the graph.
    """

    opset: int = DEFAULT_OPSET
    simplify: bool = True
    measure: bool = False
    inline_limit_bytes: int = INLINE_LIMIT_BYTES


@dataclass(frozen=True)
class TowerResult:
    """What exporting a tower wrote.

    Attributes:
        graph: the ONNX file.
        weights: the file of weights beside it, where they are too large for it.
        opset: of the graph.
        steps: the graph as traced, whose `max_abs` is against the checkpoint, then one record for each change to it.
        seconds: all of it.
    """

    tower: Tower
    graph: Path
    weights: Path | None
    opset: int
    steps: tuple[SimplifyStep, ...]
    seconds: float


def export_tower(
    checkpoint: Checkpoint, tower: Tower, folder: Path, options: ExportOptions, progress: Progress = silent
) -> TowerResult:
    """Trace and simplify one encoder into `folder`; the graph appears there when it is whole and checked.

    Raises:
        ExportError: it cannot be traced at this opset, or the graph answers otherwise than the checkpoint.
        MissingExtraError: onnxruntime, which checks the graph, is not installed.
        OutputError: `folder` cannot be written.
    """
    started = time.perf_counter()
    check_opset(options.opset)
    target = folder / tower.graph_name()
    try:
        with scratch_folder(folder) as scratch:
            opset, steps = _export(checkpoint, tower, scratch / target.name, target, options, progress)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error}", fix="free space or choose another folder") from error
    weights = data_path(target)
    return TowerResult(
        tower=tower,
        graph=target,
        weights=weights if weights.exists() else None,
        opset=opset,
        steps=steps,
        seconds=time.perf_counter() - started,
    )


def sample_feeds(checkpoint: Checkpoint, tower: Tower, *, seed: int = 0) -> dict[str, NDArray[Any]]:
    """A batch to compare graphs on: `(3, 3, H, W)` float32 of random pixels, or `(3, L)` int64 of random texts."""
    spec, rng = checkpoint.spec, np.random.default_rng(seed)
    name = spec.tower(tower).input.name
    if tower is Tower.TEXT:
        return {name: _random_texts(spec.tokens, rng)}
    return {name: rng.standard_normal((_SAMPLES, 3, spec.pixels.height, spec.pixels.width), dtype=np.float32)}


def _export(
    checkpoint: Checkpoint, tower: Tower, traced: Path, target: Path, options: ExportOptions, progress: Progress
) -> tuple[int, tuple[SimplifyStep, ...]]:
    """Write `traced`, check it, write `target`; returns its opset and the steps."""
    started = time.perf_counter()
    progress(f"tracing the {tower.value} encoder", 0, 0)
    # Weights beside the graph are read only when needed: cheaper for a file that lives a moment.
    longest = checkpoint.spec.tokens.context_length if checkpoint.spec.tower(tower).any_length else None
    trace_tower(
        build_tower(checkpoint.encoder(tower), tower),
        checkpoint.spec.tower(tower),
        traced,
        opset=options.opset,
        longest=longest,
        inline_limit_bytes=0,
    )
    collect()  # what was traced holds copies of weights
    opset = int(load_graph(traced).opset_imports[""])
    feeds = sample_feeds(checkpoint, tower)
    shortest = None if longest is None else _shortest(checkpoint.spec.tokens)
    difference = _difference(checkpoint, tower, traced, feeds, shortest)
    seconds = time.perf_counter() - started
    limit = options.inline_limit_bytes
    if options.simplify:
        result = simplify_graph(
            traced,
            target,
            feeds=feeds,
            progress=progress,
            measure=options.measure,
            shortest=shortest,
            inline_limit_bytes=limit,
        )
        return opset, (replace(result.steps[0], max_abs=difference, seconds=seconds), *result.steps[1:])
    step = describe_graph("traced", traced, max_abs=difference, seconds=seconds)
    beside = save_graph(load_graph(traced), target, inline_limit_bytes=limit)
    size = target.stat().st_size + (beside.stat().st_size if beside is not None else 0)
    return opset, (replace(step, size_bytes=size),)


def _difference(checkpoint: Checkpoint, tower: Tower, graph: Path, feeds: Feeds, shortest: int | None) -> float:
    """Largest difference of a graph to its checkpoint; raises ExportError beyond `TRACE_TOLERANCE`."""
    (batch,) = feeds.values()
    encode: Any = checkpoint.reference_image_embeds if tower is Tower.IMAGE else checkpoint.reference_text_embeds
    expected = encode(batch)
    worst = max(float(np.abs(found - expected[: len(found)]).max()) for found in embeddings(graph, feeds, shortest))
    if not worst <= TRACE_TOLERANCE:  # NaN is no small difference either
        raise ExportError(
            f"the traced {tower.value} encoder of {checkpoint.source} differs from the checkpoint by {worst:.3g}; "
            f"at most {TRACE_TOLERANCE:g} is allowed",
            fix="report the architecture; another --opset may help",
        )
    return worst


def _random_texts(spec: TokenSpec, rng: np.random.Generator) -> NDArray[np.int64]:
    """Texts of three lengths, the longest filling the context: `(3, L)` int64."""
    length, shortest = spec.context_length, _shortest(spec)
    special = [i for i in (spec.start_id, spec.end_id, spec.pad_id) if i is not None]
    words = np.setdiff1d(rng.integers(0, spec.vocab_size, 8 * length), special)
    head = [] if spec.start_id is None else [spec.start_id]
    rows = np.full((_SAMPLES, length), spec.pad_id, dtype=np.int64)
    room = length - len(head) - 1
    for row, count in zip(rows, (shortest - len(head) - 1, room // 2, room), strict=True):
        ids = [*head, *rng.choice(words, count), spec.end_id]
        row[: len(ids)] = ids
    return rows


def _shortest(spec: TokenSpec) -> int:
    """Ids of the shortest of the random texts: one word between start and end."""
    return 2 + (spec.start_id is not None)
