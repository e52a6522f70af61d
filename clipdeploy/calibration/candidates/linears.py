"""A float32 graph, its layers, what was measured of it, and its smoothed twin: the ground of all 8-bit candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx_ir as ir

from clipdeploy.calibration.half import tensors_to_measure
from clipdeploy.calibration.layers import find_layers
from clipdeploy.calibration.placement import Choice, place
from clipdeploy.calibration.ranges import collect
from clipdeploy.calibration.records import Layer, Range, Ranges
from clipdeploy.calibration.smooth import smooth, smoothable
from clipdeploy.calibration.split import Rows
from clipdeploy.calibration.statistics import Method, Statistics
from clipdeploy.errors import CalibrationError
from clipdeploy.graphs.files import load_graph, save_graph
from clipdeploy.memory import collect as give_memory_back
from clipdeploy.progress import Progress, silent
from clipdeploy.spec import Tower


@dataclass(frozen=True)
class Placement:
    """Which layers are quantised, and which ranges that takes.

    Attributes:
        place: from a graph and its layers.
        needed: names of the activations whose ranges some layers take.
        symmetric: the same reach on both sides of zero.
        known: ranges that need no measuring, by name of the activation.
    """

    place: Callable[[ir.Model, Sequence[Layer]], tuple[Choice, ...]]
    needed: Callable[[ir.Model, Sequence[Layer]], Sequence[str]]
    symmetric: bool = True
    known: Ranges = field(default_factory=dict)


def inputs_of(model: ir.Model, layers: Sequence[Layer]) -> tuple[str, ...]:
    """The activations that layers read."""
    return tuple(dict.fromkeys(layer.input for layer in layers))


FOR_TENSORRT = Placement(place, inputs_of)


@dataclass(frozen=True)
class Ground:
    """A float32 graph to quantise, and what its activations do.

    Attributes:
        graph: the file.
        statistics: of the inputs of its quantised layers, by histogram.
        maxima: greatest magnitude of every float tensor that decides about half precision.
        placement: whose ranges are asked for.
    """

    graph: Path
    statistics: Statistics
    maxima: dict[str, float]
    placement: Placement

    def ranges(self, model: ir.Model, layers: Sequence[Layer], method: Method) -> dict[str, Range]:
        """Those that these layers take."""
        known, symmetric = self.placement.known, self.placement.symmetric
        return {
            name: known[name] if name in known else self.statistics.range(name, method, symmetric=symmetric)
            for name in self.placement.needed(model, layers)
        }


class Linears:
    """The layers of a float32 graph; its activations are measured in one pass when they are first asked for.

    Args:
        source: the float32 graph.
        tower: which encoder it is.
        rows: calibration samples.
        placement: where 8 bits go.
        scratch: a folder for what is made on the way.
        threads: of the engine.
        progress: told of every part.

    Raises:
        CalibrationError: nothing in the graph can be quantised.
    """

    def __init__(
        self,
        source: Path,
        tower: Tower,
        rows: Rows,
        *,
        placement: Placement = FOR_TENSORRT,
        scratch: Path,
        threads: int | None = None,
        progress: Progress = silent,
    ) -> None:
        model = load_graph(source)
        self.source, self._rows, self._scratch, self._threads, self._progress = source, rows, scratch, threads, progress
        self._placement = placement
        self.choices = placement.place(model, find_layers(model, tower))
        self.layers = tuple(choice.layer for choice in self.choices if choice.quantise)
        if not self.layers:
            raise CalibrationError(
                f"{source.name} has no layer that can be quantised without harm", fix="use --precision fp16"
            )
        self._needed = [name for name in placement.needed(model, self.layers) if name not in placement.known]
        self.smoothable = smoothable(model, self.layers)
        self._plain: Ground | None = None
        self._smoothed: Ground | None = None

    def ground(self, *, smoothed: bool) -> Ground:
        """The graph as it is, or smoothed, with its measurements."""
        if self._plain is None:
            maxima = tensors_to_measure(self.source)
            statistics = self._collect(self.source, self._needed, self.smoothable, maxima)
            self._plain = Ground(self.source, statistics, statistics.maxima(), self._placement)
        if not smoothed:
            return self._plain
        if self._smoothed is None:
            self._smoothed = self._smooth(self._plain)
        return self._smoothed

    def _smooth(self, plain: Ground) -> Ground:
        model = load_graph(self.source)
        channels = smooth(
            model, self.layers, {name: plain.statistics.channel_abs_max(name) for name in self.smoothable}
        )
        graph = self._scratch / "smoothed.onnx"
        save_graph(model, graph)
        del model
        fresh = self._collect(graph, list(channels), (), ())
        statistics = Statistics(plain.statistics.samples, {**plain.statistics.observed, **fresh.observed})
        maxima = {**plain.maxima, **fresh.maxima()}
        return Ground(graph, statistics, maxima, self._placement)

    def _collect(
        self, graph: Path, tensors: Sequence[str], channels: Sequence[str], maxima: Sequence[str]
    ) -> Statistics:
        give_memory_back()
        return collect(
            graph,
            tensors,
            self._rows,
            channels=channels,
            maxima=[name for name in maxima if name not in tensors],
            total=self._rows.count,
            threads=self._threads,
            progress=self._progress,
        )
