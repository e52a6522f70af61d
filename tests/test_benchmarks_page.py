"""docs/benchmarks.md and the tables of README.md say what bench/results says."""

from __future__ import annotations

import pytest


def test_the_pages_are_written_from_the_results() -> None:
    pytest.importorskip("torch", reason="the benchmarks compare with PyTorch")
    from bench.page import PAGE, README, page, with_tables

    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m bench.page"
    readme = README.read_text(encoding="utf-8")
    assert readme == with_tables(readme), "run: python -m bench.page"
