"""INT8 on a processor: PyTorch eager and our graph in float32, and our graph in INT8, beside each other in one run.

    python -m bench.int8_cpu [BUNDLE] [--model ViT-B-32] [--threads 2]

Weights are random, which changes no time; so the cosine says what rounding costs such a network, and nothing of a
trained one (docs/precision.md has those). Ranges come from 32 seeded pictures of coloured clouds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import clipdeploy
from bench.common import OUT, Timing, environment, interleaved, parser_of, random_bundle, table, write_json
from clipdeploy.calibration.cpu import CpuResult, pixel_range, place_cpu, quantise_cpu, ranges_needed
from clipdeploy.calibration.layers import find_layers
from clipdeploy.calibration.ranges import collect
from clipdeploy.graphs.files import load_graph
from clipdeploy.runtime.clip import Clip
from clipdeploy.runtime.ort import OrtSession
from clipdeploy.spec import Tower

BATCHES = (1, 8)
CALIBRATED, MEASURED = 32, 16
PYTORCH, FP32, INT8 = "PyTorch eager fp32", "clipdeploy fp32", "clipdeploy int8, cpu"


def main() -> None:
    """Run the comparison, print it, write it."""
    parser = parser_of("int8_cpu", __doc__)
    parser.add_argument("bundle", nargs="?", type=Path, help="bundle of --model; exported to out/bench when not given")
    parser.add_argument("--model", default="ViT-B-32", help="open_clip architecture")
    parser.add_argument("--threads", type=int, default=2, help="threads of each engine")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds")
    parser.add_argument("--calls", type=int, default=6, help="measured calls a round")
    parser.add_argument("--json", type=Path, default=OUT / "int8_cpu.json", help="result file")
    options = parser.parse_args()

    bundle = random_bundle(options.model, options.bundle)
    clip = clipdeploy.load(bundle, threads=options.threads)
    source = bundle / "visual.onnx"
    pixels = clip.images([clouds(seed) for seed in range(CALIBRATED + MEASURED)])
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "visual_int8.onnx"
        result = quantise(clip, source, graph, pixels[:CALIBRATED])
        sessions = {FP32: OrtSession(source, threads=options.threads), INT8: OrtSession(graph, threads=options.threads)}
        eager = pytorch(options.model, options.threads)
        timings = {}
        for batch in BATCHES:
            part = pixels[:batch]
            candidates: dict[str, Callable[[], object]] = {PYTORCH: lambda part=part: eager(part)}
            candidates |= {name: lambda s=s, part=part: s.run(part) for name, s in sessions.items()}
            timings[batch] = interleaved(candidates, rounds=options.rounds, calls=options.calls)
        cosine = (sessions[INT8].run(pixels[CALIBRATED:]) * sessions[FP32].run(pixels[CALIBRATED:])).sum(1)
    record = {
        "benchmark": "int8_cpu",
        "environment": environment(options.threads),
        "model": options.model,
        "encode_ms": {str(batch): {name: asdict(t) for name, t in row.items()} for batch, row in timings.items()},
        "int8_speed": {str(batch): speeds(row) for batch, row in timings.items()},
        "image_tower_bytes": {"fp32": source.stat().st_size, "int8": result.size_bytes},
        "size_ratio": result.size_bytes / source.stat().st_size,
        "layers_in_int8": result.layers,
        "cosine_on_random_weights": {"mean": float(cosine.mean()), "min": float(cosine.min())},
    }
    write_json(options.json, record)
    print(report(record, timings))
    print(f"\nwritten to {options.json}")


def clouds(seed: int) -> Image.Image:
    """A picture of smooth colours, another one for every seed."""
    small = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((320, 240), Image.Resampling.BICUBIC)


def quantise(clip: Clip, source: Path, target: Path, pixels: NDArray[np.float32]) -> CpuResult:
    """Our INT8 graph for processors, of ranges measured on `pixels` `(N, 3, H, W)`."""
    name = clip.spec.image.input.name
    model = load_graph(source)
    layers = [choice.layer for choice in place_cpu(model, find_layers(model, Tower.IMAGE)) if choice.quantise]
    tensors = [tensor for tensor in ranges_needed(model, layers) if tensor != name]
    del model
    feeds = [{name: pixels[i : i + 8]} for i in range(0, len(pixels), 8)]
    statistics = collect(source, tensors, feeds, total=len(pixels))
    ranges = {tensor: statistics.range(tensor, "percentile", symmetric=False) for tensor in tensors}
    return quantise_cpu(source, target, layers, {**ranges, name: pixel_range(clip.spec.pixels)})


def pytorch(model: str, threads: int) -> Callable[[NDArray[np.float32]], object]:
    """The architecture as open_clip runs it."""
    import open_clip
    import torch

    torch.set_num_threads(threads)
    network: Any = open_clip.create_model(model).eval()

    def encode(pixels: NDArray[np.float32]) -> object:
        with torch.inference_mode():
            return network.encode_image(torch.from_numpy(pixels), normalize=True).numpy()

    return encode


def speeds(row: dict[str, Timing]) -> dict[str, float]:
    """How many times as fast INT8 is, by medians and by the fastest calls."""
    ours = row[INT8]
    return {
        "vs_pytorch": row[PYTORCH].median_ms / ours.median_ms,
        "vs_fp32": row[FP32].median_ms / ours.median_ms,
        "vs_pytorch_fastest": row[PYTORCH].fastest_ms / ours.fastest_ms,
        "vs_fp32_fastest": row[FP32].fastest_ms / ours.fastest_ms,
    }


def report(record: dict[str, Any], timings: dict[int, dict[str, Timing]]) -> str:
    """The result as text."""
    rows = [
        (
            f"batch {batch}, {name}",
            f"{t.median_ms:.1f}",
            f"{t.fastest_ms:.1f}",
            f"{batch / t.median_ms * 1e3:.0f}",
            f"{row[PYTORCH].median_ms / t.median_ms:.2f}x",
            f"{row[FP32].median_ms / t.median_ms:.2f}x",
        )
        for batch, row in timings.items()
        for name, t in row.items()
    ]
    env, size, cosine = record["environment"], record["image_tower_bytes"], record["cosine_on_random_weights"]
    return "\n".join(
        (
            f"{record['model']}, {env['threads']} threads, {env['cpu']}, load {env['load_1min']}\n",
            table(("image encoder", "median ms", "fastest ms", "pictures/s", "vs PyTorch", "vs our fp32"), rows),
            f"\nimage tower: {size['int8'] / 1e6:.1f} MB of {size['fp32'] / 1e6:.1f} MB ({record['size_ratio']:.3f})",
            f"cosine on random weights: mean {cosine['mean']:.5f}, least {cosine['min']:.5f}",
        )
    )


if __name__ == "__main__":
    main()
