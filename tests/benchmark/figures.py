"""Results of benchmarks that never ran."""

from __future__ import annotations

from collections.abc import Sequence

from clipdeploy.benchmark.records import (
    Absent,
    BatchFigures,
    BenchResult,
    Board,
    Candidate,
    ColdStart,
    Latency,
    Memory,
)

BATCHES = (1, 8, 32)


def times(ms: float, spread: float = 0.02) -> Latency:
    """Around a median, over three rounds of which the slowest takes `spread` longer."""
    return Latency(ms, ms * 1.05, ms * 1.2, ms * 0.97, 60, (ms, ms * (1 + spread), ms * (1 + spread / 2)))


def by_batch(ms: float, batches: Sequence[int], spread: float) -> tuple[BatchFigures, ...]:
    return tuple(BatchFigures(n, times(ms * n**0.9, spread), n * 1000 / (ms * n**0.9)) for n in batches)


def candidate(
    backend: str,
    precision: str,
    ms: float,
    *,
    batches: Sequence[int] = BATCHES,
    spread: float = 0.02,
    gpu: bool = False,
    texts_of: str | None = None,
    images: bool = True,
) -> Candidate:
    parts = {"decode": 8.0, "resize": 13.5, "normalise": 0.2, "encoder": ms, "similarity": 0.05}
    copies = {"copy in": 0.4, "copy out": 0.1} if gpu else {}
    return Candidate(
        backend=backend,
        precision=precision,
        reason="asked for",
        images=by_batch(ms, batches, spread) if images else (),
        texts=by_batch(ms / 3, batches, spread),
        stages={name: times(part) for name, part in {**parts, **copies}.items()} if images else {},
        file_to_label=times(21.8 + ms, spread) if images else None,
        folder_per_second=1000 / (10 + ms) if images else None,
        cold_start=ColdStart(0.02, 0.16, 0.01, 0.31 if images else None, 0.2, ms if images else None, 0.7, 1.9),
        memory=Memory(80_000_000, 210_000_000, 420_000_000, 512_000_000 if gpu else None),
        files={f"visual_{precision}.onnx": 88_000_000, "textual.onnx": 250_000_000},
        texts_of=texts_of,
    )


CANDIDATES = (
    candidate("openvino", "int8", 8.6),
    candidate("openvino", "fp32", 25.7),
    candidate("onnxruntime", "int8", 14.6),
    candidate("onnxruntime", "fp32", 30.4, texts_of="openvino fp32"),
)
ABSENT = (
    Absent("openvino", "fp8", "bundle shapes has no image encoder in fp8 for tensorrt that openvino can run here"),
    Absent("onnxruntime", "bf16", "onnxruntime on a CPU does not compute in bf16"),
    Absent("onnxruntime", "fp8", "onnxruntime on a CPU does not compute in bf16"),
)


def result(
    candidates: Sequence[Candidate] = CANDIDATES, *, absent: Sequence[Absent] = ABSENT, board: Board | None = None
) -> BenchResult:
    return BenchResult(
        bundle="shapes",
        model="ViT-B-32",
        created="2026-11-22T10:00:00+00:00",
        environment={
            "system": "Linux",
            "libraries": {"onnxruntime": "1.31.1"},
            "processor": {"name": "A Processor", "features": ["avx2"], "cores": 4, "virtual": False, "governor": None},
            "gpus": [],
            "jetson": None,
        },
        conditions={"batches": list(BATCHES), "threads": None, "rounds": 3, "seconds": 0.2, "how": {"stages": "so"}},
        candidates=tuple(candidates),
        absent=tuple(absent),
        seconds=41.2,
        board=board,
    )
