"""Texts without what stands behind their end: most have some 10 tokens of the 77 that a CLIP reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.runtime.session import Embeddings, Session, check_shape
from clipdeploy.spec import LENGTH_AXIS, ModelSpec, TensorSpec, TokenSpec, Tower

STEP = 4
"""Lengths are rounded up to a multiple of it: engines prepare for each length that they meet, and keep it."""
WINDOW = 16
"""Batches of texts that are sorted by length together."""


@dataclass(frozen=True)
class FreeLength:
    """How a session runs texts that may be cut.

    Attributes:
        whole: what texts are before that, `(N, context_length)`.
        tokens: which place of a text is read.
    """

    whole: TensorSpec
    tokens: TokenSpec

    def run(self, session: Session, ids: NDArray[Any], size: int) -> Embeddings:
        """Texts of like length together, `size` at a time: (N, context_length) -> (N, D) float32, in their order.

        Raises:
            InputError: they are no ids of that shape.
            BackendError: the engine failed.
        """
        check_shape(np.shape(ids), self.whole)
        needed = read_up_to(ids, self.tokens)
        order = np.argsort(needed, kind="stable")
        embeds = np.empty((len(ids), *(int(axis) for axis in session.output.shape[1:])), np.float32)
        for start in range(0, len(ids), size):
            rows = order[start : start + size]
            embeds[rows] = session.run(ids[rows, : rounded(int(needed[rows[-1]]))])
        return embeds


def free_length(session: Session, model: ModelSpec, encoder: object) -> FreeLength | None:
    """How a session runs texts that may be cut; None where it takes them whole, or takes none."""
    if encoder is not Tower.TEXT or not (model.text.any_length and LENGTH_AXIS in session.input.shape):
        return None
    given = session.input
    return FreeLength(TensorSpec(given.name, given.dtype, (given.shape[0], model.tokens.context_length)), model.tokens)


def read_up_to(ids: NDArray[Any], tokens: TokenSpec) -> NDArray[np.intp]:
    """How many ids of each text its embedding depends on: `(N, L)` -> `(N,)`, those up to the place that is read."""
    marks = ids == tokens.end_id if tokens.pooling == "eot_first" else ids
    places: NDArray[np.intp] = marks.argmax(axis=1) + 1
    return places


def cut(ids: NDArray[Any], tokens: TokenSpec) -> NDArray[Any]:
    """A batch of texts up to what is read of the longest, rounded up: `(N, L)` -> `(N, l)`."""
    return ids[:, : rounded(int(read_up_to(ids, tokens).max()))]


def rounded(length: int) -> int:
    """The next multiple of `STEP`."""
    return -(-length // STEP) * STEP
