"""Thresholds from pictures in which none of the labels is to be seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import ceil, inf, nextafter
from time import monotonic, time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import InputError
from clipdeploy.runtime.image import ImageLike, open_image
from clipdeploy.runtime.stream.decide.thresholds import Thresholds
from clipdeploy.runtime.stream.records import Frame

if TYPE_CHECKING:
    from clipdeploy.runtime.stream.answerer import Answerer

_AT_ONCE = 16
_MARGIN = 0.1  # of the spread of the negatives; wide, and a label stays while its likes are in view


def negatives_needed(false_alarms: float) -> int:
    """How many negatives it takes to tell a share of `false_alarms`: with fewer, not even their best is a bound."""
    return ceil(1.0 / false_alarms) - 1


def calibrate_thresholds(
    answerer: Answerer, negatives: Iterable[Frame | ImageLike], *, false_alarms: float = 0.01
) -> Thresholds:
    """Of each label a threshold that at most a share of `false_alarms` of the frames without it passes.

    With n negatives it is their ceil((n + 1) * (1 - false_alarms))-th smallest logit: a further frame of the same
    kind then passes with a chance of at most `false_alarms`, whatever the distribution. Frames of one scene resemble
    each other: a thousand of one minute tell less than a hundred of a hundred places.

    Args:
        answerer: the model and its labels.
        negatives: pictures as the camera sees them, with none of the labels in view; the more like them the better.
            Taken lazily.
        false_alarms: of a single frame, before smoothing and the time that a label must hold.

    Raises:
        InputError: too few negatives for such a share; says how many it takes.
        ImageError: one cannot be read; it is named.
    """
    if not 0 < false_alarms < 1:
        raise InputError(f"false_alarms must be a share between 0 and 1, got {false_alarms!r}", fix="pass 0.01 for 1 %")
    labels = tuple(answerer.labels)
    rows = [answerer.answer(batch) for batch in _batches(negatives)]
    if any(scores.labels != labels for scores in rows):
        raise InputError("the labels changed while thresholds were measured", fix="swap labels before or after")
    count, needed = sum(len(scores.logits) for scores in rows), negatives_needed(false_alarms)
    if count < needed:
        raise InputError(
            f"a share of {false_alarms:g} false alarms takes at least {needed} negatives, got {count}",
            fix=f"give {needed - count} more, or ask for a share of {ceil(1000 / (count + 1)) / 1000:g}",
        )
    logits = np.concatenate([scores.logits for scores in rows])  # (n, K)
    return Thresholds(
        labels=labels,
        values=tuple(_bound(logits, false_alarms).tolist()),
        margins=tuple((_MARGIN * logits.std(axis=0)).tolist()),
        false_alarms=false_alarms,
        negatives=count,
        **_origin(answerer),
    )


def _bound(logits: NDArray[np.float64], false_alarms: float) -> NDArray[np.float64]:
    """(n, K) -> (K,): the conformal quantile of each column."""
    count = len(logits)
    # a hair less, as (n + 1) * (1 - a) may come out just above the whole number that it is
    rank = ceil(nextafter((count + 1) * (1.0 - false_alarms), -inf) - 1e-9)
    ordered: NDArray[np.float64] = np.sort(logits, axis=0)
    bound: NDArray[np.float64] = ordered[max(rank, 1) - 1]
    return bound


def _origin(answerer: Answerer) -> dict[str, Any]:
    """What the answerer tells of its model."""
    return {name: getattr(answerer, name, None) for name in ("embedding_space", "templates", "precision")}


def _batches(negatives: Iterable[Frame | ImageLike]) -> Iterator[list[Frame]]:
    batch: list[Frame] = []
    for index, negative in enumerate(negatives):
        batch.append(negative if isinstance(negative, Frame) else _frame(negative, index))
        if len(batch) == _AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _frame(picture: ImageLike, index: int) -> Frame:
    pixels = np.ascontiguousarray(np.asarray(open_image(picture)))
    return Frame(pixels, "rgb", "negatives", index, monotonic(), time())
