"""What this machine can do at most: a large matrix product at each precision, and copying memory.

    python -m bench.ceiling [--threads 2] [--rounds 5] [--json FILE]

Square products by whoever may be fastest at them: PyTorch and OpenVINO in float32 and bfloat16, PyTorch and ONNX
Runtime (`MatMulInteger`) in 8 bits; with one thread and with all. All take turns in each round. The ceiling of a
precision is the fastest call of all of them, since a machine that is shared can only be slower than it is: a number on
the page reads as a share of that. Two cores take a minute and a half.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import OUT, environment, in_rounds, parser_of, table, write_json

SIDES = {"fp32": (1024, 2048), "bf16": (1024, 2048, 4096), "int8": (1024, 2048, 4096)}
"""Sides of the square matrices: what stays in the caches, and what keeps all units busy for long."""
_COPIED = 256 * 1024 * 1024
_CALLS = 4

Call = Callable[[], object]


@dataclass(frozen=True)
class Product:
    """One square product, by one library.

    Attributes:
        precision: of what is multiplied; sums are wider.
        library: what computes it.
        side: of the matrices, in numbers.
        threads: that take part.
        gflop_per_second: by the median call; fastest: by the fastest.
        rounds: the same by the median call of each round.
    """

    precision: str
    library: str
    side: int
    threads: int
    gflop_per_second: float
    fastest: float
    rounds: tuple[float, ...]


@dataclass(frozen=True)
class Copy:
    """Copying memory that no cache holds: GB a second, each of which is read once and written once."""

    threads: int
    gb_per_second: float
    fastest: float


def main() -> None:
    """Measure, print, write."""
    parser = parser_of("ceiling", __doc__)
    parser.add_argument("--threads", type=int, default=2, help="all threads; one is measured too")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds")
    parser.add_argument("--json", type=Path, default=OUT / "ceiling.json", help="result file")
    options = parser.parse_args()
    record = measure(options.threads, options.rounds)
    write_json(options.json, record)
    print(f"{record['environment']['cpu']}\n\n{report(record)}\n\nwritten to {options.json}")


def measure(threads: int, rounds: int, sides: dict[str, tuple[int, ...]] = SIDES) -> dict[str, Any]:
    """The record: products and copies, with one thread and with `threads`."""
    counts = sorted({1, threads})
    candidates: dict[tuple[str, str, int, int], Call] = {
        (precision, library, side, count): make(side, count)
        for precision, libraries in _libraries().items()
        for library, make in libraries.items()
        for side in sides[precision]
        for count in counts
    }
    named = {str(key): call for key, call in candidates.items()}
    probes: list[list[float]] = []
    samples = in_rounds(named, rounds=rounds, calls=_CALLS, probe=probe, probes=probes)
    copies = in_rounds({str(count): _copy(count) for count in counts}, rounds=rounds, calls=_CALLS)
    return {
        "benchmark": "ceiling",
        "environment": environment(threads),
        "rounds": rounds,
        "products": [asdict(_product(key, samples[str(key)])) for key in candidates],
        "copies": [asdict(_copied(int(count), runs)) for count, runs in copies.items()],
        "probe_ms": probes,
    }


def probe() -> float:
    """How fast the machine is at this moment: ms of bfloat16 products of matrices that stay in the cache.

    Takes some 15 ms, with as many threads as PyTorch has at the moment.
    """
    import torch

    matrix = _ones()
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        for _ in range(20):
            torch.mm(matrix, matrix)
        taken.append((time.perf_counter() - started) * 1e3)
    return min(taken)


def best(record: dict[str, Any], precision: str, threads: int | None = None) -> dict[str, Any]:
    """The product of `precision` that reached most with at most `threads`; None is all that were measured."""
    of = [row for row in record["products"] if row["precision"] == precision]
    return max((row for row in of if threads is None or row["threads"] <= threads), key=lambda row: row["fastest"])


def share(record: dict[str, Any], precision: str, gflop: float, ms: float) -> float:
    """Of what the machine can do at `precision`, what `gflop` in `ms` is: 0 to 1, by the fastest large product."""
    return gflop / ms * 1e3 / float(best(record, precision)["fastest"])


def report(record: dict[str, Any]) -> str:
    """The ceilings, as a table: of each precision the library and size that reached most."""
    counts = sorted({row["threads"] for row in record["products"]})
    rows = []
    for precision in dict.fromkeys(row["precision"] for row in record["products"]):
        for count in counts:
            top = best(record, precision, count)
            rows.append(
                (
                    f"{precision} product, {_threads(count)}",
                    f"{top['fastest']:.0f} GFLOP/s",
                    f"{top['gflop_per_second']:.0f}",
                    f"{min(top['rounds']):.0f} to {max(top['rounds']):.0f}",
                    f"{top['library']}, {top['side']}",
                )
            )
    rows += [
        (
            f"memory copy, {_threads(one['threads'])}",
            f"{one['fastest']:.1f} GB/s",
            f"{one['gb_per_second']:.1f}",
            "",
            f"{_COPIED >> 20} MiB",
        )
        for one in record["copies"]
    ]
    return table(("at most", "fastest call", "median", "rounds", "by, side"), rows)


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _product(key: tuple[str, str, int, int], runs: list[list[float]]) -> Product:
    precision, library, side, threads = key
    gflop = 2 * side**3 / 1e9
    calls = [ms for one in runs for ms in one]
    reached = [gflop / ms * 1e3 for ms in (statistics.median(calls), min(calls), *map(statistics.median, runs))]
    return Product(precision, library, side, threads, reached[0], reached[1], tuple(reached[2:]))


def _copied(threads: int, runs: list[list[float]]) -> Copy:
    calls = [ms for one in runs for ms in one]
    return Copy(threads, *(_COPIED / 1e6 / ms for ms in (statistics.median(calls), min(calls))))


def _libraries() -> dict[str, dict[str, Callable[[int, int], Call]]]:
    """Of each precision, who multiplies; OpenVINO where it is installed."""
    found: dict[str, dict[str, Callable[[int, int], Call]]] = {
        "fp32": {"PyTorch": partial(pytorch_product, "float32")},
        "bf16": {"PyTorch": partial(pytorch_product, "bfloat16")},
        "int8": {"PyTorch": partial(pytorch_product, "int8"), "ONNX Runtime": _onnxruntime},
    }
    if find_spec("openvino") is not None:
        found["fp32"]["OpenVINO"] = partial(_openvino, "f32")
        found["bf16"]["OpenVINO"] = partial(_openvino, "bf16")
    return found


def pytorch_product(dtype: str, side: int, threads: int) -> Call:
    """A call that does one square product; `dtype` is `float32`, `bfloat16` or `int8`."""
    import torch

    if dtype == "int8":
        left, right = (torch.randint(-127, 127, (side, side), dtype=torch.int8) for _ in range(2))
        multiply: Callable[..., object] = torch._int_mm
    else:
        left, right = (torch.randn(side, side).to(getattr(torch, dtype)) for _ in range(2))
        multiply = torch.mm
    return partial(_with_threads, threads, lambda: multiply(left, right))


def _with_threads(threads: int, call: Call) -> object:
    """`call` while PyTorch has so many threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return call()
    finally:
        torch.set_num_threads(before)


def _openvino(hint: str, side: int, threads: int) -> Call:
    import openvino
    from openvino import opset13

    left, right = _random(side, 0), _random(side, 1)
    given = opset13.parameter([side, side], np.float32)
    model = openvino.Model([opset13.matmul(given, opset13.constant(right), False, False)], [given])
    config = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.Core().compile_model(model, "CPU", config).create_infer_request()
    request.set_input_tensor(0, openvino.Tensor(left))
    return request.infer  # type: ignore[no-any-return]


def _onnxruntime(side: int, threads: int) -> Call:
    """Bytes by signed bytes: the pair that processors have instructions for."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).integers(-127, 127, (side, side), dtype=np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "weights"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [side, side])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [side, side])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {"x": np.random.default_rng(1).integers(0, 255, (side, side), dtype=np.uint8)}
    return lambda: session.run(None, feed)


def _copy(threads: int) -> Call:
    import torch

    source = torch.ones(_COPIED // 4)
    target = torch.empty_like(source)
    return partial(_with_threads, threads, lambda: target.copy_(source))


def _random(side: int, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal((side, side)).astype(np.float32)


@cache
def _ones() -> Any:
    import torch

    return torch.ones(512, 512, dtype=torch.bfloat16)


if __name__ == "__main__":
    main()
