"""Candidates in FP16 and BF16: everything half but what cannot be, and blocks given back to float32."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import onnx_ir as ir

from clipdeploy.calibration.budget import Recipe, Trial
from clipdeploy.calibration.candidates.common import Answer, Yardstick, blocks_of, size_of
from clipdeploy.calibration.half import HalfResult, emulated, tensors_to_measure, to_half
from clipdeploy.calibration.layers import find_layers
from clipdeploy.calibration.placement import Choice
from clipdeploy.calibration.ranges import collect
from clipdeploy.calibration.records import Layer
from clipdeploy.calibration.split import Rows
from clipdeploy.graphs.files import load_graph
from clipdeploy.memory import collect as give_memory_back
from clipdeploy.progress import Progress, silent
from clipdeploy.spec import Precision, Tower


class HalfCandidates:
    """See `Candidates`; ranges decide what stays float32, so there is one recipe besides giving blocks back.

    Args:
        source: the float32 graph.
        tower: which encoder it is.
        rows: calibration samples.
        yardstick: what it is held against.
        precision: FP16 or BF16.
        scratch: a folder for the graphs.
        name: of the graph's file.
        threads: of the engine.
        progress: told of every part of the measuring.
    """

    def __init__(
        self,
        source: Path,
        tower: Tower,
        rows: Rows,
        yardstick: Yardstick,
        *,
        precision: Precision,
        scratch: Path,
        name: str,
        threads: int | None = None,
        progress: Progress = silent,
    ) -> None:
        self._source, self._yardstick, self._precision = source, yardstick, precision
        self._graph, self._twin, self._work = scratch / name, scratch / "twin.onnx", scratch / "alone.onnx"
        model = load_graph(source)
        layers = find_layers(model, tower)
        self.choices = tuple(Choice(layer, True) for layer in layers)
        self._nodes = _nodes_of_blocks(model, layers)
        del model
        names = tensors_to_measure(source)
        give_memory_back()
        found = collect(source, (), rows, maxima=names, total=rows.count, threads=threads, progress=progress)
        self._maxima = found.maxima()
        self._built: Recipe | None = None
        self._result: HalfResult | None = None

    @property
    def blocks(self) -> tuple[str, ...]:
        return blocks_of(self.choices)

    def next_remedy(self, trials: Sequence[Trial]) -> Recipe | None:
        return None if trials else Recipe()

    def build(self, recipe: Recipe) -> Trial:
        layers = self._write(recipe)
        return Trial(recipe, layers, size_of(self._graph), self._yardstick.accuracy(self.answers()))

    def alone(self, recipe: Recipe, block: str) -> float:
        others = {name for other, names in self._nodes.items() if other != block for name in names}
        self._convert(self._work, others)
        emulated(self._work, self._twin)
        self._built = None
        return self._yardstick.loss(self.answers())

    def finish(self, recipe: Recipe) -> Path:
        if recipe != self._built:
            self._write(recipe)
        return self._graph

    def answers(self) -> Answer:
        return Answer(self._twin, False)

    def notes(self) -> tuple[tuple[str, str], ...]:
        return () if self._result is None else self._result.kept

    def _write(self, recipe: Recipe) -> int:
        self._result = self._convert(self._graph, {name for block in recipe.kept for name in self._nodes[block]})
        give_memory_back()
        emulated(self._graph, self._twin)
        self._built = recipe
        kept = {name for name, _ in self._result.kept}
        return sum(choice.layer.node not in kept for choice in self.choices)

    def _convert(self, target: Path, keep: Collection[str]) -> HalfResult:
        return to_half(self._source, target, precision=self._precision, stats=self._maxima, keep=keep)


def _nodes_of_blocks(model: ir.Model, layers: Sequence[Layer]) -> dict[str, list[str]]:
    """Block -> names of its nodes: from its first layer on, up to the first layer of another block."""
    begins = {layer.node: layer.block for layer in layers}
    found: dict[str, list[str]] = {}
    block = layers[0].block if layers else ""
    for node in model.graph:
        block = begins.get(node.name or "", block)
        if node.name:
            found.setdefault(block, []).append(node.name)
    return found
