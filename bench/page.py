"""Write docs/benchmarks.md, and the tables of README.md, from the results kept in bench/results.

    python -m bench.page

A test fails when a page and the results differ.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.common import Timing
from bench.graphs import Row, graphs_table
from bench.latency import BARE, OURS, PYTORCH, ceiling_text, encode_table, journey_table
from clipdeploy.bundle import write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
README = ROOT / "README.md"
BEGIN, END = "<!-- written by python -m bench.page -->\n", "<!-- end -->"


_HEAD = """# Benchmarks

Written by `python -m bench.page` from `bench/results/`; not edited by hand. `make bench` measures again, on the machine
it runs on. Candidates take turns in one run and have the same number of threads; the figures are medians. Weights are
random, which changes no time."""

_GRAPHS = """## Graphs of {model}

`python -m bench.graphs`: each encoder as torch's exporter leaves it, after onnxsim alone, and from clipdeploy. Opset
{opset}. `max abs` is the difference to PyTorch."""

_LATENCY = """## Latency of {model}

`python -m bench.latency`: `encode_image` on prepared pixels in float32. The bare session is ONNX Runtime on our graph,
called without clipdeploy."""

_JPEG = "One {width}x{height} JPEG of {size_bytes:,} bytes, from file to label; the usual open_clip script beside it:"


def page(results: Path = RESULTS) -> str:
    """The whole page, from `graphs.json` and `latency.json` in `results`."""
    graphs, latency = (json.loads((results / f"{name}.json").read_text("utf-8")) for name in ("graphs", "latency"))
    parts = (
        _HEAD,
        _GRAPHS.format(**graphs),
        _machine(graphs),
        _block(graphs_table([_row(row) for row in graphs["rows"]])),
        _LATENCY.format(**latency),
        _machine(latency),
        _block(encode_table({int(n): _timings(row) for n, row in latency["encode_ms"].items()})),
        ceiling_text(latency["ceiling"]),
        _JPEG.format(**latency["jpeg"]),
        _block(journey_table({stage: _timings(row) for stage, row in latency["jpeg_to_label_ms"].items()})),
    )
    return "\n\n".join(parts) + "\n"


_README = """{model} in float32 on {threads} cores of a server CPU, medians of interleaved runs:

| | PyTorch eager | bare ONNX Runtime | clipdeploy |
|---|---|---|---|
{encode}

| {model} | nodes, image | nodes, text | image, batch 8 | text, batch 8 |
|---|---|---|---|---|
{graphs}

At batch 8 float32 leaves little to win: PyTorch already reaches {share:.0%} of the speed that this machine has in one
large matrix product. INT8 is where the next factor lies: [docs/precision.md](docs/precision.md) has it measured.
"""


def readme_tables(results: Path = RESULTS) -> str:
    """What README.md shows of it."""
    graphs, latency = (json.loads((results / f"{name}.json").read_text("utf-8")) for name in ("graphs", "latency"))
    encode = {f"`encode_image`, batch {n}": row for n, row in latency["encode_ms"].items()}
    encode["1080p JPEG to label"] = latency["jpeg_to_label_ms"]["whole"]
    rows = {(row["tower"], row["graph"]): row for row in graphs["rows"]}
    kinds = dict.fromkeys(row["graph"] for row in graphs["rows"])
    ceiling, eager_ms = latency["ceiling"], latency["encode_ms"]["8"][PYTORCH]["median_ms"]
    return _README.format(
        model=latency["model"],
        threads=latency["environment"]["threads"],
        encode="\n".join(
            _line(name, *(_ms(row, peer) for peer in (PYTORCH, BARE, OURS))) for name, row in encode.items()
        ),
        graphs="\n".join(
            _line(
                kind,
                *(str(rows[tower, kind]["nodes"]) for tower in ("image", "text")),
                *(f"{rows[tower, kind]['latency_ms']['8']:.1f} ms" for tower in ("image", "text")),
            )
            for kind in kinds
        ),
        share=8 * ceiling["gflop_per_picture"] / eager_ms * 1e3 / ceiling["gflop_per_second"],
    )


def with_tables(readme: str) -> str:
    """README.md with its tables as the results say."""
    before, rest = readme.split(BEGIN)
    return before + BEGIN + "\n" + readme_tables() + "\n" + END + rest.split(END, 1)[1]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _ms(row: dict[str, dict[str, Any]], peer: str) -> str:
    return f"{row[peer]['median_ms']:.1f} ms" if peer in row else ""


def _machine(result: dict[str, Any]) -> str:
    env = result["environment"]
    libraries = ", ".join(
        f"{name} {env['libraries'][name]}"
        for name in ("torch", "open-clip-torch", "onnxruntime", "onnxsim", "pillow")
        if name in env["libraries"]
    )
    return f"{env['cpu']}, {env['threads']} threads of {env['cores']} cores, Python {env['python']}; {libraries}."


def _row(fields: dict[str, Any]) -> Row:
    for name in ("latency_ms", "fastest_ms"):
        fields = {**fields, name: {int(batch): value for batch, value in fields[name].items()}}
    return Row(**fields)


def _timings(row: dict[str, dict[str, Any]]) -> dict[str, Timing]:
    return {name: Timing(**fields) for name, fields in row.items()}


def _block(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```"


def main() -> None:
    """Write both."""
    write_text(PAGE, page())
    write_text(README, with_tables(README.read_text("utf-8")))
    print(f"written {PAGE.relative_to(ROOT)} and the tables of {README.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
