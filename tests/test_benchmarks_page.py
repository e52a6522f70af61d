"""docs/benchmarks.md and the tables of README.md say what bench/results says."""

from __future__ import annotations

import json

import pytest


def test_the_pages_are_written_from_the_results() -> None:
    pytest.importorskip("torch", reason="the benchmarks compare with PyTorch")
    from bench.page import PAGE, README, page, with_tables

    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m bench.page"
    readme = README.read_text(encoding="utf-8")
    assert readme == with_tables(readme), "run: python -m bench.page"


def test_the_table_of_precisions_is_written_from_its_result() -> None:
    pytest.importorskip("torch", reason="the benchmark exports the demo models")
    from bench.precision_page import PAGE, with_table

    page = PAGE.read_text(encoding="utf-8")
    assert page == with_table(page), "run: python -m bench.precision_page"


def test_precisions_keep_what_they_promise_on_pairs_never_seen() -> None:
    pytest.importorskip("torch", reason="the benchmark exports the demo models")
    from bench.precision_page import RESULT

    rows = json.loads(RESULT.read_text(encoding="utf-8"))["rows"]
    fp32 = {row["model"]: row["top1"] for row in rows if row["precision"] == "fp32"}
    allowed = {"fp32": 0.0, "fp16": 0.001, "bf16": 0.005, "int8": 0.01, "fp8": 0.01}
    for row in rows:
        assert fp32[row["model"]] - row["top1"] <= allowed[row["precision"]], row
