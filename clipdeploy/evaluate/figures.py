"""Embeddings to the figures of one pair: its metrics, and what became of it beside the reference."""

from __future__ import annotations

from dataclasses import dataclass

from clipdeploy.evaluate.agreement import compare
from clipdeploy.evaluate.drops import worst_drops
from clipdeploy.evaluate.encode import Encoded
from clipdeploy.evaluate.groups import Groups, gap_between, group_figures
from clipdeploy.evaluate.limits import MAIN
from clipdeploy.evaluate.metrics import (
    Ranked,
    Rows,
    classification,
    confusions,
    per_class_recall,
    rank,
    retrieval,
)
from clipdeploy.evaluate.records import Dataset, Drop, PairFigures
from clipdeploy.spec import ModelSpec

_CONFUSIONS = 2000
"""Kept of one pair at most; all of them where there are few classes."""


@dataclass(frozen=True, eq=False)
class Answered:
    """What one pair made of a dataset.

    Attributes:
        encoded: its embeddings.
        ranked: its pictures beside the classes; or its pictures beside the captions, and these beside the pictures.
    """

    encoded: Encoded
    ranked: tuple[Ranked, ...]


def answer(dataset: Dataset, encoded: Encoded) -> Answered:
    """The questions that a dataset asks, answered by the highest cosine."""
    return Answered(encoded, rank_all(dataset, encoded.images, encoded.texts))


def rank_all(dataset: Dataset, images: Rows, texts: Rows) -> tuple[Ranked, ...]:
    """Of each picture its class; or of each picture its captions, and of each caption its pictures."""
    if dataset.task == "zeroshot_classification":
        return (rank(images, texts, [(item.truth,) for item in dataset.items]),)
    owners: list[list[int]] = [[] for _ in dataset.captions]
    for index, item in enumerate(dataset.items):
        for caption in item.captions:
            owners[caption].append(index)
    return (rank(images, texts, [item.captions for item in dataset.items]), rank(texts, images, owners))


def figures(
    dataset: Dataset, spec: ModelSpec, answered: Answered, *, reference: Answered | None, groups: Groups | None
) -> PairFigures:
    """The figures of a pair.

    Args:
        dataset: what was asked.
        spec: of the model.
        answered: by this pair.
        reference: by the pair to compare with; None for that pair itself.
        groups: of the pictures; None for none.
    """
    encoded, ranked = answered.encoded, answered.ranked
    classes = bool(dataset.classes)
    agreement, gap = None, None
    drops: tuple[Drop, ...] = ()
    if reference is not None:
        before = reference.encoded
        agreement = compare(before.name, reference.ranked, ranked, before.images, encoded.images)
        drops = worst_drops(
            dataset,
            spec,
            (reference.ranked[0], before.images, before.texts),
            (ranked[0], encoded.images, encoded.texts),
        )
        if groups is not None:
            gap = gap_between(groups, reference.ranked[0], ranked[0], MAIN[dataset.task][0])
    return PairFigures(
        backend=encoded.backend,
        precision=encoded.precision,
        reason=encoded.reason,
        metrics=classification(ranked[0]) if classes else retrieval(*ranked),
        per_class=per_class_recall(ranked[0]) if classes else (),
        confusions=confusions(ranked[0], most=_CONFUSIONS) if classes else (),
        agreement=agreement,
        drops=drops,
        groups=() if groups is None else group_figures(dataset, groups, ranked),
        gap=gap,
        seconds=encoded.seconds,
    )
