"""The encoders by themselves: graphs, float32 beside a bare session, all backends and precisions, and on a GPU."""

from __future__ import annotations

from typing import Any

from bench.common import Timing
from bench.gpu import absent_text, gpu_table
from bench.graphs import Row, graphs_table
from bench.latency import ceiling_text, encode_table, journey_table
from bench.pages.runtime import ratios_table, times_tables, verdicts
from bench.pages.section import Results, Section, block

_GRAPHS = """`python -m bench.graphs`: each encoder of {model} as torch's exporter leaves it, after onnxsim alone, and
from clipdeploy. Opset {opset}. `max abs` is the difference to PyTorch."""

_LATENCY = """`python -m bench.latency`: `encode_image` of {model} on prepared pixels in float32. The bare session is
ONNX Runtime on our graph, called without clipdeploy."""

_JPEG = "One {width}x{height} JPEG of {size_bytes:,} bytes, from file to label; the usual open_clip script beside it:"

_RUNTIME = """`python -m bench.runtime`: `encode_pixels` of {model} by each backend and precision beside the engine
that it stands on, called without clipdeploy with the same graph, and beside PyTorch; {rounds} rounds, in which all
take turns. `x eager` is how many times PyTorch eager's speed, by the median of the rounds. Ratios below 1: ours is
faster. This machine is shared, and its speed in few bits falls to less than half for seconds at a time: a probe of
bfloat16 products before and after each turn tells. `at full speed` are the medians of the turns between two probes
within a quarter of the best one, and empty where there was none. `cosine` is the least to PyTorch's embeddings; INT8
costs random weights more than trained ones ([precision.md](precision.md) has those)."""

_GPU = """`python -m bench.gpu`: one command, which exports, quantises, builds engines and times PyTorch, ONNX Runtime
and all TensorRT backends that run on the machine, batch 1 to 256, beside the encoder's own matrix products alone."""

_NO_GPU = "No GPU has been measured yet; on a machine without one, `--dry-run` goes the same way with a tiny model."


def encoder_sections(results: Results) -> list[Section]:
    """Those of the records that are there."""
    return [*_runtime(results), *_latency(results), *_graphs(results)]


def gpu_section(results: Results) -> Section:
    """What was measured on a GPU, or that nothing was."""
    record = results.get("gpu")
    if record is None:
        return Section("On a GPU", (_GPU, _NO_GPU))
    return Section("On a GPU", (_GPU, results.measured(record), block(gpu_table(record)), absent_text(record)))


def _runtime(results: Results) -> list[Section]:
    record = results.get("runtime")
    if record is None:
        return []
    rounds = max(row["rounds"] for row in record["batches"].values())
    parts = (
        _RUNTIME.format(model=record["model"], rounds=rounds),
        results.measured(record),
        *(block(text) for text in times_tables(record)),
        block(ratios_table(record)),
        verdicts(record),
    )
    return [Section("The runtime on a processor", parts)]


def _latency(results: Results) -> list[Section]:
    record = results.get("latency")
    if record is None:
        return []
    parts = (
        _LATENCY.format(**record),
        results.measured(record),
        block(encode_table({int(batch): _timings(row) for batch, row in record["encode_ms"].items()})),
        ceiling_text(record["ceiling"]),
        _JPEG.format(**record["jpeg"]),
        block(journey_table({stage: _timings(row) for stage, row in record["jpeg_to_label_ms"].items()})),
    )
    return [Section("Float32, from file to label", parts)]


def _graphs(results: Results) -> list[Section]:
    record = results.get("graphs")
    if record is None:
        return []
    rows = block(graphs_table([_row(row) for row in record["rows"]]))
    return [Section("The graphs", (_GRAPHS.format(**record), results.measured(record), rows))]


def _row(fields: dict[str, Any]) -> Row:
    for name in ("latency_ms", "fastest_ms"):
        fields = {**fields, name: {int(batch): value for batch, value in fields[name].items()}}
    return Row(**fields)


def _timings(row: dict[str, dict[str, Any]]) -> dict[str, Timing]:
    return {name: Timing(**fields) for name, fields in row.items()}
