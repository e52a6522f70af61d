"""Candidates in INT8 for ONNX Runtime on processors, measured as they run there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clipdeploy.calibration.budget import Recipe
from clipdeploy.calibration.candidates.common import Answer, Yardstick
from clipdeploy.calibration.candidates.eight_bit import EightBitCandidates
from clipdeploy.calibration.candidates.linears import Ground, Linears, Placement
from clipdeploy.calibration.cpu import pixel_range, place_cpu, quantise_cpu, ranges_needed
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


class CpuCandidates(EightBitCandidates):
    """See `Candidates`.

    Args:
        linears: the graph, with its placement `for_cpu`.
        yardstick: what it is held against.
        method: the ranges to begin with.
        scratch: a folder for the graphs.
        name: of the graph's file.
    """

    def __init__(self, linears: Linears, yardstick: Yardstick, *, method: Method, scratch: Path, name: str) -> None:
        super().__init__(linears, yardstick, method=method, graph=scratch / name, alone=scratch / "alone.onnx")

    def answers(self) -> Answer:
        return Answer(self._graph, True)

    def notes(self) -> tuple[tuple[str, str], ...]:
        return ()

    def _make(self, ground: Ground, layers: Sequence[Layer], recipe: Recipe) -> None:
        self._quantise(ground, layers, recipe, self._graph)

    def _quantise(self, ground: Ground, layers: Sequence[Layer], recipe: Recipe, target: Path) -> None:
        ranges = ground.ranges(load_graph(ground.graph), layers, recipe.method or self._method)
        quantise_cpu(ground.graph, target, layers, ranges)
