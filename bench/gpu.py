"""The image encoder on an NVIDIA GPU: PyTorch in fp16, ONNX Runtime with CUDA, our TensorRT backends, and the ceiling.

    python -m bench.gpu [BUNDLE] [--model ViT-B-32] [--batch 1 2 4 ... 256] [--json FILE]
    python -m bench.gpu --dry-run

One command: it exports the model with random weights, quantises it, builds the engines that this machine can build, and
times all that runs, side by side in one run for each batch: from the machine's memory and back, and on the GPU alone.
What cannot run here is listed with its reason. The ceiling is the encoder's own matrix products in fp16, in one CUDA
graph, with nothing between them. `--dry-run` goes the whole way with a tiny model on the processor, and its numbers say
nothing.
"""

from __future__ import annotations

import argparse
import subprocess
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.bare import NotHereError, Pixels
from bench.common import OUT, environment, in_rounds, parser_of, table, timing, write_json
from bench.gpu_peers import OURS, Peer, TorchPeers, build, graph_of, onnxruntime_cuda, ours
from bench.products import SQUARE, large_product, products_alone, products_of
from bench.runtime import drawn
from bench.typed_bundle import FP16, INT8_QDQ, typed_bundle
from clipdeploy.demo import model_path
from clipdeploy.spec import Precision
from clipdeploy.versions import installed

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
EAGER, COMPILED, CUDA_EP = "PyTorch eager fp16", "PyTorch compiled fp16", "ONNX Runtime CUDA fp16"
CEILING = "matrix products alone"
_LIBRARIES = ("onnxruntime-gpu", "tensorrt", "tensorrt-rtx", "cuda-python", "cuda-bindings", "triton", "nvidia-cublas")


def main() -> None:
    """Build, time, print, write."""
    parser = parser_of("gpu", __doc__)
    parser.add_argument("bundle", nargs="?", type=Path, help="bundle of --model with fp16, int8 and fp8 graphs")
    parser.add_argument("--model", default="ViT-B-32", help="open_clip architecture")
    parser.add_argument("--batch", nargs="+", type=int, default=list(BATCHES), help="rows of one run")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds")
    parser.add_argument("--calls", type=int, default=20, help="measured calls a round")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="leave torch.compile out")
    parser.add_argument("--dry-run", action="store_true", help="a tiny model on the processor: whether all of it works")
    parser.add_argument("--json", type=Path, default=OUT / "gpu.json", help="result file")
    options = parser.parse_args()
    if options.dry_run:
        options.model, options.batch, options.rounds, options.calls = f"local-dir:{model_path('vit')}", [1, 2], 1, 1
    write_json(options.json, record := run(options))
    print(f"\n{gpu_table(record)}\n\n{absent_text(record)}\n\nwritten to {options.json}")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All of it, as the record that is written."""
    import torch

    device = "cpu" if options.dry_run else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("PyTorch sees no NVIDIA GPU here; --dry-run goes the same way on the processor")
    kinds = (FP16, INT8_QDQ, (Precision.FP8, "tensorrt"))
    bundle = typed_bundle(options.model, kinds, options.bundle)
    unbuilt = build(bundle, options.batch)
    pytorch = TorchPeers(options.model, device)
    batches = {}
    for batch in options.batch:
        print(f"batch {batch}", flush=True)
        batches[str(batch)] = measure(options, bundle, pytorch, drawn(bundle, batch), unbuilt)
    side = 256 if options.dry_run else SQUARE
    square = in_rounds({"": large_product(device, pytorch.dtype, side)}, rounds=5, calls=5, rest_s=0.0)[""]
    return {
        "benchmark": "gpu",
        "dry_run": options.dry_run,
        "environment": {**environment(torch.get_num_threads()), **gpu_environment(device)},
        "model": options.model.rsplit("/", 1)[-1],
        "square_product": {"side": side, "tflop_per_second": 2 * side**3 / timing(_flat(square)).median_ms / 1e9},
        "batches": batches,
    }


def measure(
    options: argparse.Namespace, bundle: Path, pytorch: TorchPeers, pixels: Pixels, unbuilt: dict[str, str]
) -> dict[str, Any]:
    """One batch through all that can run it."""
    peers: dict[str, Peer] = {}
    absent: dict[str, str] = {}
    with ExitStack() as closing:
        peers[EAGER] = pytorch.eager()
        _add(peers, absent, COMPILED, partial(_compiled, options, pytorch, pixels))
        _add(peers, absent, CUDA_EP, lambda: onnxruntime_cuda(graph_of(bundle, Precision.FP16)))
        for backend, precision in OURS:
            if (name := f"{backend} {precision}") in unbuilt:
                absent[f"clipdeploy, {name}"] = unbuilt[name]
                continue
            _add(peers, absent, f"clipdeploy, {name}", partial(_ours, closing, bundle, backend, precision, len(pixels)))
        exact = peers[EAGER].host(pixels).astype(np.float64)
        cosines = {name: float((peer.host(pixels) * exact).sum(axis=1).min()) for name, peer in peers.items()}
        often = {"rounds": options.rounds, "calls": options.calls}
        host = in_rounds({n: partial(p.host, pixels) for n, p in peers.items()}, rest_s=0.05, warm_up_s=0.2, **often)
        products = products_of(pytorch.network, pixels.shape)
        tensor, wait = _on_device(pytorch, pixels)
        alone = {n: partial(_waiting, p.device, tensor, wait) for n, p in peers.items() if p.device is not None}
        alone[CEILING] = products_alone(products, pytorch.place, pytorch.dtype)
        device = in_rounds(alone, rest_s=0.05, warm_up_s=0.2, **often)
    return {
        "host_ms": {name: asdict(timing(_flat(samples))) for name, samples in host.items()},
        "device_ms": {name: asdict(timing(_flat(samples))) for name, samples in device.items()},
        "gflop_in_products": sum(one.flop for one in products) / 1e9,
        "least_cosine_to_pytorch_eager": cosines,
        "absent": absent,
        "told": {name: peer.told for name, peer in peers.items() if peer.told},
    }


def _add(peers: dict[str, Peer], absent: dict[str, str], name: str, make: Any) -> None:
    try:
        peers[name] = make()
    except NotHereError as error:
        absent[name] = str(error)


def _compiled(options: argparse.Namespace, pytorch: TorchPeers, pixels: Pixels) -> Peer:
    if not options.compile:
        raise NotHereError("left out: --no-compile")
    return pytorch.compiled(pixels)


def _ours(closing: ExitStack, bundle: Path, backend: str, precision: str, batch: int) -> Peer:
    peer, clip = ours(bundle, backend, precision, batch)
    closing.enter_context(clip)
    return peer


def _on_device(pytorch: TorchPeers, pixels: Pixels) -> tuple[Any, Any]:
    """The pixels where the network is, and what waits for the GPU."""
    torch = pytorch.torch
    tensor = torch.from_numpy(pixels).to(pytorch.place)
    return tensor, torch.cuda.synchronize if pytorch.place == "cuda" else (lambda: None)


def _waiting(device: Any, tensor: Any, wait: Any) -> None:
    answer = device(tensor)
    wait()
    del answer


def gpu_environment(device: str) -> dict[str, Any]:
    """The GPU, its driver, and the libraries that drive it."""
    import torch

    if device != "cuda":
        return {"gpu": None}
    line = ["nvidia-smi", "--query-gpu=driver_version,clocks.sm,clocks.max.sm,power.limit", "--format=csv,noheader"]
    try:
        told = subprocess.run(line, capture_output=True, text=True, check=False).stdout.strip()
    except OSError as error:
        told = f"nvidia-smi: {error}"
    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": {
            "name": properties.name,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "driver, clock, highest clock, power": told,
            "cuda_of_torch": torch.version.cuda,
        },
        "gpu_libraries": installed(_LIBRARIES),
    }


def gpu_table(record: dict[str, Any]) -> str:
    """Pictures a second, from host to host and on the GPU alone, and the share of the ceiling."""
    rows = []
    for batch, row in record["batches"].items():
        ceiling = row["device_ms"][CEILING]["median_ms"]
        for name in dict.fromkeys([*row["host_ms"], *row["device_ms"]]):
            host, alone = (row[kind].get(name) for kind in ("host_ms", "device_ms"))
            cosine = row["least_cosine_to_pytorch_eager"].get(name)
            rows.append(
                (
                    f"batch {batch}, {name}",
                    f"{host['median_ms']:.3f}" if host else "",
                    f"{alone['median_ms']:.3f}" if alone else "",
                    f"{int(batch) / (alone or host)['median_ms'] * 1e3:.0f}",
                    f"{ceiling / alone['median_ms']:.0%}" if alone else "",
                    f"{cosine:.4f}" if cosine is not None else "",
                )
            )
    gpu = (record["environment"]["gpu"] or {}).get("name", "no GPU: a dry run, whose numbers say nothing")
    square = record["square_product"]
    head = f"{record['model']}, {gpu}; one product of side {square['side']}: {square['tflop_per_second']:.1f} TFLOP/s"
    columns = ("image encoder", "host to host, ms", "on the GPU, ms", "pictures/s", "of the ceiling", "cosine")
    return f"{head}\n\n{table(columns, rows)}"


def absent_text(record: dict[str, Any]) -> str:
    """Who did not run, and why."""
    absent = {name: why for row in record["batches"].values() for name, why in row["absent"].items()}
    return "\n".join(f"- Not run: {name}: {why}" for name, why in absent.items())


def _flat(samples: list[list[float]]) -> list[float]:
    return [ms for one in samples for ms in one]


if __name__ == "__main__":
    main()
