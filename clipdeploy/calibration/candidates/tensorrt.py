"""Candidates in INT8 and FP8 for TensorRT: Q/DQ around the layers, all else in FP16.

What they answer is measured with their rounding spelled out in float32 (`emulated`), Q/DQ computed as written.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clipdeploy.calibration.budget import Recipe
from clipdeploy.calibration.candidates.common import Answer, Yardstick, remove
from clipdeploy.calibration.candidates.eight_bit import EightBitCandidates
from clipdeploy.calibration.candidates.linears import Ground, Linears
from clipdeploy.calibration.half import emulated, to_half
from clipdeploy.calibration.qdq import insert_qdq
from clipdeploy.calibration.records import Layer
from clipdeploy.calibration.statistics import Method
from clipdeploy.graphs.files import load_graph, save_graph
from clipdeploy.memory import collect as give_memory_back
from clipdeploy.spec import Precision


class QdqCandidates(EightBitCandidates):
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
        super().__init__(linears, yardstick, method=method, graph=scratch / name, alone=scratch / "alone.onnx")
        self._precision = precision
        self._work, self._twin = scratch / "float32.onnx", scratch / "twin.onnx"
        self._kept: tuple[tuple[str, str], ...] = ()

    def answers(self) -> Answer:
        return Answer(self._twin, False)

    def notes(self) -> tuple[tuple[str, str], ...]:
        return self._kept

    def _make(self, ground: Ground, layers: Sequence[Layer], recipe: Recipe) -> None:
        self._quantise(ground, layers, recipe, self._work)
        result = to_half(self._work, self._graph, precision=Precision.FP16, stats=ground.maxima)
        remove(self._work)
        give_memory_back()
        emulated(self._graph, self._twin)
        self._kept = result.kept

    def _quantise(self, ground: Ground, layers: Sequence[Layer], recipe: Recipe, target: Path) -> None:
        model = load_graph(ground.graph)
        ranges = ground.ranges(model, layers, recipe.method or self._method)
        insert_qdq(model, layers, ranges, precision=self._precision)
        save_graph(model, target)
        del model
        give_memory_back()
