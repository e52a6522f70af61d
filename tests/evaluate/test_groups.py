"""Groups of pictures: which row means which, figures of each, and gaps that are shown only where they are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from clipdeploy.errors import InputError
from clipdeploy.evaluate.groups import SMALLEST, Groups, gap_between, group_figures, read_groups
from clipdeploy.evaluate.metrics import Ranked, classification, rank, retrieval, wilson
from clipdeploy.evaluate.records import Dataset, Item
from tests.evaluate.layouts import text

PICTURES = ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/3.png", "0.tar/s0001")


@pytest.mark.parametrize(
    ("row", "picture"),
    [
        ("cat/1.jpg", 0),
        ("2.jpg", 1),
        ("2", 1),
        ("dog/1", 2),
        ("dog/1.png", 2),
        ("/data/pets/dog/1.jpg", 2),
        ("pets\\dog\\1.jpg", 2),
        ("3.png", 3),
        ("s0001.jpg", 4),
        ("0.tar/s0001", 4),
    ],
)
def test_a_row_means_the_picture_whose_name_ends_so(tmp_path: Path, row: str, picture: int) -> None:
    found = read_groups(text(tmp_path / "g.csv", f"picture,group\n{row},north\n"), PICTURES)
    assert found.names == ("north",)
    assert np.flatnonzero(found.of == 0).tolist() == [picture]


def test_an_ending_decides_between_pictures_of_one_stem(tmp_path: Path) -> None:
    table = text(tmp_path / "g.csv", "picture,group\n1.png,north\n")
    assert read_groups(table, ("1.jpg", "1.png")).of.tolist() == [-1, 0]


def test_a_full_name_comes_before_an_ending(tmp_path: Path) -> None:
    table = text(tmp_path / "g.csv", "picture,group\n1.jpg,north\n")
    assert read_groups(table, ("deep/1.jpg", "1.jpg")).of.tolist() == [-1, 0]


def test_other_columns_order_and_empty_cells(tmp_path: Path) -> None:
    table = text(tmp_path / "g.csv", '\ufeffgroup,note,image\n"south, east",x,cat/1.jpg\nnorth,y,cat/2.jpg\n,z,3.png\n')
    found = read_groups(table, PICTURES)
    assert found.names == ("north", "south, east")
    assert found.of.tolist() == [1, 0, -1, -1, -1]


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    rows = ["cat/2.jpg,north", "cat/2.jpg,north", "1.jpg,south", "bird/9.jpg,south", "bird/2.jpg,south"]
    found = read_groups(text(tmp_path / "g.csv", "\n".join(["picture,group", *rows])), PICTURES)
    assert found.of.tolist() == [-1, 0, -1, -1, -1]
    assert found.notes == (
        "2 rows of g.csv name no picture that was evaluated: 'bird/9.jpg', 'bird/2.jpg'",
        "1 rows of g.csv name several pictures each and were left out: '1.jpg'",
        "4 pictures are in no group",
        f"1 groups have fewer than {SMALLEST} pictures and are not compared: 'north'",
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("cat/1.jpg,north\n", "begins with 'cat/1.jpg,north'; it needs columns picture and group"),
        ("picture,kind\ncat/1.jpg,x\n", "needs columns picture and group"),
        ("picture,group\ncat/1.jpg\n", "row 2 of .* has 1 fields"),
        ("picture,group\nx.jpg,north\n", "names no picture: 'x.jpg'; pictures are named as 'cat/1.jpg'"),
        ("picture,group\n1.jpg,north\n", "names that several pictures have: '1.jpg'"),
        ("picture,group\n2.jpg,north\ncat/2.jpg,south\n", "in two groups: 'north' and 'south'"),
    ],
)
def test_files_that_say_nothing(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_groups(text(tmp_path / "g.csv", content), PICTURES)
    assert caught.value.fix


def groups_of(sizes: Sequence[int]) -> Groups:
    of = np.repeat(np.arange(len(sizes)), sizes)
    return Groups(tuple("abcdef"[: len(sizes)]), of, ())


def answers(shares: Sequence[float], sizes: Sequence[int]) -> Ranked:
    """Of each group this share right, the others second."""
    right = np.concatenate([np.arange(size) < round(share * size) for share, size in zip(shares, sizes, strict=True)])
    zeros = np.zeros(len(right), np.int64)
    return Ranked((~right).astype(np.int64), zeros, zeros, zeros.astype(np.float32), 10)


SIZES = (200, 300, 400)


def test_no_gap_is_shown_where_nothing_changed() -> None:
    same = answers((0.9, 0.5, 0.7), SIZES)
    gap = gap_between(groups_of(SIZES), same, same, "acc1")
    assert gap is not None
    assert (gap.best, gap.worst, gap.metric, gap.verdict) == ("a", "b", "acc1", "no difference shown")
    assert gap.gap == gap.reference_gap == pytest.approx(0.4)
    assert (gap.widened_by, gap.interval) == (0.0, (0.0, 0.0))


@pytest.mark.parametrize(
    ("before", "now", "verdict"),
    [
        ((0.9, 0.7, 0.8), (0.9, 0.5, 0.8), "widens"),
        ((0.9, 0.5, 0.8), (0.9, 0.7, 0.8), "narrows"),
        ((0.9, 0.6, 0.8), (0.7, 0.4, 0.6), "no difference shown"),  # all lose alike
        ((0.9, 0.7, 0.8), (0.9, 0.695, 0.8), "no difference shown"),  # two pictures of 300
        ((0.9, 0.88, 0.89), (0.9, 0.88, 0.6), "widens"),  # a gap opens where there was none
    ],
)
def test_verdicts(before: tuple[float, ...], now: tuple[float, ...], verdict: str) -> None:
    gap = gap_between(groups_of(SIZES), answers(before, SIZES), answers(now, SIZES), "acc1")
    assert gap is not None
    assert gap.verdict == verdict
    assert gap.widened_by == pytest.approx(np.ptp(now) - np.ptp(before), abs=0.004)
    assert gap.interval[0] <= gap.widened_by <= gap.interval[1]
    assert gap == gap_between(groups_of(SIZES), answers(before, SIZES), answers(now, SIZES), "acc1")


def test_the_interval_is_that_of_resampled_pictures() -> None:
    """Beside a bootstrap that draws pictures one by one."""
    sizes = (60, 80)
    before, now = answers((0.9, 0.7), sizes), answers((0.85, 0.5), sizes)
    gap = gap_between(groups_of(sizes), before, now, "acc1")
    random = np.random.default_rng(7)
    values = []
    for _ in range(4000):
        drawn = [random.integers(low, low + size, size) for low, size in zip((0, 60), sizes, strict=True)]
        gaps = [np.ptp([side.right[rows].mean() for rows in drawn]) for side in (now, before)]
        values.append(gaps[0] - gaps[1])
    assert gap is not None
    assert gap.interval == pytest.approx(tuple(np.percentile(values, (2.5, 97.5))), abs=0.015)


def test_groups_that_are_too_small_are_not_compared() -> None:
    sizes = (SMALLEST, SMALLEST, SMALLEST - 1)
    gap = gap_between(groups_of(sizes), answers((0.9, 0.8, 0.0), sizes), answers((0.9, 0.8, 1.0), sizes), "acc1")
    assert gap is not None
    assert {gap.best, gap.worst} == {"a", "b"}
    small = (SMALLEST, SMALLEST - 1)
    assert gap_between(groups_of(small), answers((1, 1), small), answers((1, 1), small), "acc1") is None


def dataset(*captions: tuple[int, ...]) -> Dataset:
    count = sum(map(len, captions))
    items = [Item(str(row), lambda: b"", captions=own) for row, own in enumerate(captions)]
    return Dataset("x", "zeroshot_retrieval", "csv", items, captions=tuple(map(str, range(count))))


def test_figures_of_each_group_are_those_of_its_pictures_alone() -> None:
    random = np.random.default_rng(0)
    images, classes = (random.standard_normal((count, 6)).astype(np.float32) for count in (60, 7))
    truths = random.integers(0, 7, 60)
    ranked = rank(images, classes, [(int(truth),) for truth in truths])
    groups = Groups(("a", "b", "empty"), np.arange(60) % 3 - 1, ())
    found = group_figures(dataset(*[()] * 60), groups, (ranked,))
    assert [(figure.group, figure.count) for figure in found] == [("a", 20), ("b", 20)]
    for place, figure in enumerate(found):
        rows = np.flatnonzero(groups.of == place)
        own = rank(images[rows], classes, [(int(truths[row]),) for row in rows])
        assert figure.metrics == classification(own)
        assert figure.interval == wilson(int(own.right.sum()), 20)


def test_figures_of_retrieval_take_the_captions_along() -> None:
    random = np.random.default_rng(1)
    captions = [(2 * row, 2 * row + 1) for row in range(40)]
    images, texts = (random.standard_normal((count, 6)).astype(np.float32) for count in (40, 80))
    sides = (rank(images, texts, captions), rank(texts, images, [(row // 2,) for row in range(80)]))
    groups = Groups(("a", "b"), np.arange(40) // 20, ())
    found = group_figures(dataset(*captions), groups, sides)
    assert next(iter(found[0].metrics)) == "text_retrieval_recall@1"
    expected = retrieval(sides[0].take(np.arange(20, 40)), sides[1].take(np.arange(40, 80)))
    assert found[1].metrics == expected
    whole = retrieval(*sides)
    for name, value in whole.items():
        assert np.mean([figure.metrics[name] for figure in found]) == pytest.approx(value)
