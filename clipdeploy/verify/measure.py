"""How far ours is from the reference: the arithmetic of the ladder, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import ParityError
from clipdeploy.spec import PixelSpec
from clipdeploy.verify.reference import batches

Floats = NDArray[np.float64]

ALONE = 16
"""Samples that are also run one at a time, at most."""


def normalise(crops: NDArray[np.uint8], spec: PixelSpec) -> NDArray[np.float32]:
    """(K, H, W, 3) uint8 -> (K, 3, H, W) float32: to 0..1, less the mean, over the std, in float32 at each step.

    The steps and their rounding are those of torchvision's ToTensor and Normalize. It is written apart from the
    runtime's, which it judges.
    """
    scaled = crops.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    mean = np.asarray(spec.mean, np.float32)[:, None, None]
    std = np.asarray(spec.std, np.float32)[:, None, None]
    return np.ascontiguousarray((scaled - mean) / std)


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


def run_batches(encode: Callable[[Any], Any], feeds: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.float32]:
    """`feeds` through `encode` in batches: (N, D) float32; raises ParityError for another shape or dtype."""
    return _checked(np.concatenate([np.asarray(encode(batch)) for batch in batches(feeds)]), shape)


def run_alone(
    encode: Callable[[Any], Any], feeds: NDArray[Any], picks: NDArray[np.intp], dim: int
) -> NDArray[np.float32]:
    """The samples `picks` of `feeds` through `encode`, each in a batch of one: (len(picks), D) float32."""
    rows = [np.asarray(encode(feeds[i : i + 1])) for i in picks]
    return _checked(np.concatenate(rows), (len(picks), dim))


def picks_alone(count: int) -> NDArray[np.intp]:
    """Indices of the samples to run one at a time, spread over all."""
    return np.unique(np.linspace(0, count - 1, min(count, ALONE)).round().astype(np.intp))


def _checked(embeds: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.float32]:
    if embeds.shape != shape or embeds.dtype != np.float32:
        raise ParityError(
            f"the tower gives {embeds.shape} {embeds.dtype}, expected {shape} float32",
            fix="export the checkpoint again: this graph belongs to another model or lost its batch axis",
        )
    return embeds


def finite(value: float) -> float | None:
    """The value, or None where it is not finite."""
    value = float(value)
    return value if math.isfinite(value) else None


def worst_index(errors: Floats) -> int:
    """Where the error is largest; not finite is worse than any number."""
    return int(np.argmax(np.where(np.isfinite(errors), errors, np.inf)))
