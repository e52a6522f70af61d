"""Write the table of docs/precision.md from bench/results/precision.json.

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
BEGIN, END = "<!-- written by python -m bench.precision_page -->\n", "<!-- end -->"


def with_table(page: str) -> str:
    """The page with its table as the result says."""
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    lines = [HEAD, ["---"] * len(HEAD), *precision_rows(result["rows"])]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    env, pictures = result["environment"], result["rows"][0]["pictures"]
    note = (
        f"{pictures} pictures; ONNX Runtime {env['libraries']['onnxruntime']}, {env['threads']} threads of a "
        f"{env['cpu']}; "
        "batch 1 is the median of interleaved runs, of graphs that ONNX Runtime is meant to run."
    )
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{table}\n\n{note}\n\n{END}{rest.split(END, 1)[1]}"


if __name__ == "__main__":
    write_text(PAGE, with_table(PAGE.read_text(encoding="utf-8")))
    print(f"written to {PAGE}")
