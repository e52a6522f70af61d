"""How far a typed graph's answers are from the float32 graph's, and whether that is inside the budget."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipdeploy.calibration.split import Feeds
from clipdeploy.errors import InputError
from clipdeploy.progress import Progress, silent
from clipdeploy.runtime.ort import OrtSession
from clipdeploy.spec import Precision

Floats = NDArray[np.float32]

DECIDED = 0.002
"""Where the float32 graph's best two matches are closer than this cosine, either may come first."""


@dataclass(frozen=True)
class Budget:
    """What a precision may cost; all three hold, or it is missed.

    Attributes:
        cosine_mean: least mean cosine of a sample's embedding to the one of the float32 graph.
        cosine_min: least cosine of any sample.
        top1: least share of samples whose best match in the bank stays the same.
    """

    cosine_mean: float = 0.99
    cosine_min: float = 0.97
    top1: float = 0.99

    def __post_init__(self) -> None:
        if not all(0.0 <= value <= 1.0 for value in dataclasses.astuple(self)):
            raise InputError(f"impossible accuracy budget: {self}", fix="give numbers from 0 to 1")

    def __str__(self) -> str:
        return f"cosine >= {self.cosine_mean:g} on average and >= {self.cosine_min:g} always, top-1 >= {self.top1:.1%}"


def budget_of(precision: Precision) -> Budget:
    """What a precision may cost where nothing else is asked for."""
    if precision is Precision.FP16:
        return Budget(cosine_mean=0.9999, cosine_min=0.999)
    if precision is Precision.BF16:
        return Budget(cosine_mean=0.999, cosine_min=0.995)
    return Budget()


@dataclass(frozen=True)
class Accuracy:
    """What a graph's answers are worth beside the float32 graph's.

    Attributes:
        cosine_mean: over the samples; -1 counts for an embedding that is not finite.
        cosine_min: of the worst sample.
        top1: share of the decided samples with the same best match; 1.0 where none is decided.
        decided: how many samples the float32 graph matches with one by more than `DECIDED`.
        samples: how many were measured.
    """

    cosine_mean: float
    cosine_min: float
    top1: float
    decided: int
    samples: int

    def holds(self, budget: Budget) -> bool:
        """Whether all figures are inside `budget`."""
        return not self.missed(budget)

    def missed(self, budget: Budget) -> tuple[str, ...]:
        """What is outside `budget`, in words."""
        figures = (
            ("mean cosine", self.cosine_mean, budget.cosine_mean),
            ("least cosine", self.cosine_min, budget.cosine_min),
            ("top-1 agreement", self.top1, budget.top1),
        )
        return tuple(f"{name} {found:.4f} < {least:g}" for name, found, least in figures if not found >= least)


def embeddings(
    graph: Path, feeds: Feeds, *, fuse_qdq: bool, threads: int | None = None, progress: Progress = silent
) -> Floats:
    """What a graph answers, `(N, D)` float32.

    Args:
        graph: with one input.
        feeds: batches of it.
        fuse_qdq: let ONNX Runtime compute in integers; False computes Q/DQ as they are written, as for other engines.
        threads: of the engine.
        progress: told after every batch.
    """
    session = OrtSession(graph, threads=threads, fuse_qdq=fuse_qdq)
    rows: list[Floats] = []
    try:
        for feed in feeds:
            rows.append(session.run(feed[session.input.name]))
            progress("measuring accuracy", sum(map(len, rows)), feeds.count)
    finally:
        session.close()
    return np.concatenate(rows)


def compare(found: Floats, expected: Floats, bank: Floats | None = None) -> Accuracy:
    """Two sets of embeddings, sample by sample.

    Args:
        found: `(N, D)`, of length 1.
        expected: `(N, D)`, of length 1: the float32 graph's.
        bank: `(K, D)` embeddings of the other encoder to match with; None leaves top-1 out.
    """
    cosines = np.einsum("nd,nd->n", found, expected, dtype=np.float64)
    cosines = np.where(np.isfinite(cosines), np.minimum(cosines, 1.0), -1.0)  # float32 rounds past 1
    decided, same = 0, 0
    if bank is not None and len(bank) > 1:
        wanted, scores = expected @ bank.T, np.nan_to_num(found) @ bank.T
        second, first = np.sort(wanted, axis=1)[:, -2:].T
        sure = first - second > DECIDED
        decided, same = int(sure.sum()), int((scores.argmax(axis=1) == wanted.argmax(axis=1))[sure].sum())
    return Accuracy(
        cosine_mean=float(cosines.mean()),
        cosine_min=float(cosines.min()),
        top1=same / decided if decided else 1.0,
        decided=decided,
        samples=len(found),
    )
