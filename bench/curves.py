"""What an embedding costs by batch, by picture size and by model size, with fitted slopes.

    python -m bench.curves [--curve batch image-size model-size] [--threads 2] [--rounds 5] [--json FILE]

The image encoder alone, in the runtime's own sessions, each compiled for the batch that it gets. All points of a curve
take turns in each round. Fitted are `ms = fixed + slope * x` over batch and over pictures' patches, and
`ms = factor * GFLOP ^ exponent` over models; each fit makes the squares of the relative errors least, so that small
values count as much as large ones. Weights are random, which changes no time. Graphs are kept in out/bench/encoders:
the first run makes them in five minutes, after that two cores take some six minutes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.ceiling import probe
from bench.common import OUT, environment, in_rounds, parser_of, table, write_json
from bench.encoder_graphs import Encoder, encoder
from clipdeploy.runtime.backends import open_session
from clipdeploy.spec import Precision

PAIRS = (("onnxruntime", Precision.FP32), ("openvino", Precision.BF16), ("openvino", Precision.INT8))
BATCHES = (1, 2, 4, 8, 16, 32, 64)
SIDES = (160, 192, 224, 256, 288, 384)
MODELS = ("ViT-S-32", "ViT-B-32", "ViT-S-16", "RN50", "ViT-B-16", "ViT-L-14")
CURVES = ("batch", "image-size", "model-size")
_MODEL, _PATCH_PX = "ViT-B-32", 32
_BATCH_OF_SIDES, _BATCH_OF_MODELS = 4, 1
_REST_S, _CALLS_TAKE_S, _MOST_CALLS = 0.1, 0.15, 8


@dataclass(frozen=True)
class Point:
    """One value of a curve.

    Attributes:
        name: such as `batch 8` or `ViT-B-16`.
        x: what is varied: pictures, patches, GFLOP of a picture.
        batch: pictures of one run; gflop: of one picture.
        ms: of one run, the median of the rounds' medians; fastest_ms: of all calls.
        rounds_ms: the median of each round.
    """

    name: str
    x: float
    batch: int
    gflop: float
    ms: float
    fastest_ms: float
    rounds_ms: tuple[float, ...]


@dataclass(frozen=True)
class Fit:
    """`ms = fixed + slope * x`, or `ms = factor * x ^ exponent`; the other two are None.

    Attributes:
        worst: the largest distance of a point from it, as a share of the point.
        typical: the same by the root of the mean square.
    """

    worst: float
    typical: float
    fixed: float | None = None
    slope: float | None = None
    factor: float | None = None
    exponent: float | None = None

    def at(self, x: float) -> float:
        """Its ms at `x`."""
        if self.exponent is not None and self.factor is not None:
            return float(self.factor * x**self.exponent)
        return float((self.fixed or 0.0) + (self.slope or 0.0) * x)


def main() -> None:
    """Measure, print, write."""
    parser = parser_of("curves", __doc__)
    parser.add_argument("--curve", nargs="+", choices=CURVES, default=list(CURVES), help="which")
    parser.add_argument("--batch", nargs="+", type=int, default=list(BATCHES), help="of the curve by batch")
    parser.add_argument("--side", nargs="+", type=int, default=list(SIDES), help="px, of the curve by image size")
    parser.add_argument("--model", nargs="+", default=list(MODELS), help="of open_clip, of the curve by model size")
    parser.add_argument("--threads", type=int, default=2, help="threads of one run")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds")
    parser.add_argument("--json", type=Path, default=OUT / "curves.json", help="result file")
    options = parser.parse_args()
    making: dict[str, Callable[[], dict[str, Any]]] = {
        "batch": lambda: by_batch(options.batch, options.threads, options.rounds),
        "image-size": lambda: by_side(options.side, options.threads, options.rounds),
        "model-size": lambda: by_model(options.model, options.threads, options.rounds),
    }
    record = {
        "benchmark": "curves",
        "rounds": options.rounds,
        "curves": {name: making[name]() for name in options.curve},
        "environment": environment(options.threads),
    }
    write_json(options.json, record)
    print(f"\n{report(record)}\n\nwritten to {options.json}")


def by_batch(batches: Sequence[int], threads: int, rounds: int) -> dict[str, Any]:
    """ViT-B/32 by pictures of one run."""
    one = encoder(_MODEL)
    wanted = [_Wanted(f"batch {batch}", float(batch), one, batch) for batch in batches]
    return {"model": _MODEL, **_measured(wanted, threads, rounds, linear)}


def by_side(sides: Sequence[int], threads: int, rounds: int) -> dict[str, Any]:
    """ViT-B/32 by the side of its pictures; x is patches."""
    wanted = [
        _Wanted(f"{side} px", (side / _PATCH_PX) ** 2, encoder(_MODEL, side), _BATCH_OF_SIDES) for side in sorted(sides)
    ]
    return {"model": _MODEL, **_measured(wanted, threads, rounds, linear)}


def by_model(models: Sequence[str], threads: int, rounds: int) -> dict[str, Any]:
    """Models by GFLOP of a picture."""
    encoders = sorted((encoder(model) for model in models), key=lambda one: one.gflop)
    wanted = [_Wanted(one.model, one.gflop, one, _BATCH_OF_MODELS) for one in encoders]
    return {
        "parameters": {one.model: one.parameters for one in encoders},
        **_measured(wanted, threads, rounds, power),
    }


def linear(points: Sequence[tuple[float, float]]) -> Fit:
    """`fixed + slope * x` with the least squares of relative errors, of two points or more."""
    x, y = (np.array(side, dtype=np.float64) for side in zip(*points, strict=True))
    (fixed, slope), *_ = np.linalg.lstsq(np.stack([1 / y, x / y], axis=1), np.ones_like(y), rcond=None)
    off = np.abs((fixed + slope * x) / y - 1)
    return Fit(float(off.max()), float(np.sqrt((off**2).mean())), fixed=float(fixed), slope=float(slope))


def power(points: Sequence[tuple[float, float]]) -> Fit:
    """`factor * x ^ exponent` with the least squares of logarithms, of two points or more."""
    x, y = (np.array(side, dtype=np.float64) for side in zip(*points, strict=True))
    (start, exponent), *_ = np.linalg.lstsq(np.stack([np.ones_like(x), np.log(x)], axis=1), np.log(y), rcond=None)
    off = np.abs(np.exp(start) * x**exponent / y - 1)
    return Fit(float(off.max()), float(np.sqrt((off**2).mean())), factor=float(np.exp(start)), exponent=float(exponent))


def fit_of(fields: dict[str, Any]) -> Fit:
    """A fit, as a record holds it."""
    return Fit(**fields)


def report(record: dict[str, Any]) -> str:
    """All curves as tables, each with its fits."""
    return "\n\n".join(f"{name}\n\n{curve_table(curve)}" for name, curve in record["curves"].items())


def curve_table(curve: dict[str, Any]) -> str:
    """Milliseconds a run of each point, and below them the fits."""
    pairs = curve["pairs"]
    points = {point["name"]: point for rows in pairs.values() for point in rows}
    lines = []
    for name, point in sorted(points.items(), key=lambda item: item[1]["x"]):
        found = [next((row for row in rows if row["name"] == name), None) for rows in pairs.values()]
        lines.append((name, f"{point['gflop']:.1f}", *(f"{row['ms']:.1f}" if row else "" for row in found)))
    fits = {pair: fit_of(curve["fits"][pair]) for pair in pairs if pair in curve["fits"]}
    for head, tell in _FITTED:
        cells = [tell(fits[pair]) if pair in fits else None for pair in pairs]
        if any(cells):
            lines.append((head, "", *(cell or "" for cell in cells)))
    return table(("median ms of a run", "GFLOP a picture", *pairs), lines)


_FITTED: tuple[tuple[str, Callable[[Fit], str | None]], ...] = (
    ("fitted: fixed, ms", lambda fit: None if fit.fixed is None else f"{fit.fixed:.2f}"),
    ("fitted: slope, ms", lambda fit: None if fit.slope is None else f"{fit.slope:.3f}"),
    ("fitted: exponent", lambda fit: None if fit.exponent is None else f"{fit.exponent:.2f}"),
    ("off by, typically", lambda fit: f"{fit.typical:.0%}"),
    ("off by, at most", lambda fit: f"{fit.worst:.0%}"),
)


@dataclass(frozen=True)
class _Wanted:
    """A point to measure; `x` is where it stands."""

    name: str
    x: float
    encoder: Encoder
    batch: int


def _measured(
    wanted: Sequence[_Wanted], threads: int, rounds: int, fitted: Callable[[Sequence[tuple[float, float]]], Fit]
) -> dict[str, Any]:
    """All points of a curve by all pairs, in turns, and a fit for each pair."""
    probes: list[list[float]] = []
    with ExitStack() as closing:
        calls = {
            (f"{backend} {precision.value}", one): _call(closing, one, backend, precision, threads)
            for backend, precision in PAIRS
            for one in wanted
            if precision is not Precision.INT8 or one.encoder.products_in_int8
        }
        print(f"timing {len(calls)} points, {rounds} rounds", flush=True)
        named = {f"{pair}, {one.name}": call for (pair, one), call in calls.items()}
        often = {name: _often(call) for name, call in named.items()}
        taken = in_rounds(named, rounds=rounds, calls=often, rest_s=_REST_S, warm_up_s=0.0, probe=probe, probes=probes)
    pairs: dict[str, list[Point]] = {}
    for pair, one in calls:
        pairs.setdefault(pair, []).append(_point(one, taken[f"{pair}, {one.name}"]))
    return {
        "pairs": {pair: [asdict(point) for point in points] for pair, points in pairs.items()},
        "fits": {
            pair: asdict(fitted([(point.x, point.ms) for point in points]))
            for pair, points in pairs.items()
            if len(points) > 1
        },
        "probe_ms": probes,
    }


def _call(closing: ExitStack, one: _Wanted, backend: str, precision: Precision, threads: int) -> Callable[[], object]:
    """One run of a session that is compiled for its batch."""
    session = open_session(
        one.encoder.graph(precision), backend=backend, precision=precision, threads=threads, usual_batch=one.batch
    )
    closing.callback(session.close)
    shape = (one.batch, 3, one.encoder.side, one.encoder.side)
    pixels = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return partial(session.run, pixels)


def _often(call: Callable[[], object]) -> int:
    """Measured calls of a round: as many as fit into some time, one at least."""
    call()
    started = time.perf_counter()
    call()
    return min(_MOST_CALLS, max(1, round(_CALLS_TAKE_S / (time.perf_counter() - started))))


def _point(one: _Wanted, rounds: list[list[float]]) -> Point:
    medians = tuple(statistics.median(ms) for ms in rounds)
    fastest = min(ms for each in rounds for ms in each)
    return Point(one.name, one.x, one.batch, one.encoder.gflop, statistics.median(medians), fastest, medians)


if __name__ == "__main__":
    main()
