"""Write the tables of docs/precision.md from bench/results/precision.json and int8_cpu.json.

    python -m bench.precision_page

A test fails when they differ.
"""

from __future__ import annotations

import json
from pathlib import Path

from bench.precision import HEAD, precision_rows
from clipdeploy.bundle import write_text

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "bench" / "results" / "precision.json"
PAGE = ROOT / "docs" / "precision.md"
INT8_CPU = ROOT / "bench" / "results" / "int8_cpu.json"
BEGIN, END = "<!-- written by python -m bench.precision_page -->\n", "<!-- end -->"


SPEED = "<!-- of bench/results/int8_cpu.json, written by python -m bench.precision_page -->\n"


def with_table(page: str) -> str:
    """The page with its tables as the results say."""
    return _between(_between(page, BEGIN, _accuracy()), SPEED, _speed())


def _accuracy() -> str:
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    env, pictures = result["environment"], result["rows"][0]["pictures"]
    note = (
        f"{pictures} pictures; ONNX Runtime {env['libraries']['onnxruntime']}, {env['threads']} threads of a "
        f"{env['cpu']}; "
        "batch 1 is the median of interleaved runs, of graphs that ONNX Runtime is meant to run."
    )
    return f"{_table([HEAD, *precision_rows(result['rows'])])}\n\n{note}"


def _speed() -> str:
    """Medians and fastest calls of one interleaved run; ratios are of like with like."""
    result = json.loads(INT8_CPU.read_text(encoding="utf-8"))
    heads = [f"batch {n}, {which}" for n in result["encode_ms"] for which in ("median", "fastest")]
    env, rows = result["environment"], [["image tower", *heads, "file"]]
    sizes = {f"clipdeploy {name.replace('int8', 'int8, cpu')}": n for name, n in result["image_tower_bytes"].items()}
    for name in next(iter(result["encode_ms"].values())):
        cells = []
        for timings in result["encode_ms"].values():
            for which in ("median_ms", "fastest_ms"):
                taken, eager = timings[name][which], timings["PyTorch eager fp32"][which]
                cells.append(f"{taken:.1f} ms, {eager / taken:.2f}x")
        rows.append([name, *cells, f"{sizes[name] / 1e6:.1f} MB" if name in sizes else ""])
    note = (
        f"{result['model']}, random weights, {env['threads']} thread(s) of a {env['cpu']}, ONNX Runtime "
        f"{env['libraries']['onnxruntime']}, torch {env['libraries']['torch']}; one interleaved run, and how "
        f"many times PyTorch's speed that is. The load of the machine was {env['load_1min']:.1f} when it began."
    )
    return f"{_table(rows)}\n\n{note}"


def _table(rows: list[list[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _between(page: str, begin: str, content: str) -> str:
    before, rest = page.split(begin)
    return f"{before}{begin}\n{content}\n\n{END}{rest.split(END, 1)[1]}"


if __name__ == "__main__":
    write_text(PAGE, with_table(PAGE.read_text(encoding="utf-8")))
    print(f"written to {PAGE}")
