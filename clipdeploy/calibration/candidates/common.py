"""What all kinds of candidates share: what they are measured with, and what a search asks of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clipdeploy.calibration.accuracy import Accuracy, Floats, compare, embeddings
from clipdeploy.calibration.budget import Recipe, Trial
from clipdeploy.calibration.placement import Choice
from clipdeploy.calibration.split import Rows, Split
from clipdeploy.calibration.statistics import Method
from clipdeploy.graphs.files import data_path
from clipdeploy.memory import collect as give_memory_back
from clipdeploy.progress import Progress, silent
from clipdeploy.runtime.ort import OrtSession

METHODS: tuple[Method, ...] = ("percentile", "entropy", "max")


@dataclass(frozen=True)
class Answer:
    """A graph that answers as a candidate does, and how to run it."""

    graph: Path
    fuse_qdq: bool


class Candidates(Protocol):
    """The graphs that a precision and a target allow.

    Attributes:
        blocks: those that may be given back.
        choices: all layers, and whether they are placed in the asked precision.
    """

    @property
    def blocks(self) -> tuple[str, ...]: ...

    @property
    def choices(self) -> tuple[Choice, ...]: ...

    def next_remedy(self, trials: Sequence[Trial]) -> Recipe | None:
        """The next recipe without a block given back; None when there is no other."""

    def build(self, recipe: Recipe) -> Trial:
        """Write a recipe's graph and measure it."""

    def alone(self, recipe: Recipe, block: str) -> float:
        """1 - mean cosine with one block in the asked precision and all others left alone."""

    def finish(self, recipe: Recipe) -> Path:
        """The recipe's graph; weights that do not fit in lie beside it."""

    def answers(self) -> Answer:
        """What answers as the graph built last does, on this machine."""

    def notes(self) -> tuple[tuple[str, str], ...]:
        """Nodes of the graph built last that stay float32, and why."""


class Yardstick:
    """The float32 graph's answers, that candidates are held against.

    Args:
        source: the float32 graph.
        parts: the samples.
        bank: `(K, D)` embeddings of the other encoder; None leaves top-1 out.
        threads: of the engine.
        progress: told while measuring.
    """

    def __init__(
        self,
        source: Path,
        parts: Split,
        *,
        bank: Floats | None,
        threads: int | None = None,
        progress: Progress = silent,
    ) -> None:
        self.source, self.parts = source, parts
        self._bank, self._threads, self._progress = bank, threads, progress

    @cached_property
    def expected(self) -> Floats:
        """`(N, D)`, of the measured samples."""
        return self._embed(Answer(self.source, True), self.parts.measure)

    def accuracy(self, answer: Answer) -> Accuracy:
        """Of all measured samples."""
        return compare(self._embed(answer, self.parts.measure), self.expected, self._bank)

    def loss(self, answer: Answer) -> float:
        """1 - mean cosine, of a few samples."""
        places = np.searchsorted(self.parts.measure.picked, self.parts.sense.picked)
        return 1.0 - compare(self._embed(answer, self.parts.sense), self.expected[places]).cosine_mean

    def _embed(self, answer: Answer, rows: Rows) -> Floats:
        give_memory_back()  # what built the graph is garbage by now
        return embeddings(answer.graph, rows, fuse_qdq=answer.fuse_qdq, threads=self._threads, progress=self._progress)


def embed_array(answer: Answer, values: NDArray[np.generic], *, size: int = 8, threads: int | None = None) -> Floats:
    """What a candidate answers to an array of inputs."""
    session = OrtSession(answer.graph, threads=threads, fuse_qdq=answer.fuse_qdq)
    try:
        return np.concatenate([session.run(values[i : i + size]) for i in range(0, len(values), size)])
    finally:
        session.close()


def size_of(graph: Path) -> int:
    """Of a graph and of the weights beside it, in bytes."""
    weights = data_path(graph)
    return graph.stat().st_size + (weights.stat().st_size if weights.exists() else 0)


def remove(graph: Path) -> None:
    """A graph and the weights beside it."""
    graph.unlink(missing_ok=True)
    data_path(graph).unlink(missing_ok=True)


def blocks_of(choices: Sequence[Choice]) -> tuple[str, ...]:
    """The blocks that hold layers in the asked precision, in the order of the graph."""
    return tuple(dict.fromkeys(choice.layer.block for choice in choices if choice.quantise))


def smoothing_remedies(trials: Sequence[Trial], first: Recipe, others: Sequence[Recipe], *, can: bool) -> Recipe | None:
    """First as asked, then smoothed where that can be, then `others`, smoothed if that was better."""
    if not trials:
        return first
    if can and len(trials) == 1:
        return Recipe(first.method, smooth=True)
    better = can and trials[1].accuracy.cosine_mean > trials[0].accuracy.cosine_mean
    done = len(trials) - (2 if can else 1)
    return Recipe(others[done].method, smooth=better) if done < len(others) else None
