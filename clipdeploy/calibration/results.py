"""What quantising a tower gave, as frozen records for reports and manifests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipdeploy.calibration.accuracy import Accuracy, Budget
from clipdeploy.calibration.budget import Recipe, Trial
from clipdeploy.calibration.records import LayerKind
from clipdeploy.spec import Precision, Target, Tower


@dataclass(frozen=True)
class LayerRow:
    """What became of one layer.

    Attributes:
        sensitivity: of its block: 1 - mean cosine with that block alone in the asked precision; None where no search
            had to measure it.
        precision: of its weights and its input.
        reason: why it is not the asked one.
    """

    layer: str
    kind: LayerKind
    block: str
    sensitivity: float | None
    precision: Precision
    reason: str


@dataclass(frozen=True)
class SampleNote:
    """The samples of a calibration.

    Attributes:
        count: how many there are.
        sha256: over them.
        calibrated: how many the ranges were taken from.
        measured: how many accuracy was measured with.
        held_out: how many of these took no part in the ranges.
        bank: what top-1 was asked of, for people, such as `120 labels`.
        coverage: figures of what they are.
        notes: what a user should know of them.
    """

    count: int
    sha256: str
    calibrated: int
    measured: int
    held_out: int
    bank: str
    coverage: dict[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TowerQuantised:
    """A tower's typed graph, and what it cost.

    Attributes:
        graph: the file.
        weights: the file beside it that holds the weights, None when they are inside.
        measured_as: how the accuracy was measured.
        layers: every product with constant weights.
        trials: all recipes that were built, the frontier: layers, size, accuracy.
        float32: nodes that stay float32 in a half graph, and why.
        size_before: of the float32 graph in bytes.
    """

    tower: Tower
    precision: Precision
    target: Target | None
    graph: Path
    weights: Path | None
    opset: int
    recipe: Recipe
    accuracy: Accuracy
    budget: Budget
    measured_as: str
    layers: tuple[LayerRow, ...]
    trials: tuple[Trial, ...]
    float32: tuple[tuple[str, str], ...]
    samples: SampleNote
    seconds: float
    size_before: int
    size_after: int

    @property
    def origin(self) -> str:
        """The recipe in a line, for the manifest."""
        done = sum(row.precision is self.precision for row in self.layers)
        parts = [f"{self.precision.value}", *([f"for {self.target}"] if self.target else []), str(self.recipe)]
        cosine = f"mean cosine {self.accuracy.cosine_mean:.5f} to fp32"
        return f"quantize: {', '.join(parts)}; {done} of {len(self.layers)} layers; {cosine}"
