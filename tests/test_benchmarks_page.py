"""docs/benchmarks.md says what bench/results says."""

from __future__ import annotations

import pytest


def test_the_page_is_written_from_the_results() -> None:
    pytest.importorskip("torch", reason="the benchmarks compare with PyTorch")
    from bench.page import PAGE, page

    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m bench.page"
