"""A part of a dataset: the pictures that could be read, or a number of them from all over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from clipdeploy.errors import InputError
from clipdeploy.evaluate.records import Dataset


def subset(dataset: Dataset, rows: Sequence[int]) -> Dataset:
    """Some of its pictures; captions of the others go with them, and are numbered anew. Classes stay all.

    Args:
        dataset: the whole.
        rows: places of the pictures that stay, in their new order.
    """
    items = [dataset.items[row] for row in rows]
    captions = sorted({index for item in items for index in item.captions})
    place = {index: new for new, index in enumerate(captions)}
    return replace(
        dataset,
        items=[replace(item, captions=tuple(place[index] for index in item.captions)) for item in items],
        captions=tuple(dataset.captions[index] for index in captions),
    )


def limited(dataset: Dataset, limit: int | None) -> Dataset:
    """At most `limit` pictures, spread evenly over the dataset; all for None, or where there are fewer.

    Raises:
        InputError: less than 1.
    """
    if limit is None or limit >= (total := len(dataset.items)):
        return dataset
    if limit < 1:
        raise InputError(f"{limit} pictures were asked for", fix="ask for 1 or more: --limit 1000")
    part = subset(dataset, [place * total // limit for place in range(limit)])
    return replace(part, notes=(*part.notes, f"{limit} of {total} pictures were taken, spread evenly over them"))
