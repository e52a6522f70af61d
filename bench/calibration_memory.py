"""What calibrating an image tower needs: peak memory with few and with many pictures, and the time it takes.

    python -m bench.calibration_memory [BUNDLE] [--model ViT-L-14] [--counts 64 512] [--json FILE]

Each count runs in a process of its own, whose peak resident memory the kernel keeps. It reads JPEG files of 640 x 480
px through the model's preprocessing and measures the input of every product with constant weights, by histogram and
per channel, and the extremes of every other float tensor. Weights are random unless a bundle is given.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from PIL import Image

from bench.common import OUT, environment, parser_of, random_bundle, table, write_json
from clipdeploy.bundle import Bundle
from clipdeploy.calibration.observe import Observer, light_copy
from clipdeploy.calibration.ranges import collect
from clipdeploy.calibration.samples import open_samples
from clipdeploy.runtime.image import ImageProcessor
from clipdeploy.spec import Tower

_PRODUCTS = ("Gemm", "MatMul", "Conv")


def write_pictures(folder: Path, count: int) -> None:
    """Distinct JPEG files: coloured clouds."""
    for seed in range(count):
        small = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC).save(folder / f"{seed:05d}.jpg", quality=90)


def inputs_and_others(graph: Path) -> tuple[list[str], list[str]]:
    """The inputs of products with constant weights, and all other float tensors."""
    model = light_copy(graph)
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [n.input[0] for n in model.graph.node if n.op_type in _PRODUCTS and n.input[1] in constants]
    floats = {v.name for v in model.graph.value_info if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    made = [name for node in model.graph.node for name in node.output if name in floats]
    return list(dict.fromkeys(inputs)), [name for name in made if name not in inputs]


def calibrate(bundle: Path, pictures: Path, count: int) -> dict[str, float]:
    """One calibration, in this process."""
    spec = Bundle.open(bundle).manifest.model
    graph = bundle / Tower.IMAGE.graph_name()
    inputs, others = inputs_and_others(graph)
    started = time.perf_counter()
    samples = open_samples([pictures], ImageProcessor(spec.pixels), limit=count)
    read = time.perf_counter()
    channels = [name for name in inputs if name != spec.image.input.name]
    statistics = collect(graph, inputs, samples.feeds(spec.image.input.name), channels=channels, maxima=others)
    measured, peak = time.perf_counter(), peak_mib()
    plain = Observer(graph, whole=[spec.image.output.name])
    loaded = time.perf_counter()
    for feed in samples.feeds(spec.image.input.name):
        plain.run(feed)
    return {
        "pictures": statistics.samples,
        "peak_mib": peak,
        "tensors": len(inputs),
        "extremes": len(others),
        "read_s": round(read - started, 2),
        "measure_s": round(measured - read, 2),
        "inference_s": round(time.perf_counter() - loaded, 2),
        "statistics_kb": round(len(json.dumps(statistics.to_dict())) / 1e3, 1),
    }


def run(bundle: Path, pictures: Path, count: int) -> dict[str, float]:
    """One calibration in a process of its own, with its peak memory."""
    command = [sys.executable, "-m", "bench.calibration_memory", "--child", str(count), str(bundle), str(pictures)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def peak_mib() -> float:
    """The most memory this program ever had resident, in units of 2 ** 20 bytes."""
    # Not getrusage: that one counts the process that started this one.
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) / 1024, 1)


def main() -> None:
    """Run the counts and print them."""
    parser = parser_of("calibration_memory", __doc__)
    parser.add_argument("bundle", nargs="?", type=Path, help="bundle of --model; exported to out/bench when not given")
    parser.add_argument("--model", default="ViT-L-14", help="open_clip architecture")
    parser.add_argument("--counts", type=int, nargs="+", default=[64, 512], help="pictures, each count in a process")
    parser.add_argument("--json", type=Path, default=OUT / "calibration_memory.json", help="result file")
    parser.add_argument("--child", nargs=3, metavar=("COUNT", "BUNDLE", "PICTURES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        count, bundle, pictures = arguments.child
        result = calibrate(Path(bundle), Path(pictures), int(count))
        print(json.dumps(result))
        return
    bundle = random_bundle(arguments.model, arguments.bundle)
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder), max(arguments.counts))
        rows = [run(bundle, Path(folder), count) for count in arguments.counts]
    record = {
        "benchmark": "calibration_memory",
        "environment": environment(threads=0),
        "model": Bundle.open(bundle).manifest.model.name,
        "rows": rows,
    }
    write_json(arguments.json, record)
    head = ("pictures", "peak, MiB", "read, s", "measure, s", "inference alone, s")
    keys = ("pictures", "peak_mib", "read_s", "measure_s", "inference_s")
    print(f"{record['model']}: {rows[0]['tensors']} tensors, and the extremes of {rows[0]['extremes']}\n")
    print(table(head, [[str(row[key]) for key in keys] for row in rows]))
    print(f"\nwritten to {arguments.json}")


if __name__ == "__main__":
    main()
