"""Write docs/benchmarks.md, and the tables of README.md, from the results kept in bench/results.

    python -m bench.page

A test fails when a page and the results differ.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.common import Timing
from bench.folder import report as folder_report
from bench.frames import report as frames_report
from bench.gpu import absent_text, gpu_table
from bench.graphs import Row, graphs_table
from bench.latency import BARE, OURS, PYTORCH, ceiling_text, encode_table, journey_table
from bench.runtime_page import best_of_ours, ratios_table, times_tables, verdicts
from bench.soak import GROWTH_AT_MOST, soak_table
from bench.stream_page import stream_parts
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


_RUNTIME = """## The runtime on a processor, {model}

`python -m bench.runtime`: `encode_pixels` of each backend and precision beside the engine that it stands on, called
without clipdeploy with the same graph, and beside PyTorch; {rounds} rounds, in which all take turns. `x eager` is how
many times PyTorch eager's speed, by the median of the rounds. Ratios below 1: ours is faster. This machine is shared,
and its speed in few bits falls to less than half for seconds at a time: a probe of bfloat16 products before and after
each turn tells. `at full speed` are the medians of the turns between two probes within a quarter of the best one, and
empty where there was none. `cosine` is the least to PyTorch's embeddings; INT8 costs random weights more than trained
ones ([precision.md](precision.md) has those)."""

_FOLDER = """## A folder of JPEGs to labels

`python -m bench.folder`: `classify_many` over a folder of 1080p JPEGs beside the usual open_clip script."""

_FRAMES = """## Frames in the graph

`python -m bench.frames`: raw camera frames to embeddings of {model} in float32, by Pillow and the encoder, and by the
frame graph and the encoder ([frames.md](frames.md)); {rounds} rounds, in which all take turns. Pillow has one thread,
as for any one picture; OpenCV makes RGB of nv12 for it. The ratio is of the two ways whole: below 1, frames in the
graph are faster."""

_SOAK = """## The runtime for a long time

`python -m bench.soak`: {threads} threads on one object make every kind of call, and each answer is compared bit for bit
with the one of a single thread; then they make {calls:,} calls after {warm_up:,} to warm up. Growth is the median
resident memory of the last tenth over that of the first, at most {most:.0%}; and of {reloads} openings and closings.
{model}, each backend and precision in a process of its own."""

_GPU = """## The runtime on a GPU

`python -m bench.gpu`: one command, which exports, quantises, builds engines and times PyTorch, ONNX Runtime and all
TensorRT backends that run on the machine, batch 1 to 256, beside the encoder's own matrix products alone."""

_NO_GPU = "No GPU has been measured yet; on a machine without one, `--dry-run` goes the same way with a tiny model."


def page(results: Path = RESULTS) -> str:
    """The whole page, from the records in `results`."""
    parts = [
        *_float32(results),
        *_runtime(results),
        *_folder(results),
        *_frames(results),
        *_soak(results),
        *stream_parts(results, machine=_machine, block=_block),
        *_gpu(results),
    ]
    return "\n\n".join(parts) + "\n"


def _runtime(results: Path) -> list[str]:
    record = json.loads((results / "runtime.json").read_text("utf-8"))
    rounds = max(row["rounds"] for row in record["batches"].values())
    return [
        _RUNTIME.format(model=record["model"], rounds=rounds),
        _machine(record),
        *(_block(text) for text in times_tables(record)),
        _block(ratios_table(record)),
        verdicts(record),
    ]


def _folder(results: Path) -> list[str]:
    if not (results / "folder.json").is_file():
        return []
    record = json.loads((results / "folder.json").read_text("utf-8"))
    return [_FOLDER, _machine(record), _block(folder_report(record))]


def _frames(results: Path) -> list[str]:
    if not (results / "frames.json").is_file():
        return []
    record = json.loads((results / "frames.json").read_text("utf-8"))
    return [_FRAMES.format(**record), _machine(record), _block(frames_report(record))]


def _soak(results: Path) -> list[str]:
    record = json.loads((results / "soak.json").read_text("utf-8"))
    asked = record["asked"]
    told = _SOAK.format(**asked, warm_up=asked["calls"] // 10, most=GROWTH_AT_MOST, model=record["model"])
    absent = [row for row in record["rows"] if "absent" in row]
    lines = [f"- Not run: {row['backend']}, {row['precision']}: {row['absent']}" for row in absent]
    return [told, _machine(record), _block(soak_table(record["rows"])), *(["\n".join(lines)] if lines else [])]


def _gpu(results: Path) -> list[str]:
    if not (results / "gpu.json").is_file():
        return [_GPU, _NO_GPU]
    record = json.loads((results / "gpu.json").read_text("utf-8"))
    return [_GPU, _machine(record), _block(gpu_table(record)), absent_text(record)]


def _float32(results: Path) -> tuple[str, ...]:
    graphs, latency = (json.loads((results / f"{name}.json").read_text("utf-8")) for name in ("graphs", "latency"))
    return (
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


_README = """{model} in float32 on {threads} cores of a server CPU, medians of interleaved runs:

| | PyTorch eager | bare ONNX Runtime | clipdeploy |
|---|---|---|---|
{encode}

| {model} | nodes, image | nodes, text | image, batch 8 | text, batch 8 |
|---|---|---|---|---|
{graphs}

At batch 8 float32 leaves little to win: PyTorch already reaches {share:.0%} of the speed that this machine has in one
large matrix product. Fewer bits are where the next factor lies ([docs/precision.md](docs/precision.md)). The fastest
backend and precision on the same machine, beside PyTorch eager in float32:

| `encode_image`, {runtime_model} | PyTorch eager | clipdeploy | |
|---|---|---|---|
{best}
"""


def readme_tables(results: Path = RESULTS) -> str:
    """What README.md shows of it."""
    graphs, latency, runtime = (
        json.loads((results / f"{name}.json").read_text("utf-8")) for name in ("graphs", "latency", "runtime")
    )
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
        runtime_model=runtime["model"],
        best="\n".join(_line(*cells) for cells in best_of_ours(runtime)),
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
        for name in ("torch", "open-clip-torch", "onnxruntime", "openvino", "onnxsim", "pillow")
        if name in env["libraries"]
    )
    threads = f"{env['threads']} threads of " if env["threads"] else ""
    flags = env.get("cpu_flags")
    has = f" ({', '.join(flags)})" if flags else ""
    load = f" Load of the machine in the last minute of the run: {env['load_1min']}." if flags else ""
    return f"{env['cpu']}{has}, {threads}{env['cores']} cores, Python {env['python']}; {libraries}.{load}"


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
