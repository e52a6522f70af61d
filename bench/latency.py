"""Latency of the image encoder, and of the whole way from a 1080p JPEG to a label.

    python -m bench.latency [BUNDLE] [--model ViT-B-32] [--photos FOLDER] [--threads 2]

Beside each other in one run: PyTorch eager in float32 (open_clip), a bare ONNX Runtime session on the bundle's
graph, and clipdeploy. All have the same number of threads. Weights are random, which changes no time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import clipdeploy
from bench.ceiling import pytorch_product
from bench.common import (
    OUT,
    Timing,
    environment,
    full_hd_jpeg,
    interleaved,
    parser_of,
    random_bundle,
    table,
    write_json,
)
from bench.products import products_of
from clipdeploy.runtime.image import open_image
from clipdeploy.runtime.labels import DEFAULT_TEMPLATE, fill_templates
from clipdeploy.runtime.scores import probabilities, rank
from clipdeploy.spec import Tower

BATCHES = (1, 8)
_SIDE = 2048
LABELS = ["dog", "cat", "bird", "car", "bicycle", "person", "tree", "house", "boat", "plane"]
PYTORCH, BARE, OURS = "PyTorch eager", "ONNX Runtime, bare", "clipdeploy"
STAGES = (
    ("decode", "JPEG file to picture"),
    ("resize", "resize, crop, RGB"),
    ("normalise", "bytes to float32"),
    ("image", "image encoder"),
    ("bank", "text bank, kept"),
    ("score", "similarity, softmax, best label"),
)


def main() -> None:
    """Run the comparison, print it, write it."""
    parser = parser_of("latency", __doc__)
    parser.add_argument("bundle", nargs="?", type=Path, help="bundle of --model; exported to out/bench when not given")
    parser.add_argument("--model", default="ViT-B-32", help="open_clip architecture")
    parser.add_argument("--photos", type=Path, help="folder of photographs; the first one becomes the 1080p JPEG")
    parser.add_argument("--threads", type=int, default=2, help="threads of each engine")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds")
    parser.add_argument("--calls", type=int, default=10, help="measured calls a round")
    parser.add_argument("--json", type=Path, default=OUT / "latency.json", help="result file")
    options = parser.parse_args()

    bundle = random_bundle(options.model, options.bundle)
    photo = next(iter(sorted(options.photos.rglob("*.jpg"))), None) if options.photos else None
    peers = Peers(bundle, options.model, options.threads)
    timing = {"rounds": options.rounds, "calls": options.calls}
    encode = {batch: interleaved(peers.encoders(batch), **timing) for batch in BATCHES}
    ceiling = peers.ceiling()
    with tempfile.TemporaryDirectory() as folder:
        jpeg = full_hd_jpeg(Path(folder) / "1080p.jpg", photo)
        size_bytes = jpeg.stat().st_size
        ours, theirs = peers.our_stages(jpeg), peers.their_stages(jpeg)
        stages = {key: interleaved({OURS: ours[key], PYTORCH: theirs[key]}, **timing) for key, _ in STAGES}
        stages["first bank"] = interleaved(
            {OURS: ours["first bank"], PYTORCH: theirs["first bank"]}, rounds=options.rounds, calls=1
        )
        stages["whole"] = interleaved(peers.whole(jpeg), **timing)
    record = {
        "benchmark": "latency",
        "environment": environment(options.threads),
        "model": options.model,
        "encode_ms": {str(batch): {name: asdict(t) for name, t in row.items()} for batch, row in encode.items()},
        "ceiling": ceiling,
        "jpeg": {"source": photo.name if photo else "drawn", "width": 1920, "height": 1080, "size_bytes": size_bytes},
        "jpeg_to_label_ms": {key: {name: asdict(t) for name, t in row.items()} for key, row in stages.items()},
    }
    write_json(options.json, record)
    env = record["environment"]
    print(f"{options.model}, float32, {options.threads} threads, {env['cpu']}, load {env['load_1min']}\n")
    print(encode_table(encode))
    print(f"\n{ceiling_text(ceiling)}")
    print(f"\n1080p JPEG ({size_bytes / 1e3:.0f} kB) to one of {len(LABELS)} labels\n")
    print(journey_table(stages))
    print(f"\nwritten to {options.json}")


class Peers:
    """The same model three times: PyTorch, a bare session, and clipdeploy."""

    def __init__(self, bundle: Path, model: str, threads: int) -> None:
        import onnxruntime
        import torch

        from clipdeploy.export.load import load_checkpoint
        from clipdeploy.request import CheckpointRequest

        torch.set_num_threads(threads)
        self.torch, self.threads = torch, threads
        self.checkpoint = load_checkpoint(CheckpointRequest(model, random_weights=True))
        self.clip = clipdeploy.load(bundle, backend="onnxruntime", threads=threads, check_hashes=False)
        session_options = onnxruntime.SessionOptions()
        session_options.intra_op_num_threads = threads
        graph = self.clip.bundle.graph(Tower.IMAGE)
        self.session = onnxruntime.InferenceSession(str(graph), session_options, providers=["CPUExecutionProvider"])
        self.bank = self.clip.encode_labels(LABELS)

    def ceiling(self) -> dict[str, float]:
        """What the matrix products of one picture amount to, and how fast this machine does nothing but such."""
        pixels = self.clip.spec.pixels
        products = products_of(self.checkpoint.model, (1, 3, pixels.height, pixels.width))
        alone = {"product": pytorch_product("float32", _SIDE, self.threads)}
        taken = interleaved(alone, rounds=5, calls=5)["product"]
        return {
            "gflop_per_picture": sum(one.flop for one in products) / 1e9,
            "gflop_per_second": 2 * _SIDE**3 / taken.median_ms / 1e6,
        }

    def encoders(self, batch: int) -> dict[str, Callable[[], object]]:
        """Pixels to embeddings, by each."""
        spec, model = self.clip.spec, self.checkpoint.model
        shape = (batch, 3, spec.pixels.height, spec.pixels.width)
        pixels = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        tensor, feed = self.torch.from_numpy(pixels), {spec.image.input.name: pixels}

        def eager() -> object:
            with self.torch.inference_mode():
                return model.encode_image(tensor, normalize=True).numpy()  # type: ignore[operator]

        return {
            PYTORCH: eager,
            BARE: lambda: self.session.run(None, feed)[0],
            OURS: lambda: self.clip.encode_pixels(pixels),
        }

    def our_stages(self, jpeg: Path) -> dict[str, Callable[[], object]]:
        """Every stage of `Clip.classify` on its own, and the text bank the first time."""
        clip, texts = self.clip, fill_templates(LABELS, [DEFAULT_TEMPLATE])
        picture = open_image(jpeg)
        crop = clip.images.crop(picture)[None]
        pixels = clip.images.normalize(crop)
        embeds = clip.encode_pixels(pixels)
        return {
            "decode": lambda: open_image(jpeg),
            "resize": lambda: clip.images.crop(picture),
            "normalise": lambda: clip.images.normalize(crop),
            "image": lambda: clip.encode_pixels(pixels),
            "bank": lambda: clip.encode_labels(LABELS),
            "score": lambda: self._best(embeds),
            "first bank": lambda: clip.encode_text(texts),
        }

    def their_stages(self, jpeg: Path) -> dict[str, Callable[[], object]]:
        """The same stages as open_clip's users write them."""
        checkpoint, steps = self.checkpoint, self.checkpoint.transform.transforms  # type: ignore[attr-defined]
        picture = _decoded(jpeg)
        crop = _through(steps[:-2], picture)
        tensor = _through(steps[-2:], crop)[None]
        bank = self.torch.from_numpy(self.bank)
        texts = fill_templates(LABELS, [DEFAULT_TEMPLATE])

        def image() -> Any:
            with self.torch.inference_mode():
                return checkpoint.model.encode_image(tensor, normalize=True)  # type: ignore[operator]

        def first_bank() -> Any:
            with self.torch.inference_mode():
                return checkpoint.model.encode_text(checkpoint.tokenize(texts), normalize=True)  # type: ignore[operator]

        embeds = image()
        return {
            "decode": lambda: _decoded(jpeg),
            "resize": lambda: _through(steps[:-2], picture),
            "normalise": lambda: _through(steps[-2:], crop)[None],
            "image": image,
            "bank": lambda: bank,
            "score": lambda: LABELS[int((self.clip.spec.logit_scale * embeds @ bank.T).softmax(dim=-1).argmax())],
            "first bank": first_bank,
        }

    def whole(self, jpeg: Path) -> dict[str, Callable[[], object]]:
        """JPEG file to label in one go, the text bank kept."""
        steps, bank = self.checkpoint.transform.transforms, self.torch.from_numpy(self.bank)  # type: ignore[attr-defined]

        def eager() -> str:
            with self.torch.inference_mode():
                tensor = _through(steps, _decoded(jpeg))[None]
                embeds = self.checkpoint.model.encode_image(tensor, normalize=True)  # type: ignore[operator]
                return LABELS[int((self.clip.spec.logit_scale * embeds @ bank.T).softmax(dim=-1).argmax())]

        return {PYTORCH: eager, OURS: lambda: self.clip.classify(jpeg, LABELS).label}

    def _best(self, embeds: np.ndarray) -> str:
        spec = self.clip.spec
        logits = spec.logit_scale * (embeds.astype(np.float64) @ self.bank.T.astype(np.float64)) + spec.logit_bias
        return rank(LABELS, logits[0], probabilities(logits, spec.probability)[0], len(LABELS)).label


def _decoded(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
    return picture


def _through(steps: list[Any], value: Any) -> Any:
    for step in steps:
        value = step(value)
    return value


def encode_table(encode: dict[int, dict[str, Timing]]) -> str:
    """Milliseconds a batch, pictures a second, and how many times as fast as PyTorch."""
    rows = [
        (
            f"batch {batch}, {name}",
            f"{t.median_ms:.1f}",
            f"{t.p90_ms:.1f}",
            f"{batch / t.median_ms * 1e3:.0f}",
            f"{row[PYTORCH].median_ms / t.median_ms:.2f}x",
            f"{(t.median_ms / row[BARE].median_ms - 1) * 100:+.1f} %",
        )
        for batch, row in encode.items()
        for name, t in row.items()
    ]
    return table(("encode_image on pixels", "median ms", "p90 ms", "pictures/s", "vs PyTorch", "vs bare session"), rows)


def ceiling_text(ceiling: dict[str, float]) -> str:
    """The least time that the matrix products of a batch can take."""
    gflop, speed = ceiling["gflop_per_picture"], ceiling["gflop_per_second"]
    least = ", ".join(f"{gflop * batch / speed * 1e3:.1f} ms at batch {batch}" for batch in BATCHES)
    return (
        f"The ceiling: a picture takes {gflop:.2f} GFLOP in matrix products, and PyTorch does {speed:.0f} GFLOP/s\n"
        f"here in one large float32 product. At that speed they would take {least}."
    )


def journey_table(stages: dict[str, dict[str, Timing]]) -> str:
    """Where the milliseconds go, ours beside open_clip's."""

    def row(name: str, *keys: str) -> tuple[str, str, str]:
        ours, theirs = (sum(stages[key][side].median_ms for key in keys) for side in (OURS, PYTORCH))
        return name, f"{ours:.2f}", f"{theirs:.2f}"

    rows = [
        *(row(text, key) for key, text in STAGES),
        row("sum of the stages", *(key for key, _ in STAGES)),
        row("in one go", "whole"),
        row("text bank, the first time", "first bank"),
    ]
    return table(("stage, median ms", OURS, "open_clip, PyTorch"), rows)


if __name__ == "__main__":
    main()
