"""The runtime beside the engines it stands on, and beside PyTorch: the image encoder on a processor, in one run.

    python -m bench.runtime [BUNDLE] [--model ViT-B-32] [--threads 2] [--batch 1 8 32] [--rounds 7] [--calls 8]

PyTorch eager and compiled, ONNX Runtime and OpenVINO bare, and clipdeploy by backend and precision. All have the same
number of threads, take turns in each round, and embed the same pictures; each of ours is held against the bare engine
with the very graph that it runs. Weights are random, which changes no time. `--rounds 3 --calls 3 --no-compile` takes
some three minutes on two cores.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import clipdeploy
from bench.bare import Embed, NotHereError, Pixels, PyTorch, onnxruntime_bare, openvino_bare
from bench.ceiling import probe
from bench.common import OUT, at_full_speed, environment, in_rounds, parser_of, ratio, timing, write_json
from bench.pages.runtime import EAGER, report
from bench.typed_bundle import INT8_CPU, INT8_QDQ, clouds, typed_bundle
from clipdeploy.bundle import Bundle
from clipdeploy.errors import ClipdeployError
from clipdeploy.spec import Precision, Tower

COMPILED = "torch.compile fp32"
BARE_ORT, BARE_ORT_INT8 = "ONNX Runtime fp32", "ONNX Runtime int8"
BARE_OV, BARE_OV_DEFAULT, BARE_OV_INT8 = "OpenVINO fp32", "OpenVINO fp32 graph, default hint", "OpenVINO int8"
OURS = (
    ("onnxruntime", "fp32", BARE_ORT),
    ("onnxruntime", "int8", BARE_ORT_INT8),
    ("openvino", "fp32", BARE_OV),
    ("openvino", "bf16", BARE_OV_DEFAULT),
    ("openvino", "int8", BARE_OV_INT8),
)


@dataclass
class Candidates:
    """What takes part with one batch.

    Attributes:
        embed: pixels to embeddings, by each.
        bare: of each of ours, the name of the engine that it stands on.
        absent: of those that cannot run here, why.
        told: of ours, what the runtime says of its choice.
        closing: what gives the memory of ours back.
    """

    embed: dict[str, Embed] = field(default_factory=dict)
    bare: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)
    closing: ExitStack = field(default_factory=ExitStack)

    def add(self, name: str, make: Callable[[], Embed]) -> bool:
        """Take one in, unless it says that it cannot run here."""
        try:
            self.embed[name] = make()
        except (NotHereError, ClipdeployError) as error:
            self.absent[name] = error.message if isinstance(error, ClipdeployError) else str(error)
            print(f"{name}: {self.absent[name]}", flush=True)
            return False
        return True


def ours_name(backend: str, precision: str) -> str:
    """How one of ours is called in the results."""
    return f"clipdeploy, {backend} {precision}"


class Bench:
    """The peers that serve every batch, loaded once, and ours, loaded for each."""

    def __init__(self, bundle: Path, model: str, threads: int, *, compiled: bool) -> None:
        self.bundle, self.threads, self.compiled = bundle, threads, compiled
        self.pytorch = PyTorch(model, threads)
        opened = Bundle.open(bundle, check_hashes=False)
        fp32 = opened.graph(Tower.IMAGE)
        self.bare, self.hints = Candidates(), dict[str, str]()
        self.bare.add(BARE_ORT, lambda: onnxruntime_bare(fp32, threads))
        self.bare.add(BARE_ORT_INT8, lambda: onnxruntime_bare(opened.graph(Tower.IMAGE, *INT8_CPU), threads))
        qdq = opened.graph(Tower.IMAGE, *INT8_QDQ)
        for name, graph, hint in ((BARE_OV, fp32, "f32"), (BARE_OV_DEFAULT, fp32, None), (BARE_OV_INT8, qdq, None)):
            self.bare.add(name, partial(self._openvino, name, graph, hint))

    def candidates(self, pixels: Pixels) -> Candidates:
        """All that run a batch like `pixels`; each of ours stands beside its bare engine."""
        found = Candidates({EAGER: self.pytorch.eager}, absent=dict(self.bare.absent))
        if not self.compiled:
            found.absent[COMPILED] = "left out: --no-compile"
        else:
            print(f"compiling for a batch of {len(pixels)}", flush=True)
            found.add(COMPILED, lambda: self.pytorch.compiled(pixels))
        for backend, precision, bare in OURS:
            if bare in self.bare.embed:
                found.embed[bare] = self.bare.embed[bare]
            name = ours_name(backend, precision)
            if found.add(name, partial(self._ours, found, backend, precision, len(pixels))):
                found.bare[name] = bare
        return found

    def _openvino(self, name: str, graph: Path, hint: str | None) -> Embed:
        embed, self.hints[name] = openvino_bare(graph, self.threads, hint)
        return embed

    def _ours(self, found: Candidates, backend: str, precision: str, batch: int) -> Embed:
        clip = clipdeploy.load(
            self.bundle,
            backend=backend,
            precision=precision,
            threads=self.threads,
            usual_batch=batch,
            check_hashes=False,
        )
        found.closing.enter_context(clip)
        height, width = clip.spec.pixels.height, clip.spec.pixels.width
        clip.encode_pixels(np.zeros((1, 3, height, width), np.float32))  # raises now what it would raise later
        found.told[ours_name(backend, precision)] = clip.backend.reason
        return partial(clip.encode_pixels, batch_size=batch)


def main() -> None:
    """Run the comparison, print it, write it."""
    parser = parser_of("runtime", __doc__)
    parser.add_argument("bundle", nargs="?", type=Path, help="bundle of --model with int8 graphs for both targets")
    parser.add_argument("--model", default="ViT-B-32", help="open_clip architecture")
    parser.add_argument("--threads", type=int, default=2, help="threads of each engine")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8, 32], help="rows of one run")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds")
    parser.add_argument("--calls", type=int, default=8, help="measured calls a round at batch 1, fewer for more rows")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="leave torch.compile out")
    parser.add_argument("--json", type=Path, default=OUT / "runtime.json", help="result file")
    options = parser.parse_args()

    bundle = typed_bundle(options.model, (INT8_CPU, INT8_QDQ), options.bundle)
    with tempfile.TemporaryDirectory() as remembered:
        os.environ["CLIPDEPLOY_CACHE"] = remembered  # what this machine settled before is no part of it
        bench = Bench(bundle, options.model, options.threads, compiled=options.compile)
        batches = {
            str(batch): measure(bench, drawn(bundle, batch), options.rounds, calls_of(options.calls, batch))
            for batch in options.batch
        }
        auto = chosen_by_auto(bundle, options.threads, options.batch)
    record = {
        "benchmark": "runtime",
        "environment": environment(options.threads),
        "model": options.model.rsplit("/", 1)[-1],
        "openvino_computes_in": bench.hints,
        "batches": batches,
        "auto": auto,
    }
    write_json(options.json, record)
    print(f"\n{report(record)}\n\nwritten to {options.json}")


def calls_of(calls: int, batch: int) -> int:
    """Measured calls of one round with a batch: fewer where each takes longer."""
    return max(2, round(calls / batch**0.5))


def drawn(bundle: Path, batch: int) -> Pixels:
    """Pixels of that many drawn pictures, as the bundle wants them."""
    from clipdeploy.runtime.image import ImageProcessor

    process = ImageProcessor(Bundle.open(bundle, check_hashes=False).model.pixels)
    return np.ascontiguousarray(process([clouds(1000 + seed) for seed in range(batch)]))


def measure(bench: Bench, pixels: Pixels, rounds: int, calls: int) -> dict[str, Any]:
    """Times of one batch, ours beside their engines round by round, and how near all are to PyTorch's answers."""
    found = bench.candidates(pixels)
    with found.closing:
        exact = found.embed[EAGER](pixels).astype(np.float64)
        cosines = {name: float((embed(pixels) * exact).sum(axis=1).min()) for name, embed in found.embed.items()}
        print(f"timing {len(found.embed)} candidates with a batch of {len(pixels)}", flush=True)
        calling = {name: partial(embed, pixels) for name, embed in found.embed.items()}
        probes: list[list[float]] = []
        samples = in_rounds(calling, rounds=rounds, calls=calls, probe=probe, probes=probes)
    eager = samples[EAGER]
    at_best = at_full_speed(samples, probes, list(calling))
    return {
        "rounds": rounds,
        "calls": calls,
        "encode_ms": {name: asdict(timing([ms for one in runs for ms in one])) for name, runs in samples.items()},
        "to_bare": {
            ours: {"bare": bare, **asdict(ratio(samples[ours], samples[bare]))}
            for ours, bare in found.bare.items()
            if bare in samples
        },
        "times_pytorch": {
            name: {"median": 1 / (r := ratio(runs, eager)).median, "fastest": 1 / r.fastest}
            for name, runs in samples.items()
        },
        "probe_ms": probes,
        "at_full_speed": {name: asdict(timing(values)) for name, values in at_best.items() if values},
        "least_cosine_to_pytorch": cosines,
        "absent": found.absent,
        "told": found.told,
    }


def chosen_by_auto(bundle: Path, threads: int, batches: list[int]) -> dict[str, Any]:
    """What `precision="auto", backend="auto"` takes for each batch on this machine, and what it says."""
    told = {}
    for batch in batches:
        with clipdeploy.load(
            bundle, precision="auto", backend="auto", threads=threads, usual_batch=batch, check_hashes=False
        ) as clip:
            precision = clip.precisions[Tower.IMAGE]
            told[str(batch)] = {
                "backend": clip.backend.name,
                "precision": Precision(precision).value,
                "reason": clip.backend.reason,
            }
    return told


if __name__ == "__main__":
    main()
