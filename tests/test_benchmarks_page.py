"""docs/benchmarks.md, its plots, and the tables of README.md say what bench/results says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

pytest.importorskip("torch", reason="the benchmarks compare with PyTorch")

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"


def test_the_pages_are_written_from_the_results() -> None:
    from bench.page import written

    for path, text in written().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} differs: run python -m bench.page"


def test_no_plot_is_left_over() -> None:
    from bench.page import IMAGES, written

    assert set(IMAGES.glob("bench-*.svg")) == {path for path in written() if path.suffix == ".svg"}


def test_results_hold_no_place_of_a_machine() -> None:
    for path in RESULTS.glob("*.json"):
        found = re.findall(r'"[^"]*?(?:/(?:home|root|tmp|work|Users|mnt|var)/|[A-Z]:\\)[^"]*"', path.read_text("utf-8"))
        assert not found, (path.name, found)


def test_every_result_is_in_the_list_of_commands() -> None:
    told = (ROOT / "bench" / "README.md").read_text(encoding="utf-8")
    for path in RESULTS.glob("*.json"):
        assert f"`{path.name}`" in told, path.name
    for command in re.findall(r"`bench\.(\w+)`", told):
        module = ROOT / "bench" / command
        assert module.with_suffix(".py").is_file() or (module / "__main__.py").is_file(), command


def test_contents_lead_to_sections() -> None:
    from bench.page import page

    text = page()
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line[3:].lower()).replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("## ")
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings


CURVE = {
    "model": "ViT-B-32",
    "pairs": {
        "onnxruntime fp32": [
            {"name": f"batch {n}", "x": float(n), "batch": n, "gflop": 8.8, "ms": 4.0 + 30.0 * n}
            | {"fastest_ms": 33.0 * n, "rounds_ms": [33.0 * n, 35.0 * n]}
            for n in (1, 2, 4)
        ]
    },
    "fits": {"onnxruntime fp32": {"worst": 0.0, "typical": 0.0, "fixed": 4.0, "slope": 30.0}},
    "probe_ms": [],
}
ENVIRONMENT = {
    "command": "python -m bench.curves",
    "date": "2026-01-31",
    "cpu": "a processor",
    "cpu_flags": ["avx2"],
    "cores": 2,
    "threads": 2,
    "load_1min": 0.5,
    "python": "3.11.7",
    "libraries": {"onnxruntime": "1.31.1"},
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder of results: those of the repository, with curves and a ceiling of round numbers."""
    for path in RESULTS.glob("*.json"):
        if path.stem not in ("curves", "ceiling"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    product = {"library": "PyTorch", "side": 2048, "threads": 2, "gflop_per_second": 150.0, "rounds": [140.0, 160.0]}
    ceiling = {
        "products": [{"precision": name, "fastest": most, **product} for name, most in PRODUCTS.items()],
        "copies": [{"threads": 2, "gb_per_second": 9.0, "fastest": 10.0}],
        "environment": {**ENVIRONMENT, "cpu": _cpu()},
    }
    (tmp_path / "ceiling.json").write_text(json.dumps(ceiling), encoding="utf-8")
    again = {"date": "2026-02-01", "figures": 3, "median": 0.02, "p90": 0.05, "most": 0.07}
    curves = {"curves": {"batch": CURVE}, "environment": ENVIRONMENT, "again": again}
    (tmp_path / "curves.json").write_text(json.dumps(curves), encoding="utf-8")
    return tmp_path


PRODUCTS = {"fp32": 200.0, "bf16": 1000.0, "int8": 2000.0}


def _cpu() -> str:
    return str(json.loads((RESULTS / "runtime.json").read_text("utf-8"))["environment"]["cpu"])


def test_a_section_tells_command_day_machine_and_how_much_two_runs_differ(results: Path) -> None:
    from bench.page import page

    text = page(results)
    section = text.split("## Cost by batch")[1].split("\n## ")[0]
    assert "`python -m bench.curves`, 2026-01-31, 2 threads, [machine " in section
    assert "Run twice: of 3 figures half differ by less than 2%, nine in ten by less than 5%, one by 7%." in section
    assert "a processor (avx2), 2 cores, Python 3.11.7; onnxruntime 1.31.1." in text.split("## Machines")[1]


def test_numbers_read_as_shares_of_the_ceiling(results: Path) -> None:
    from bench.ceiling import best, share
    from bench.page import page

    record = json.loads((results / "ceiling.json").read_text("utf-8"))
    assert best(record, "bf16")["fastest"] == 1000.0
    assert share(record, "fp32", gflop=10.0, ms=100.0) == pytest.approx(0.5)
    assert "share of the ceiling" in page(results)


def test_a_plot_is_a_picture_with_its_fit(results: Path) -> None:
    from bench.pages.curves import plots
    from bench.pages.section import Results

    (name, svg), *others = plots(Results(results)).items()
    assert name == "bench-batch.svg" and not others
    ElementTree.fromstring(svg)
    assert "4.0 + 30.00 ms a picture" in svg


def peers_record() -> dict[str, Any]:
    """Two of ours and two peers, one of which is smaller."""

    def row(peer: str, mode: str, ms: float, gate: str | None, *, ours: bool = False) -> dict[str, Any]:
        exact = {"images_least": 0.99, "texts_least": None, "gate": gate, "texts_gate": None}
        return {
            "peer": peer,
            "mode": mode,
            "ours": ours,
            "needs": None,
            "computes": "fp32",
            "memory": None,
            "folder_ms": [ms],
            "single_ms": [ms],
            "text_ms": [],
            "first_answer_s": [1.0],
            "exactness": exact,
        }

    rows = [
        row("clipdeploy[cpu]", "int8", 20.0, "few bits", ours=True),
        row("clipdeploy[cpu]", "fp32", 50.0, "float32", ours=True),
        row("peer", "eager", 100.0, "float32"),
        row("tiny", "int8", 10.0, None),
    ]
    sizes = {"clipdeploy[cpu]": 100_000_000, "peer": 900_000_000, "tiny": 8_000_000}
    return {
        "model": "ViT-B-32",
        "environment": ENVIRONMENT,
        "work": {"pictures": 32},
        "peers": [{"name": name, "installed_bytes": size} for name, size in sizes.items()],
        "runs": [{"rows": rows}],
    }


def test_readme_compares_and_says_where_a_peer_is_better(tmp_path: Path) -> None:
    from bench.pages.readme import readme_tables
    from bench.pages.section import Results

    record = peers_record()
    record["runs"][0]["rows"][2]["single_ms"] = [5.0]
    (tmp_path / "peers.json").write_text(json.dumps(record), encoding="utf-8")
    told = readme_tables(Results(tmp_path))
    lines = [line for line in told.splitlines() if line.startswith("| ")]
    assert lines[2].startswith("| **clipdeploy[cpu], int8** | few bits | 50.0 pictures/s |")
    assert lines[-1].startswith("| tiny, int8 | neither |")
    better = [line for line in told.splitlines() if line.startswith("- ")]
    assert better == [
        "- one JPEG, float32 gate: peer, eager, 5.0 ms; ours at best, clipdeploy[cpu], fp32, 50.0 ms.",
        "- one JPEG, few bits gate: peer, eager, 5.0 ms; ours at best, clipdeploy[cpu], int8, 20.0 ms.",
    ]


def test_readme_says_so_when_no_peer_is_better(tmp_path: Path) -> None:
    from bench.pages.readme import readme_tables
    from bench.pages.section import Results

    (tmp_path / "peers.json").write_text(json.dumps(peers_record()), encoding="utf-8")
    assert "No peer is better at any of these." in readme_tables(Results(tmp_path))


def test_the_table_of_precisions_is_written_from_its_result() -> None:
    from bench.precision_page import PAGE, with_table

    page = PAGE.read_text(encoding="utf-8")
    assert page == with_table(page), "run: python -m bench.precision_page"


def test_precisions_keep_what_they_promise_on_pairs_never_seen() -> None:
    from bench.precision_page import RESULT

    rows = json.loads(RESULT.read_text(encoding="utf-8"))["rows"]
    fp32 = {row["model"]: row["top1"] for row in rows if row["precision"] == "fp32"}
    allowed = {"fp32": 0.0, "fp16": 0.001, "bf16": 0.005, "int8": 0.01, "fp8": 0.01}
    for row in rows:
        assert fp32[row["model"]] - row["top1"] <= allowed[row["precision"]], row
