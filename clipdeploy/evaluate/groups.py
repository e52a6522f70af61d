"""The same figures for each group of pictures, and whether groups lie further apart than under the reference."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import InputError
from clipdeploy.evaluate.data.found import listed, read_text
from clipdeploy.evaluate.metrics import Ranked, classification, interval, resampled_shares, retrieval, wilson
from clipdeploy.evaluate.records import Dataset, Gap, GroupFigures

SMALLEST = 20
"""Pictures below which a group's figures say too little to be compared."""

_DRAWS = 10_000
_PICTURE = ("picture", "image", "file", "filename", "file_name", "name", "path", "filepath")
_FIX = "write a header and a row for each picture: picture,group"


@dataclass(frozen=True, eq=False)
class Groups:
    """Which group each picture is of.

    Attributes:
        names: of the groups, sorted.
        of: (N,) int64, index of each picture's group; -1 for none.
        notes: rows that name no picture or several, pictures in no group, groups that are too small.
    """

    names: tuple[str, ...]
    of: NDArray[np.int64]
    notes: tuple[str, ...]

    def rows(self, group: int) -> NDArray[np.int64]:
        """Places of a group's pictures."""
        return np.flatnonzero(self.of == group)


def read_groups(path: Path, pictures: Sequence[str]) -> Groups:
    """A CSV file of `picture,group`, beside the pictures of a dataset.

    A row means the picture whose name ends as it does (`cat/1.jpg`, `1.jpg`), or else does so but for the file's
    ending (`1`).

    Args:
        path: the file.
        pictures: their names in the dataset.

    Raises:
        InputError: it cannot be read; no row names a picture; a picture is in two groups.
    """
    index = _Index(pictures)
    group_of: dict[int, str] = {}
    unknown: list[str] = []
    ambiguous: list[str] = []
    for name, group in _rows(path):
        found = index.find(name)
        if len(found) != 1:
            (ambiguous if found else unknown).append(name)
        elif group_of.setdefault(found[0], group) != group:
            raise InputError(
                f"{path} has picture {name} in two groups: {group_of[found[0]]!r} and {group!r}",
                fix="name each picture once; for several kinds of groups write a file each",
            )
    if not group_of:
        what = (
            f"names that several pictures have: {listed(ambiguous)}" if ambiguous else f"no picture: {listed(unknown)}"
        )
        raise InputError(
            f"{path} names {what}; pictures are named as {listed(pictures)}", fix="name them as the dataset does"
        )
    names = tuple(sorted(set(group_of.values())))
    of = np.full(len(pictures), -1, np.int64)
    for row, group in group_of.items():
        of[row] = names.index(group)
    return Groups(names, of, _notes(path, names, of, unknown, ambiguous))


def group_figures(dataset: Dataset, groups: Groups, ranked: Sequence[Ranked]) -> tuple[GroupFigures, ...]:
    """The figures of each group that has pictures.

    Args:
        dataset: whose pictures these are.
        groups: of its pictures.
        ranked: its pictures beside the classes; or its pictures beside the captions, and these beside the pictures.
            The first figure, which has the interval, is of pictures: `acc1`, or `text_retrieval_recall@1`.
    """
    made = []
    for group, name in enumerate(groups.names):
        rows = groups.rows(group)
        if not len(rows):
            continue
        pictures = ranked[0].take(rows)
        if len(ranked) == 1:
            metrics = classification(pictures)
        else:
            captions = np.array(sorted({caption for row in rows for caption in dataset.items[row].captions}), np.int64)
            every = retrieval(pictures, ranked[1].take(captions))
            metrics = dict(sorted(every.items(), key=lambda figure: figure[0].startswith("image")))
        made.append(GroupFigures(name, len(rows), metrics, wilson(int(pictures.right.sum()), len(rows))))
    return tuple(made)


def gap_between(
    groups: Groups, before: Ranked, now: Ranked, metric: str, *, seed: int = 0, draws: int = _DRAWS
) -> Gap | None:
    """How far the best and the worst group lie apart, beside the reference; None without two groups to compare.

    Each side's gap is that between its own best and worst group. Pictures are resampled within their groups, the same
    ones for both sides, and both gaps taken anew each time; so what the two sides share by chance is no difference.

    Args:
        groups: of the pictures; those below `SMALLEST` are left out.
        before, now: pictures beside the classes or captions, by the reference and by this pair.
        metric: what their first answers are called.
        seed, draws: of the resamples.
    """
    large = [group for group in range(len(groups.names)) if len(groups.rows(group)) >= SMALLEST]
    if len(large) < 2:
        return None
    random = np.random.default_rng(seed)
    was, is_ = (np.array([side.right[groups.rows(g)].mean() for g in large]) for side in (before, now))
    drawn = [resampled_shares(before.right[groups.rows(g)], now.right[groups.rows(g)], random, draws) for g in large]
    drawn_before = np.stack([lost + both for lost, both, _ in drawn])  # (groups, draws)
    drawn_now = np.stack([both + won for _, both, won in drawn])
    # Sums of the same counts may differ in their last bits.
    low, high = interval(np.round(np.ptp(drawn_now, axis=0) - np.ptp(drawn_before, axis=0), 12))
    gap, reference_gap = float(np.ptp(is_)), float(np.ptp(was))
    return Gap(
        metric=metric,
        best=groups.names[large[int(is_.argmax())]],
        worst=groups.names[large[int(is_.argmin())]],
        gap=gap,
        reference_gap=reference_gap,
        widened_by=gap - reference_gap,
        interval=(low, high),
        verdict="widens" if low > 0 else "narrows" if high < 0 else "no difference shown",
    )


class _Index:
    """Pictures by how their names end."""

    def __init__(self, pictures: Sequence[str]) -> None:
        self._parts = [PurePosixPath(name).parts for name in pictures]
        self._by_stem: dict[str, list[int]] = {}
        for row, parts in enumerate(self._parts):
            self._by_stem.setdefault(_stem(parts), []).append(row)

    def find(self, name: str) -> list[int]:
        """The pictures that a row may mean."""
        parts = PurePosixPath(name.replace("\\", "/")).parts
        near = [row for row in self._by_stem.get(_stem(parts), ()) if _ends_alike(self._parts[row][:-1], parts[:-1])]
        exact = [row for row in near if self._parts[row][-1] == parts[-1]]
        return [row for row in exact if self._parts[row] == parts] or exact or near


def _stem(parts: Sequence[str]) -> str:
    return PurePosixPath(parts[-1]).stem if parts else ""


def _ends_alike(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether the shorter of two paths is the end of the longer one."""
    shared = min(len(one), len(other))
    return not shared or one[-shared:] == other[-shared:]


def _rows(path: Path) -> list[tuple[str, str]]:
    """Pictures and groups; rows without a group are left out."""
    text = read_text(path, what="pictures and their groups")
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text)) if any(map(str.strip, row))]
    except csv.Error as error:
        raise InputError(f"{path} cannot be read: {error}", fix=_FIX) from error
    if not rows:
        raise InputError(f"{path} is empty", fix=_FIX)
    header = [cell.lower() for cell in rows[0]]
    picture = next((header.index(name) for name in _PICTURE if name in header), None)
    if picture is None or "group" not in header:
        raise InputError(f"{path} begins with {','.join(rows[0])[:80]!r}; it needs columns picture and group", fix=_FIX)
    group = header.index("group")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) <= max(picture, group):
            raise InputError(f"row {number} of {path} has {len(row)} fields: {','.join(row)[:80]!r}", fix=_FIX)
    return [(row[picture], row[group]) for row in rows[1:] if row[picture] and row[group]]


def _notes(
    path: Path, names: Sequence[str], of: NDArray[np.int64], unknown: Sequence[str], ambiguous: Sequence[str]
) -> tuple[str, ...]:
    counts = np.bincount(of[of >= 0], minlength=len(names))
    small = [name for name, count in zip(names, counts, strict=True) if count < SMALLEST]
    told = (
        (len(unknown), f"rows of {path.name} name no picture that was evaluated: {listed(unknown)}"),
        (len(ambiguous), f"rows of {path.name} name several pictures each and were left out: {listed(ambiguous)}"),
        (int((of < 0).sum()), "pictures are in no group"),
        (len(small), f"groups have fewer than {SMALLEST} pictures and are not compared: {listed(small)}"),
    )
    return tuple(f"{count} {what}" for count, what in told if count)
