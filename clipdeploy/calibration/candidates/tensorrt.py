"""Candidates in INT8 and FP8 for TensorRT: Q/DQ around the layers, all else in FP16.

What they answer is measured with their rounding spelled out in float32 (`emulated`), Q/DQ computed as written.
"""

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
from clipdeploy.calibration.candidates.linears import Ground, Linears
from clipdeploy.calibration.half import emulated, to_half
from clipdeploy.calibration.placement import Choice
from clipdeploy.calibration.qdq import insert_qdq
from clipdeploy.calibration.records import Layer
from clipdeploy.calibration.statistics import Method
from clipdeploy.graphs.files import load_graph, save_graph
from clipdeploy.memory import collect as give_memory_back
from clipdeploy.spec import Precision


class QdqCandidates:
    """See `Candidates`.

    Args:
        linears: the graph.
        yardstick: what it is held against.
        precision: INT8 or FP8.
        method: the ranges to begin with.
        scratch: a folder for the graphs.
        name: of the graph's file.
    """

    def __init__(
        self, linears: Linears, yardstick: Yardstick, *, precision: Precision, method: Method, scratch: Path, name: str
    ) -> None:
        self._linears, self._yardstick, self._precision, self._method = linears, yardstick, precision, method
        self._graph, self._twin = scratch / name, scratch / "twin.onnx"
        self._work = scratch / "float32.onnx"
        self._built: Recipe | None = None
        self._kept: tuple[tuple[str, str], ...] = ()

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
        ground = self._linears.ground(smoothed=recipe.smooth)
        self._quantise(ground, [layer for layer in self._linears.layers if layer.block == block], recipe)
        loss = self._yardstick.loss(Answer(self._work, False))
        remove(self._work)
        return loss

    def finish(self, recipe: Recipe) -> Path:
        if recipe != self._built:
            self._write(recipe)
        return self._graph

    def answers(self) -> Answer:
        return Answer(self._twin, False)

    def notes(self) -> tuple[tuple[str, str], ...]:
        return self._kept

    def _write(self, recipe: Recipe) -> int:
        ground = self._linears.ground(smoothed=recipe.smooth)
        layers = [layer for layer in self._linears.layers if layer.block not in recipe.kept]
        self._built = None
        self._quantise(ground, layers, recipe)
        result = to_half(self._work, self._graph, precision=Precision.FP16, stats=ground.maxima)
        remove(self._work)
        give_memory_back()
        emulated(self._graph, self._twin)
        self._built, self._kept = recipe, result.kept
        return len(layers)

    def _quantise(self, ground: Ground, layers: Sequence[Layer], recipe: Recipe) -> None:
        """Write the float32 graph with Q/DQ around `layers`."""
        model = load_graph(ground.graph)
        ranges = ground.ranges(model, layers, recipe.method or self._method)
        insert_qdq(model, layers, ranges, precision=self._precision)
        save_graph(model, self._work)
        del model
        give_memory_back()
