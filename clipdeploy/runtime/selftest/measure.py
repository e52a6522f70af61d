"""How far ours is from the reference: the arithmetic of self-test and parity ladder, in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Drift:
    """Ours against the reference's embeddings, a value a sample; NaN where ours is not finite.

    Attributes:
        max_abs: (N,) largest absolute difference.
        cosine: (N,) between ours and the reference's.
        norm: (N,) L2 norm of ours.
    """

    max_abs: Floats
    cosine: Floats
    norm: Floats


def drift(ours: NDArray[np.float32], reference: NDArray[np.float32]) -> Drift:
    """Compare (N, D) with (N, D)."""
    a, b = ours.astype(np.float64), reference.astype(np.float64)
    a[~np.isfinite(a).all(axis=1)] = np.nan
    norm = np.linalg.norm(a, axis=1)
    lengths = np.maximum(norm * np.linalg.norm(b, axis=1), 1e-300)  # a zero vector has cosine 0
    return Drift(max_abs=np.abs(a - b).max(axis=1), cosine=(a * b).sum(axis=1) / lengths, norm=norm)


def spread_kept(
    ours: NDArray[np.float32], reference: NDArray[np.float32], floor: float
) -> tuple[float, int, int] | None:
    """Of all pairs that the reference holds apart by an L2 distance of `floor` or more, the one that ours squeezes
    most: (share of its distance that is left, i, j). None where the reference holds no pair apart."""
    i, j = np.triu_indices(len(reference), k=1)
    theirs = np.linalg.norm(reference[i].astype(np.float64) - reference[j], axis=1)
    apart = theirs >= floor
    if not apart.any():
        return None
    i, j, theirs = i[apart], j[apart], theirs[apart]
    share = np.linalg.norm(ours[i].astype(np.float64) - ours[j], axis=1) / theirs
    worst = int(np.argmin(np.where(np.isfinite(share), share, -np.inf)))
    return float(share[worst]), int(i[worst]), int(j[worst])


def finite(value: float) -> float | None:
    """The value, or None where it is not finite."""
    value = float(value)
    return value if math.isfinite(value) else None


def worst_index(errors: Floats) -> int:
    """Where the error is largest; not finite is worse than any number."""
    return int(np.argmax(np.where(np.isfinite(errors), errors, np.inf)))
