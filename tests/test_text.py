"""Bars, tables and sizes."""

from __future__ import annotations

import io

import pytest

from clipdeploy.text import bar, encodable, one_line, pairs, plural, size, table, width


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [
        (0.0, "        "),
        (1.0, "████████"),
        (0.5, "████    "),
        (0.25 + 1 / 64, "██▏     "),
        (-1.0, " " * 8),
        (7.0, "█" * 8),
    ],
)
def test_bar(fraction: float, expected: str) -> None:
    assert bar(fraction, 8, unicode=True) == expected


def test_ascii_bar() -> None:
    assert bar(0.5, 8, unicode=False) == "####    "


def test_latin1_has_no_blocks() -> None:
    assert not encodable("█", io.TextIOWrapper(io.BytesIO(), encoding="latin-1"))
    assert encodable("█", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (3_540_000_000, "3.5 GB"),
    ],
)
def test_size(count: int, expected: str) -> None:
    assert size(count) == expected


def test_table_aligns_wide_characters() -> None:
    text = table(("a", "n"), [("猫", "1"), ("cat", "22")], right=(1,))
    assert text.splitlines() == ["a     n", "猫    1", "cat  22"]
    assert width("猫") == 2
    assert width("e\N{COMBINING ACUTE ACCENT}") == 1


def test_a_name_cannot_steer_the_terminal() -> None:
    assert one_line("a\x1b[2Jb\nc") == "a\\x1b[2Jb\\nc"
    assert one_line("b\udcffad") == "b\\udcffad"
    assert one_line("für Elise 猫") == "für Elise 猫"


def test_pairs_keep_their_column() -> None:
    assert pairs([("a", "1\n2"), ("long", "3")]).splitlines() == ["  a     1", "        2", "  long  3"]


def test_plural() -> None:
    assert (plural(1, "picture"), plural(0, "picture")) == ("1 picture", "0 pictures")
