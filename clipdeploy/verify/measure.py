"""What the ladder feeds to an encoder, and how: pixels made apart from the runtime, batches, and samples alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import ParityError
from clipdeploy.spec import PixelSpec
from clipdeploy.verify.reference import batches

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
