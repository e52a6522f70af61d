"""What candidates in 8 bits have in common, whatever engine they are for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from clipdeploy.calibration.budget import Recipe, Trial
from clipdeploy.calibration.candidates.common import (
    METHODS,
    Answer,
    Yardstick,
    blocks_of,
    remove,
    size_of,
    smoothing_remedies,
)
from clipdeploy.calibration.candidates.linears import Ground, Linears
from clipdeploy.calibration.placement import Choice
from clipdeploy.calibration.records import Layer
from clipdeploy.calibration.statistics import Method


class EightBitCandidates(ABC):
    """See `Candidates`: the layers of a graph quantised, by other ranges and smoothed where that helps.

    Args:
        linears: the graph.
        yardstick: what it is held against.
        method: the ranges to begin with.
        graph: where the candidate is written.
        alone: where a graph with one quantised block is written, to be measured and removed.
    """

    def __init__(self, linears: Linears, yardstick: Yardstick, *, method: Method, graph: Path, alone: Path) -> None:
        self._linears, self._yardstick, self._method = linears, yardstick, method
        self._graph, self._alone = graph, alone
        self._built: Recipe | None = None

    @property
    def choices(self) -> tuple[Choice, ...]:
        return self._linears.choices

    @property
    def blocks(self) -> tuple[str, ...]:
        return blocks_of(self.choices)

    def next_remedy(self, trials: Sequence[Trial]) -> Recipe | None:
        others = [Recipe(method) for method in METHODS if method != self._method]
        return smoothing_remedies(trials, Recipe(self._method), others, can=bool(self._linears.smoothable))

    def build(self, recipe: Recipe) -> Trial:
        layers = self._write(recipe)
        return Trial(recipe, layers, size_of(self._graph), self._yardstick.accuracy(self.answers()))

    def alone(self, recipe: Recipe, block: str) -> float:
        layers = [layer for layer in self._linears.layers if layer.block == block]
        self._quantise(self._linears.ground(smoothed=recipe.smooth), layers, recipe, self._alone)
        loss = self._yardstick.loss(Answer(self._alone, self.answers().fuse_qdq))
        remove(self._alone)
        return loss

    def finish(self, recipe: Recipe) -> Path:
        if recipe != self._built:
            self._write(recipe)
        return self._graph

    def _write(self, recipe: Recipe) -> int:
        """Write a recipe's graph; returns how many layers it quantises."""
        layers = [layer for layer in self._linears.layers if layer.block not in recipe.kept]
        self._built = None
        self._make(self._linears.ground(smoothed=recipe.smooth), layers, recipe)
        self._built = recipe
        return len(layers)

    @abstractmethod
    def answers(self) -> Answer:
        """The graph to measure, and how."""

    @abstractmethod
    def notes(self) -> tuple[tuple[str, str], ...]:
        """Nodes that stay float32, and why."""

    @abstractmethod
    def _make(self, ground: Ground, layers: Sequence[Layer], recipe: Recipe) -> None:
        """Write the candidate, with `layers` quantised."""

    @abstractmethod
    def _quantise(self, ground: Ground, layers: Sequence[Layer], recipe: Recipe, target: Path) -> None:
        """Write the ground's graph with `layers` quantised and all else as it is."""
