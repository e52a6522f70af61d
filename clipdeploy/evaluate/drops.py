"""The worst drops: pictures that the reference has right and a pair has not, those first that fell furthest."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from clipdeploy.evaluate.metrics import Ranked, Rows
from clipdeploy.evaluate.records import Dataset, Drop
from clipdeploy.runtime.scores import probabilities
from clipdeploy.spec import ModelSpec

_Seen: TypeAlias = tuple[Ranked, Rows, Rows]
"""Of one pair: its answers to the pictures, (N, D) pictures, (M, D) texts."""

KEPT = 50
"""Drops of one pair that are kept, at most."""


def worst_drops(dataset: Dataset, spec: ModelSpec, before: _Seen, now: _Seen) -> tuple[Drop, ...]:
    """The drops of one pair, by how much the margin of the truth fell.

    Args:
        dataset: whose pictures were asked.
        spec: how the model makes probabilities of cosines.
        before, now: of the reference and of the pair.
    """
    was, is_ = before[0], now[0]
    rows = np.flatnonzero(was.right & ~is_.right)
    fell = was.margin[rows] - is_.margin[rows]
    return tuple(_drop(dataset, spec, int(row), before, now) for row in rows[np.argsort(-fell, kind="stable")][:KEPT])


def _drop(dataset: Dataset, spec: ModelSpec, row: int, before: _Seen, now: _Seen) -> Drop:
    was, is_ = before[0], now[0]
    truth, old, new = int(was.truth[row]), int(was.answer[row]), int(is_.answer[row])
    names = dataset.classes or dataset.captions
    chances = None
    if dataset.classes:
        earlier, later = _chances(spec, *before[1:], row), _chances(spec, *now[1:], row)
        chances = (float(earlier[old]), float(later[new]), float(later[truth]))
    return Drop(
        item=row,
        truth=truth,
        before=old,
        now=new,
        margin_before=float(was.margin[row]),
        margin_now=float(is_.margin[row]),
        name=dataset.items[row].name,
        words=(names[truth], names[old], names[new]),
        chances=chances,
    )


def _chances(spec: ModelSpec, images: Rows, texts: Rows, row: int) -> NDArray[np.float64]:
    """(M,) probabilities of one picture."""
    logits = spec.logit_scale * (images[row] @ texts.T) + spec.logit_bias
    chances: NDArray[np.float64] = probabilities(logits[None], spec.probability)[0]
    return chances
