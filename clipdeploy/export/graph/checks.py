"""Run graphs to compare and to time them: ONNX Runtime on the CPU."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.memory import give_back
from clipdeploy.runtime.ort import OrtSession

Feeds = Mapping[str, NDArray[Any]]
"""One batch for the graph's one input, by its name."""

_RUNS_A_TURN = 3


def embeddings(path: Path, feeds: Feeds, shortest: int | None = None) -> list[NDArray[np.float32]]:
    """What a graph answers: for the whole batch, then for its first sample alone; each `(N, D)`.

    Args:
        path: of the graph.
        feeds: the batch.
        shortest: where the length of texts is free, how many ids the first has; it alone is cut to them.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        BackendError: it refuses the graph.
    """
    session = OrtSession(path)
    (batch,) = feeds.values()
    found = [session.run(batch), session.run(batch[:1, :shortest])]
    session.close()
    give_back()
    return found


def relative_difference(found: list[NDArray[np.float32]], expected: list[NDArray[np.float32]]) -> float:
    """Largest absolute difference over the largest value expected; infinite for another shape or a non-finite value."""
    worst = 0.0
    for a, b in zip(found, expected, strict=True):
        if a.shape != b.shape or not np.isfinite(a).all() or not np.isfinite(b).all():
            return float("inf")
        worst = max(worst, float(np.abs(a - b).max() / max(float(np.abs(b).max()), 1e-30)))
    return worst


def latencies_ms(
    graphs: Mapping[str, Path], feeds: Feeds, *, rounds: int = 5, threads: int | None = None
) -> dict[str, list[float]]:
    """Times of single runs of each graph in ms, taken in turns so that all meet the same machine.

    A turn is one run that does not count, in which the threads of the session before stop spinning, and a few that do.
    """
    sessions = {name: OrtSession(path, threads=threads) for name, path in graphs.items()}
    (batch,) = feeds.values()
    samples: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(rounds):
        for name, session in sessions.items():
            session.run(batch)
            for _ in range(_RUNS_A_TURN):
                started = time.perf_counter()
                session.run(batch)
                samples[name].append((time.perf_counter() - started) * 1e3)
    return samples
