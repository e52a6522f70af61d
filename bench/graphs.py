"""What lean tracing and the passes bring: each encoder as torch exports it, after onnxsim alone, and from clipdeploy.

    python -m bench.graphs [--model ViT-B-32] [--opset 19] [--threads 2] [--json FILE]

Nodes, size, and the latency in ONNX Runtime on the CPU: medians of runs taken in turns, so that all three meet the same
machine. Weights are random, with noise on biases and norms, so that no tool can drop them as zeros and ones.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxsim
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.common import OUT, environment, parser_of, table, write_json
from clipdeploy.export.checkpoint import Checkpoint
from clipdeploy.export.graph.checks import embeddings, latencies_ms
from clipdeploy.export.graph.trace import trace_tower
from clipdeploy.export.load import load_checkpoint
from clipdeploy.export.tower import ExportOptions, export_tower, sample_feeds
from clipdeploy.request import CheckpointRequest
from clipdeploy.spec import Tower

BATCHES = (1, 8)


@dataclass(frozen=True)
class Row:
    """One graph of one encoder."""

    tower: str
    graph: str
    nodes: int
    size_mb: float
    latency_ms: dict[int, float]
    fastest_ms: dict[int, float]
    max_abs: float
    seconds: float


class Plain(nn.Module):
    """An encoder of open_clip as it is, normalised as it does it."""

    def __init__(self, model: nn.Module, tower: Tower) -> None:
        super().__init__()
        self.model, self.tower = model, tower

    def forward(self, batch: Tensor) -> Tensor:
        """`(N, ...)` -> `(N, D)`."""
        encode = self.model.encode_image if self.tower is Tower.IMAGE else self.model.encode_text
        return F.normalize(encode(batch, normalize=False), dim=-1)


def compare(checkpoint: Checkpoint, tower: Tower, folder: Path, *, opset: int, threads: int, rounds: int) -> list[Row]:
    """The three graphs of one encoder."""
    plain, simple = folder / "plain.onnx", folder / "onnxsim.onnx"
    seconds = {}
    started = time.perf_counter()
    trace_tower(Plain(checkpoint.model, tower), checkpoint.spec.tower(tower), plain, opset=opset)
    seconds["torch"] = time.perf_counter() - started
    started = time.perf_counter()
    onnx.save(onnxsim.simplify(str(plain))[0], simple)
    seconds["torch + onnxsim"] = seconds["torch"] + time.perf_counter() - started
    ours = export_tower(checkpoint, tower, folder, ExportOptions(opset=opset))
    seconds["clipdeploy"] = ours.seconds
    graphs = {"torch": plain, "torch + onnxsim": simple, "clipdeploy": ours.graph}
    feeds = sample_feeds(checkpoint, tower)
    (name, batch), *_ = feeds.items()
    encode = checkpoint.reference_image_embeds if tower is Tower.IMAGE else checkpoint.reference_text_embeds
    expected = encode(batch)
    times: dict[str, dict[int, list[float]]] = {label: {} for label in graphs}
    for size in BATCHES:
        wide = {name: np.resize(batch, (size, *batch.shape[1:]))}
        for label, samples in latencies_ms(graphs, wide, rounds=rounds, threads=threads).items():
            times[label][size] = samples
    return [
        Row(
            tower.value,
            label,
            len(onnx.load(path, load_external_data=False).graph.node),
            path.stat().st_size / 1e6,
            {size: round(float(np.median(samples)), 2) for size, samples in times[label].items()},
            {size: round(min(samples), 2) for size, samples in times[label].items()},
            float(np.abs(embeddings(path, feeds)[0] - expected).max()),
            round(seconds[label], 1),
        )
        for label, path in graphs.items()
    ]


def graphs_table(rows: list[Row]) -> str:
    """The rows as aligned text."""
    head = ("encoder, graph", "nodes", "MB", *(f"batch {size}, ms" for size in BATCHES), "max abs", "made in, s")
    return table(
        head,
        [
            (
                f"{row.tower}, {row.graph}",
                str(row.nodes),
                f"{row.size_mb:.1f}",
                *(f"{row.latency_ms[size]:.1f}" for size in BATCHES),
                f"{row.max_abs:.1e}",
                f"{row.seconds:.1f}",
            )
            for row in rows
        ],
    )


def add_noise(model: nn.Module) -> None:
    """Make biases and norms of random weights differ from zeros and ones, as in a trained model."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.02 * torch.randn(parameter.shape, generator=generator)


def main() -> None:
    """Run the comparison and print it."""
    parser = parser_of("graphs", __doc__)
    parser.add_argument("--model", default="ViT-B-32", help="open_clip architecture")
    parser.add_argument("--opset", type=int, default=19, help="ONNX operator set of the graphs")
    parser.add_argument("--threads", type=int, default=2, help="threads of one run")
    parser.add_argument("--rounds", type=int, default=12, help="turns of three timed runs of each graph")
    parser.add_argument("--json", type=Path, default=OUT / "graphs.json", help="result file")
    arguments = parser.parse_args()
    checkpoint = load_checkpoint(CheckpointRequest(arguments.model, random_weights=True))
    add_noise(checkpoint.model)
    rows: list[Row] = []
    for tower in Tower:
        with tempfile.TemporaryDirectory() as folder:
            rows += compare(
                checkpoint,
                tower,
                Path(folder),
                opset=arguments.opset,
                threads=arguments.threads,
                rounds=arguments.rounds,
            )
    record = {
        "benchmark": "graphs",
        "environment": environment(arguments.threads),
        "model": arguments.model,
        "opset": arguments.opset,
        "rows": [asdict(row) for row in rows],
    }
    write_json(arguments.json, record)
    env = record["environment"]
    print(f"{arguments.model}, float32, {arguments.threads} threads, {env['cpu']}, load {env['load_1min']}\n")
    print(graphs_table(rows))
    print(f"\nwritten to {arguments.json}")


if __name__ == "__main__":
    main()
