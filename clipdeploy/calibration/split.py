"""Which samples take part in calibration, and which measure the accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Feed = Mapping[str, NDArray[Any]]

MEASURED = 128
"""Samples that accuracy is measured with, at most; a search runs a graph for each candidate on all of them."""

HELD_OUT_FROM = 64
"""With this many samples or more, a quarter of them takes no part in calibration and measures its result."""

SENSED = 24
"""Samples that the sensitivity of a block is measured with, at most."""


class Batches(Protocol):
    """A graph's inputs by name, batch by batch; may be gone through many times."""

    def __iter__(self) -> Iterator[Feed]: ...


class Feeds(Batches, Protocol):
    """Batches whose samples are counted."""

    @property
    def count(self) -> int: ...


@dataclass(frozen=True)
class Rows:
    """Some samples of batches, in their order.

    Attributes:
        batches: of all samples.
        picked: numbers of the samples, rising.
        size: samples a batch.
    """

    batches: Batches
    picked: tuple[int, ...]
    size: int = 8

    @property
    def count(self) -> int:
        """How many samples there are."""
        return len(self.picked)

    def __iter__(self) -> Iterator[Feed]:
        waiting: dict[str, list[NDArray[Any]]] = {}
        for name, row in self._single():
            waiting.setdefault(name, []).append(row)
            if len(waiting[name]) == self.size:
                yield {name: np.stack(waiting.pop(name))}
        for name, rows in waiting.items():
            yield {name: np.stack(rows)}

    def _single(self) -> Iterator[tuple[str, NDArray[Any]]]:
        wanted, start = set(self.picked), 0
        for batch in self.batches:
            ((name, values),) = batch.items()
            yield from ((name, values[i]) for i in range(len(values)) if start + i in wanted)
            start += len(values)
            if start > max(wanted, default=-1):
                return


@dataclass(frozen=True)
class Split:
    """Who calibrates and who measures.

    Attributes:
        calibrate: samples that ranges are taken from.
        measure: samples that accuracy is measured with; the held-out ones, and others up to `MEASURED`.
        sense: a few of those, for the sensitivity of blocks.
        held_out: how many of `measure` took no part in calibration.
    """

    calibrate: Rows
    measure: Rows
    sense: Rows
    held_out: int


def split(batches: Batches, count: int, *, size: int = 8) -> Split:
    """Split `count` samples evenly over their order."""
    held = _spread(range(count), min(count // 4, MEASURED)) if count >= HELD_OUT_FROM else []
    others = [i for i in range(count) if i not in set(held)]
    measure = sorted([*held, *_spread(others, min(len(others), MEASURED - len(held)))])

    def rows(picked: Sequence[int]) -> Rows:
        return Rows(batches, tuple(picked), size)

    sense = _spread(held or measure, min(SENSED, len(held or measure)))
    return Split(rows(others), rows(measure), rows(sense), len(held))


def _spread(numbers: Sequence[int], wanted: int) -> list[int]:
    """`wanted` of them at even distances."""
    return [numbers[(2 * i + 1) * len(numbers) // (2 * wanted)] for i in range(wanted)]
