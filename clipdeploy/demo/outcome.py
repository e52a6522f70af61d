"""What the demo made and found, as records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clipdeploy.pipeline import ExportOutcome


@dataclass(frozen=True)
class DemoAnswer:
    """A picture, what it shows, and what the bundle says."""

    path: Path
    truth: str
    label: str
    probability: float

    @property
    def right(self) -> bool:
        """Whether the answer is what the picture shows."""
        return self.label == self.truth


@dataclass(frozen=True)
class DemoSearch:
    """A sentence, and the pictures nearest to it with their cosines."""

    query: str
    paths: tuple[Path, ...]
    cosines: tuple[float, ...]


@dataclass(frozen=True)
class DemoOutcome:
    """What the demo made and found.

    Attributes:
        export: the export of the shipped checkpoint.
        labels: how many labels each picture was told from.
        page: a self-contained page that shows it all.
        classify_ms: per picture, from file to label.
    """

    export: ExportOutcome
    answers: tuple[DemoAnswer, ...]
    searches: tuple[DemoSearch, ...]
    labels: int
    page: Path
    classify_ms: float
    seconds: float

    @property
    def right(self) -> int:
        """How many answers are right."""
        return sum(answer.right for answer in self.answers)
