"""What each precision costs on the shipped demo models: size, cosine, agreement, zero-shot top-1, time on the CPU.

    python -m bench.precision [--json FILE]

The models are exported, calibrated on pictures of the colour-shape pairs that training saw, and asked about pictures of
the pairs that it never saw. Graphs for TensorRT, and BF16, are computed with their rounding spelled out in float32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import clipdeploy
from bench.common import OUT, environment, interleaved, parser_of, table, write_json
from clipdeploy.bundle import Bundle
from clipdeploy.calibration.accuracy import compare
from clipdeploy.calibration.half import emulated
from clipdeploy.demo import HELD_OUT, MODELS, PAIRS, TEMPLATE, class_names, model_path, write_images
from clipdeploy.demo.score import score_pictures
from clipdeploy.pipeline import ExportRequest, export_bundle
from clipdeploy.quantize import QuantizeRequest, quantize_bundle
from clipdeploy.request import CheckpointRequest
from clipdeploy.runtime.ort import OrtSession
from clipdeploy.spec import Precision, Target, Tower

KINDS: tuple[tuple[Precision, Target | None], ...] = (
    (Precision.FP32, None),
    (Precision.FP16, None),
    (Precision.BF16, None),
    (Precision.INT8, "tensorrt"),
    (Precision.FP8, "tensorrt"),
    (Precision.INT8, "cpu"),
)
CALIBRATION = 512
A_PAIR = 100
HEAD = ("model", "precision", "target", "file", "of fp32", "mean cosine", "least", "same answer", "top-1", "batch 1")

Embeds = NDArray[np.float32]


def kind_name(precision: Precision, target: Target | None) -> str:
    """Such as `int8 cpu`."""
    return " ".join([precision.value, *([target] if target else [])])


def measure(model: str, pictures: Path, folder: Path, *, threads: int) -> list[dict[str, Any]]:
    """A row for each kind of graph of a demo model's image encoder."""
    bundle_folder = folder / model
    export_bundle(ExportRequest(CheckpointRequest(f"local-dir:{model_path(model)}"), output=bundle_folder))
    results = {}
    for precision, target in KINDS[1:]:
        request = QuantizeRequest(
            bundle_folder,
            precision.value,
            (str(pictures),),
            samples=CALIBRATION,
            target=target,
            labels=class_names(),
            templates=(TEMPLATE,),
        )
        (results[precision, target],) = quantize_bundle(request).towers
        print(f"{model} {kind_name(precision, target)}: {results[precision, target].recipe}", flush=True)
    bundle = Bundle.open(bundle_folder)
    with clipdeploy.load(bundle) as clip:
        bank = clip.encode_labels(class_names(), TEMPLATE)
        shown = list(score_pictures(HELD_OUT, A_PAIR))
        pixels = clip.images([picture for picture, _ in shown])
    truth = np.array([PAIRS.index(pair) for _, pair in shown])
    times = _times(bundle, pixels[:1], threads)
    expected = _embed(bundle.graph(Tower.IMAGE), pixels)
    rows = []
    for precision, target in KINDS:
        graph = bundle.graph(Tower.IMAGE, precision, target)
        found = _answers(graph, pixels, precision, target, folder)
        accuracy = compare(found, expected, bank)
        answers = (found @ bank.T).argmax(axis=1)
        result = results.get((precision, target))
        rows.append(
            {
                "model": MODELS[model],
                "precision": precision.value,
                "target": target,
                "size_bytes": graph.stat().st_size,
                "of_fp32": graph.stat().st_size / bundle.graph(Tower.IMAGE).stat().st_size,
                "cosine_mean": accuracy.cosine_mean,
                "cosine_min": accuracy.cosine_min,
                "agreement": float((answers == (expected @ bank.T).argmax(axis=1)).mean()),
                "top1": float((answers == truth).mean()),
                "pictures": len(truth),
                "latency_ms": times.get(kind_name(precision, target)),
                "recipe": str(result.recipe) if result else None,
                "layers": sum(row.precision is precision for row in result.layers) if result else None,
                "layers_of": len(result.layers) if result else None,
            }
        )
    return rows


def _answers(
    graph: Path, pixels: NDArray[np.float32], precision: Precision, target: Target | None, folder: Path
) -> Embeds:
    """As the engine that a graph is made for rounds."""
    if precision is Precision.FP32 or target == "cpu":
        return _embed(graph, pixels)
    emulated(graph, folder / "twin.onnx")
    return _embed(folder / "twin.onnx", pixels, fuse_qdq=False)


def _embed(graph: Path, pixels: NDArray[np.float32], *, fuse_qdq: bool = True) -> Embeds:
    session = OrtSession(graph, fuse_qdq=fuse_qdq)
    try:
        return np.concatenate([session.run(pixels[i : i + 32]) for i in range(0, len(pixels), 32)])
    finally:
        session.close()


def _times(bundle: Bundle, pixel: NDArray[np.float32], threads: int) -> dict[str, float]:
    """Median ms of a batch of one, of the graphs that ONNX Runtime is meant to run."""
    sessions = {
        kind_name(precision, target): OrtSession(bundle.graph(Tower.IMAGE, precision, target), threads=threads)
        for precision, target in ((Precision.FP32, None), (Precision.FP16, None), (Precision.INT8, "cpu"))
    }
    calls: dict[str, Callable[[], object]] = {name: partial(session.run, pixel) for name, session in sessions.items()}
    return {name: timing.median_ms for name, timing in interleaved(calls, rounds=9, calls=30).items()}


def precision_rows(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The table's cells."""
    return [
        (
            row["model"].removeprefix("clipdeploy-"),
            row["precision"],
            row["target"] or "",
            f"{row['size_bytes'] / 1e6:.2f} MB",
            f"{row['of_fp32']:.2f}x",
            f"{row['cosine_mean']:.5f}",
            f"{row['cosine_min']:.4f}",
            f"{row['agreement']:.1%}",
            f"{row['top1']:.2%}",
            "" if row["latency_ms"] is None else f"{row['latency_ms']:.2f} ms",
        )
        for row in rows
    ]


def main() -> None:
    """Measure both demo models and print the table."""
    parser = parser_of("precision", __doc__)
    parser.add_argument(
        "--only", dest="models", nargs="+", choices=list(MODELS), default=list(MODELS), help="which demo models"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of one run")
    parser.add_argument("--json", type=Path, default=OUT / "precision.json", help="result file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = write_images(folder / "seen", count=CALIBRATION, split="seen", seed=7).folder
        rows = [
            row for model in arguments.models for row in measure(model, pictures, folder, threads=arguments.threads)
        ]
    record = {
        "benchmark": "precision",
        "environment": environment(threads=arguments.threads),
        "calibration_pictures": CALIBRATION,
        "classes": len(PAIRS),
        "rows": rows,
    }
    write_json(arguments.json, record)
    print(f"\n{table(HEAD, precision_rows(rows))}\n\nwritten to {arguments.json}")


if __name__ == "__main__":
    main()
