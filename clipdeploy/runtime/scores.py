"""Logits to probabilities, and the answer of a zero-shot classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import InputError


@dataclass(frozen=True)
class Classification:
    """How well labels fit one picture, best first.

    Attributes:
        labels: as given to `classify`; all of them, or the `top` best.
        probabilities: of those labels among all that were given; with a sigmoid each stands for itself and they
            need not sum to one.
        logits: `logit_scale * cosine + logit_bias` of those labels.
    """

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    logits: tuple[float, ...]

    @property
    def label(self) -> str:
        """The label that fits best."""
        return self.labels[0]

    @property
    def probability(self) -> float:
        """The probability of the label that fits best."""
        return self.probabilities[0]


def probabilities(logits: NDArray[np.floating], kind: Literal["softmax", "sigmoid"]) -> NDArray[np.float64]:
    """`(N, K)` logits -> `(N, K)` float64 probabilities; no logit, however large, overflows."""
    logits = np.asarray(logits, dtype=np.float64)
    if kind == "sigmoid":
        small = np.exp(-np.abs(logits))  # never above 1
        sigmoid: NDArray[np.float64] = np.where(logits >= 0, 1.0, small) / (1.0 + small)
        return sigmoid
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    softmax: NDArray[np.float64] = shifted / shifted.sum(axis=-1, keepdims=True)
    return softmax


def rank(labels: Sequence[str], logits: NDArray[np.floating], chances: NDArray[np.float64], top: int) -> Classification:
    """The `top` best of K labels of one picture, from its `(K,)` logits and probabilities; ties keep their order."""
    best = np.argsort(-logits, kind="stable")[:top]
    return Classification(
        labels=tuple([labels[i] for i in best.tolist()]),
        probabilities=tuple(chances[best].tolist()),
        logits=tuple(logits[best].tolist()),
    )


def unit(vectors: NDArray[Any], columns: int) -> NDArray[np.float32]:
    """(N, columns) of any float type -> float32, L2-normalised; raises InputError for what is no embeddings."""
    if vectors.ndim != 2 or vectors.shape[1] != columns or vectors.dtype.kind != "f":
        raise InputError(
            f"embeddings must be floats of shape (N, {columns}), got {vectors.dtype} {vectors.shape}",
            fix="pass what encode_image or encode_text of the same bundle returned",
        )
    wide: NDArray[np.float64] = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and lengths.all()):
        raise InputError("embeddings must be finite and not zero")
    normalised: NDArray[np.float32] = (wide / lengths).astype(np.float32)
    return normalised
