"""What the machine can do at most, and how much of that each runtime reaches."""

from __future__ import annotations

from typing import Any

from bench.ceiling import report, share
from bench.common import table
from bench.pages.section import Results, Section, block

_ABOUT = """`python -m bench.ceiling`: the fastest large matrix product that PyTorch, ONNX Runtime or OpenVINO reaches
here at each precision, and copying memory. A machine that is shared is only ever slower than it can be, so the
fastest call counts; the median tells how much of it is there on a usual moment."""

_SHARES = """The same as a share: a picture of {model} takes {gflop:.2f} GFLOP in matrix products, and the time is
that of [the encoder alone](#the-runtime-on-a-processor), by its fastest call, since the ceiling is one too. The rest
goes to attention's small products, normalisation, softmax, and waiting for memory; 8 bits hold what is quantised, all
else is computed wider. More than 100% says that the machine was faster while the encoder ran than while its ceiling was
measured."""


def ceiling_section(results: Results) -> list[Section]:
    """The section, when the ceiling was measured."""
    record = results.get("ceiling")
    if record is None:
        return []
    parts = [_ABOUT, results.measured(record), block(report(record))]
    runtime, gflop = results.get("runtime"), gflop_of_a_picture(results)
    if runtime and gflop and runtime["environment"]["cpu"] == record["environment"]["cpu"]:
        parts += [_SHARES.format(model=runtime["model"], gflop=gflop), block(shares_table(record, runtime, gflop))]
    return [Section("The ceiling of the machine", tuple(parts))]


def gflop_of_a_picture(results: Results) -> float | None:
    """Matrix products of one picture of the model that bench.runtime measures."""
    latency = results.get("latency")
    return latency["ceiling"]["gflop_per_picture"] if latency else None


def shares_table(ceiling: dict[str, Any], runtime: dict[str, Any], gflop: float) -> str:
    """Of the ceiling at its precision, what each candidate reaches at each batch."""
    batches = runtime["batches"]
    rows = []
    for name in dict.fromkeys(name for row in batches.values() for name in row["encode_ms"]):
        precision = precision_of(name)
        cells = [
            f"{share(ceiling, precision, gflop * int(batch), row['encode_ms'][name]['fastest_ms']):.0%}"
            if name in row["encode_ms"]
            else ""
            for batch, row in batches.items()
        ]
        rows.append((name, precision, *cells))
    return table(("share of the ceiling", "at", *(f"batch {batch}" for batch in batches)), rows)


def precision_of(name: str) -> str:
    """What a candidate of bench.runtime computes its products in."""
    if "default hint" in name:
        return "bf16"  # what OpenVINO takes where the processor has it
    return next(precision for precision in ("fp32", "bf16", "int8") if precision in name)
