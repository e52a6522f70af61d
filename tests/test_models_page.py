"""docs/models.md says what bench/results/models.json says."""

from __future__ import annotations

from bench.models import FAMILIES, PAGE, RESULTS, merge, page


def test_the_page_is_written_from_the_results() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(RESULTS), "run: python -m bench.models --page"


def test_a_row_takes_the_place_of_an_older_one() -> None:
    first, second, third = (family.name for family in FAMILIES[:3])
    rows = merge([{"name": third}, {"name": first, "old": True}, {"name": "gone"}], {"name": first})
    assert rows == [{"name": first}, {"name": third}]
    assert [row["name"] for row in merge(rows, {"name": second})] == [first, second, third]
