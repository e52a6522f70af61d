"""A bundle's TensorRT engines on this machine's GPU: latency, throughput, and their answers beside ONNX Runtime's.

    python -m bench.engines BUNDLE [--backend tensorrt-rtx] [--precision fp16 int8] [--batch 1 8 32] [--json FILE]

Needs an NVIDIA GPU, and engines that `clipdeploy build-engine` built here. A time is one `run`: pixels from the
machine's memory to the GPU, the engine, and embeddings back; with CUDA graphs, without them, and with pixels that are
on the GPU already and embeddings that stay there (`run_on_device`, then waited for). All are timed side by side in one
run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import OUT, environment, interleaved, parser_of, table, write_json
from clipdeploy.bundle import Bundle
from clipdeploy.errors import ClipdeployError
from clipdeploy.runtime.backends import engine_backend
from clipdeploy.runtime.ort import OrtSession
from clipdeploy.runtime.tensorrt import Engines, find_engines
from clipdeploy.runtime.trt.cuda import Cuda
from clipdeploy.runtime.trt.session import TensorRtSession
from clipdeploy.spec import Precision, Tower
from clipdeploy.verify import read_golden

GRAPH, PLAIN, DEVICE = "CUDA graph", "no graph", "on the GPU"


def main() -> None:
    """Time the engines, print a table, write the record."""
    parser = parser_of("engines", __doc__)
    parser.add_argument("bundle", type=Path, help="a bundle with engines for this machine")
    parser.add_argument("--backend", default="tensorrt", choices=["tensorrt", "tensorrt-rtx"], help="whose engines")
    parser.add_argument("--tower", default="image", choices=[tower.value for tower in Tower], help="which encoder")
    parser.add_argument(
        "--precision", nargs="+", default=[p.value for p in Precision], help="those without one are told"
    )
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8, 32], help="rows of one run")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds")
    parser.add_argument("--calls", type=int, default=50, help="measured calls a round")
    parser.add_argument("--json", type=Path, default=OUT / "engines.json", help="result file")
    options = parser.parse_args()

    backend, tower = engine_backend(options.backend), Tower(options.tower)
    assert backend is not None  # one of the choices
    bundle = Bundle.open(options.bundle)
    sessions: dict[Precision, TensorRtSession] = {}
    plain: dict[Precision, TensorRtSession] = {}
    lacking: dict[str, str] = {}
    engines: Engines | None = None
    for precision in map(Precision.parse, options.precision):
        try:
            engines = find_engines(bundle, backend, {tower: precision})
            sessions[precision] = engines.open(tower)
            plain[precision] = engines.open(tower, graphs=False)
        except ClipdeployError as error:
            lacking[precision.value] = error.message
            print(f"{precision.value}: {error}")
    if engines is None or not sessions:
        raise SystemExit("no engine runs here")

    rows = _rows(bundle, tower, max(options.batch))
    cosines = {precision: _cosine(bundle, tower, precision, session, rows) for precision, session in sessions.items()}
    results: list[dict[str, Any]] = []
    for batch in options.batch:
        candidates: dict[str, Callable[[], object]] = {}
        for precision, session in sessions.items():
            if batch <= session.largest_batch:
                given = rows[:batch]
                candidates[f"{precision.value} {GRAPH}"] = partial(session.run, given)
                candidates[f"{precision.value} {PLAIN}"] = partial(plain[precision].run, given)
                candidates[f"{precision.value} {DEVICE}"] = partial(_on_device, session, _put(engines.cuda, given))
        if not candidates:
            print(f"no engine takes a batch of {batch}")
            continue
        for name, timing in interleaved(candidates, rounds=options.rounds, calls=options.calls).items():
            precision_name, way = name.split(" ", 1)
            per_second = batch / timing.median_ms * 1e3
            told = {"precision": precision_name, "way": way, "batch": batch, "per_second": round(per_second, 1)}
            results.append({**told, "least_cosine": cosines[Precision(precision_name)], **asdict(timing)})
    here = engines.here
    record = {
        "environment": {**environment(threads=0), "gpu": asdict(engines.cuda.gpu), "here": asdict(here)},
        "model": bundle.model.name,
        "tower": tower.value,
        "results": results,
        "lacking": lacking,
        "notes": {precision.value: session.notes for precision, session in sessions.items()},
    }
    print(f"{bundle.model.name}, {tower.value} encoder: {engines.reason}")
    head = ("precision", "way", "batch", "median ms", "p90 ms", "a second", "cosine to ONNX Runtime")
    print(table(head, [_line(result) for result in results]))
    write_json(options.json, record)
    for session in (*sessions.values(), *plain.values()):
        for note in session.notes:
            print(f"{session.name}: {note}")
        session.close()


class OnGpu:
    """A batch in the GPU's memory, complete; it stays there until the process ends."""

    def __init__(self, address: int, rows: np.ndarray) -> None:
        self.__cuda_array_interface__ = {
            "shape": rows.shape,
            "typestr": rows.dtype.str,
            "data": (address, False),
            "strides": None,
            "version": 3,
            "stream": None,
        }


def _put(cuda: Cuda, rows: np.ndarray) -> OnGpu:
    with cuda.in_use():
        address, stream = cuda.allocate(rows.nbytes, "a batch"), cuda.new_stream()
        cuda.upload(rows.ctypes.data, address, rows.nbytes, stream)
        cuda.wait(stream)
        cuda.destroy_stream(stream)
    return OnGpu(address, rows)


def _on_device(session: TensorRtSession, rows: OnGpu) -> None:
    session.run_on_device(rows).wait()


def _rows(bundle: Bundle, tower: Tower, count: int) -> np.ndarray:
    """The golden samples, over and over until there are `count`."""
    golden = read_golden(bundle)
    rows = golden.pixels if tower is Tower.IMAGE else golden.input_ids.astype(bundle.model.text.input.dtype)
    return np.ascontiguousarray(rows[np.arange(count) % len(rows)])


def _cosine(
    bundle: Bundle, tower: Tower, precision: Precision, session: TensorRtSession, rows: np.ndarray
) -> float | None:
    """The least cosine to ONNX Runtime on the same graph; None for bf16, which it does not compute."""
    if precision is Precision.BF16:
        return None
    rows = rows[: min(8, session.largest_batch)]
    graph = bundle.graph(tower, precision, "tensorrt" if precision.quantised else None)
    theirs = OrtSession(graph, fuse_qdq=False).run(rows)
    return round(float((session.run(rows).astype(np.float64) * theirs).sum(axis=1).min()), 7)


def _line(result: dict[str, Any]) -> tuple[str, ...]:
    cosine = result["least_cosine"]
    numbers = (f"{result[name]:.2f}" for name in ("median_ms", "p90_ms"))
    told = "-" if cosine is None else f"{cosine:.5f}"
    return (result["precision"], result["way"], str(result["batch"]), *numbers, f"{result['per_second']:.0f}", told)


if __name__ == "__main__":
    main()
