"""Candidates in INT8 for ONNX Runtime on processors, measured as they run there."""

from __future__ import annotations

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
from clipdeploy.calibration.candidates.linears import Linears, Placement
from clipdeploy.calibration.cpu import pixel_range, place_cpu, quantise_cpu, ranges_needed
from clipdeploy.calibration.placement import Choice
from clipdeploy.calibration.records import Layer
from clipdeploy.calibration.statistics import Method
from clipdeploy.graphs.files import load_graph
from clipdeploy.spec import PixelSpec, TensorSpec


def for_cpu(source: TensorSpec, pixels: PixelSpec | None) -> Placement:
    """Where processors compute in 8 bits.

    Args:
        source: the graph's input.
        pixels: what it holds, for an image encoder.
    """
    known = {} if pixels is None else {source.name: pixel_range(pixels)}
    return Placement(place_cpu, ranges_needed, symmetric=False, known=known)


class CpuCandidates:
    """See `Candidates`.

    Args:
        linears: the graph, with its placement `for_cpu`.
        yardstick: what it is held against.
        method: the ranges to begin with.
        scratch: a folder for the graphs.
        name: of the graph's file.
    """

    def __init__(self, linears: Linears, yardstick: Yardstick, *, method: Method, scratch: Path, name: str) -> None:
        self._linears, self._yardstick, self._method = linears, yardstick, method
        self._graph, self._work = scratch / name, scratch / "alone.onnx"
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
        self._quantise(recipe, [layer for layer in self._linears.layers if layer.block == block], self._work)
        loss = self._yardstick.loss(Answer(self._work, True))
        remove(self._work)
        return loss

    def finish(self, recipe: Recipe) -> Path:
        if recipe != self._built:
            self._write(recipe)
        return self._graph

    def answers(self) -> Answer:
        return Answer(self._graph, True)

    def notes(self) -> tuple[tuple[str, str], ...]:
        return ()

    def _write(self, recipe: Recipe) -> int:
        layers = [layer for layer in self._linears.layers if layer.block not in recipe.kept]
        self._quantise(recipe, layers, self._graph)
        self._built = recipe
        return len(layers)

    def _quantise(self, recipe: Recipe, layers: Sequence[Layer], target: Path) -> None:
        ground = self._linears.ground(smoothed=recipe.smooth)
        ranges = ground.ranges(load_graph(ground.graph), layers, recipe.method or self._method)
        quantise_cpu(ground.graph, target, layers, ranges)
