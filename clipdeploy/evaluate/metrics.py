"""Figures of answers, as CLIP_benchmark 1.6.2 computes them, from ranks: in blocks, however large the data.

A rank says how many keys come before the right one. Of equal scores the key of the lower index comes first, which is
numpy's and PyTorch's `argmax`; `torch.topk`, which CLIP_benchmark takes, promises no order among them. A score that is
not a number comes first of all, as it does for `torch.topk`, so that broken embeddings are never right.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipdeploy.evaluate.records import Confusion

Rows = NDArray[np.float32]
Bools = NDArray[np.bool_]

RECALL_AT = (1, 5, 10)
_SCORES_AT_ONCE = 1 << 22  # 16 MB of float32
_Z_95 = 1.959963984540054  # of the normal distribution, two-sided 95 %
_DRAWS = 10_000


@dataclass(frozen=True, eq=False)
class Ranked:
    """N queries, each beside all M keys.

    Attributes:
        rank: (N,) int64, how many keys come before the best of its own; M where scores are not numbers.
        answer: (N,) int64, the key that comes first.
        truth: (N,) int64, the best of its own keys.
        margin: (N,) float32, score of that less the best of the others; less -1 where there are none.
        keys: M.
    """

    rank: NDArray[np.int64]
    answer: NDArray[np.int64]
    truth: NDArray[np.int64]
    margin: NDArray[np.float32]
    keys: int

    @property
    def right(self) -> Bools:
        """(N,) whether the first key is one of its own."""
        return self.within(1)

    def within(self, k: int) -> Bools:
        """(N,) whether one of its own is among the first k."""
        found: Bools = self.rank < min(k, self.keys)
        return found

    def take(self, rows: NDArray[np.int64] | Bools) -> Ranked:
        """Some of the queries."""
        return Ranked(self.rank[rows], self.answer[rows], self.truth[rows], self.margin[rows], self.keys)


def rank(queries: Rows, keys: Rows, own: Sequence[Sequence[int]]) -> Ranked:
    """Where the right keys of each query come.

    Args:
        queries: (N, D) float32, L2-normalised.
        keys: (M, D) float32, L2-normalised.
        own: of each query the keys that are right, one at least.
    """
    count = len(queries)
    places, answers, truths = (np.empty(count, np.int64) for _ in range(3))
    margins = np.empty(count, np.float32)
    padded = _padded(own)  # (N, most) indices, -1 behind the last
    index = np.arange(len(keys))
    for rows, scores in score_blocks(queries, keys):
        mine = padded[rows]
        its = np.where(mine >= 0, np.take_along_axis(scores, mine, axis=1), -np.inf)
        truth = np.take_along_axis(mine, its.argmax(axis=1)[:, None], axis=1)
        best = np.take_along_axis(scores, truth, axis=1)
        before = ~(scores <= best)  # not `>`: a score that is not a number comes first
        same = scores == best
        if np.count_nonzero(same) > len(same):  # each is the same as itself
            before |= same & (index < truth)
        places[rows], truths[rows] = before.sum(axis=1), truth[:, 0]
        answers[rows] = scores.argmax(axis=1)
        np.put_along_axis(scores, np.where(mine >= 0, mine, mine[:, :1]), -np.inf, axis=1)
        others = scores.max(axis=1)
        margins[rows] = best[:, 0] - np.where(np.isneginf(others), np.float32(-1), others)
    return Ranked(places, answers, truths, margins, len(keys))


def score_blocks(queries: Rows, keys: Rows) -> Iterator[tuple[slice, Rows]]:
    """Cosines in blocks of queries that fit into memory: rows, and (n, M) float32 that may be written to."""
    step = max(1, _SCORES_AT_ONCE // max(1, len(keys)))
    for first in range(0, len(queries), step):
        rows = slice(first, min(first + step, len(queries)))
        yield rows, queries[rows] @ keys.T


def classification(pictures: Ranked) -> dict[str, float]:
    """`acc1`, `acc5` and `mean_per_class_recall` of pictures beside classes.

    `acc5` is left out below 5 classes, where CLIP_benchmark writes NaN. The mean goes over classes with pictures, as
    scikit-learn's `balanced_accuracy_score` takes it.
    """
    figures = {"acc1": _share(pictures.within(1))}
    if pictures.keys >= 5:
        figures["acc5"] = _share(pictures.within(5))
    recalls = [recall for recall in per_class_recall(pictures) if recall is not None]
    return {**figures, "mean_per_class_recall": math.fsum(recalls) / len(recalls)}


def per_class_recall(pictures: Ranked) -> tuple[float | None, ...]:
    """Of each class the share of its pictures that were answered right; None for a class without any."""
    total = np.bincount(pictures.truth, minlength=pictures.keys)
    right = np.bincount(pictures.truth[pictures.right], minlength=pictures.keys)
    return tuple(int(good) / int(all_) if all_ else None for good, all_ in zip(right, total, strict=True))


def confusions(pictures: Ranked, *, most: int = 20) -> tuple[Confusion, ...]:
    """Which classes were taken for which, the most frequent first; of equal ones the lower indices."""
    wrong = ~pictures.right
    pairs, counts = np.unique(pictures.truth[wrong] * pictures.keys + pictures.answer[wrong], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return tuple(Confusion(*divmod(int(pairs[place]), pictures.keys), int(counts[place])) for place in order)


def retrieval(pictures: Ranked, captions: Ranked) -> dict[str, float]:
    """`image_retrieval_recall@K` and `text_retrieval_recall@K` for 1, 5 and 10.

    Args:
        pictures: beside all captions; found when one of its own is among the first K.
        captions: beside all pictures.
    """
    figures: dict[str, float] = {}
    for k in RECALL_AT:
        figures[f"image_retrieval_recall@{k}"] = _share(captions.within(k))
        figures[f"text_retrieval_recall@{k}"] = _share(pictures.within(k))
    return figures


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share, by Wilson (1927); it stays within 0 and 1, and is fair near both."""
    if count < 1:
        return (0.0, 1.0)
    share, spread = right / count, _Z_95**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = _Z_95 * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return (max(middle - half, 0.0), min(middle + half, 1.0))


def paired_bootstrap(before: Bools, now: Bools, *, seed: int = 0, draws: int = _DRAWS) -> tuple[float, float]:
    """The 95 % interval of `share of now - share of before` over resampled pictures, the same for both.

    Args:
        before, now: (N,) whether each picture was right.
        seed: of the draws.
        draws: how many resamples.
    """
    if not len(before):
        return (0.0, 0.0)
    lost, _, won = resampled_shares(before, now, np.random.default_rng(seed), draws)
    return interval(won - lost)


def resampled_shares(
    before: Bools, now: Bools, random: np.random.Generator, draws: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Shares of pictures right only before, both times, and only now, in each of `draws` resamples: (draws,) each.

    Pictures of one kind are alike, so how many of each kind a resample holds says it all: one multinomial draw.
    """
    kinds = np.array([(before & ~now).sum(), (before & now).sum(), (~before & now).sum(), (~before & ~now).sum()])
    drawn = random.multinomial(len(before), kinds / len(before), size=draws) / len(before)
    return drawn[:, 0], drawn[:, 1], drawn[:, 2]


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of resampled values."""
    low, high = np.percentile(values, (2.5, 97.5))
    return (float(low), float(high))


def _share(found: Bools) -> float:
    return int(found.sum()) / len(found)


def _padded(own: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """(N, most) the keys of each query in ascending order, -1 behind the last."""
    counts = np.array([len(one) for one in own], np.int64)
    if not counts.all():
        raise ValueError("a query without a right key has no rank")
    padded = np.full((len(own), int(counts.max(initial=1))), -1, np.int64)
    flat = np.fromiter((key for one in own for key in sorted(one)), np.int64, int(counts.sum()))
    padded[np.arange(padded.shape[1]) < counts[:, None]] = flat
    return padded
