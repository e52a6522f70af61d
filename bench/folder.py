"""A folder of 1080p JPEGs to labels: the runtime beside the script that open_clip's users write, in one run.

    python -m bench.folder [BUNDLE] [--model ViT-B-32] [--photos FOLDER] [--count 64] [--batch 8] [--threads 2]

The script is the one of open_clip's README, picture by picture; a second one does the same in batches. All have the
same number of threads, read the same files, and take turns in each round. Weights are random, so that the labels mean
nothing, but float32 must give the script's own. `--count 16 --rounds 3` takes a minute on two cores.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

import clipdeploy
from bench.common import (
    OUT,
    checkpoint_of,
    environment,
    full_hd_jpeg,
    interleaved,
    parser_of,
    ratio,
    table,
    timing,
    write_json,
)
from bench.typed_bundle import INT8_CPU, INT8_QDQ, typed_bundle
from clipdeploy.errors import ClipdeployError
from clipdeploy.pictures import find_pictures
from clipdeploy.runtime.clip import Clip
from clipdeploy.runtime.image import open_image
from clipdeploy.runtime.labels import DEFAULT_TEMPLATE, fill_templates

LABELS = ["dog", "cat", "bird", "car", "bicycle", "person", "tree", "house", "boat", "plane"]
SCRIPT, SCRIPT_IN_BATCHES = "open_clip script", "open_clip script, in batches"
OURS = (
    ("onnxruntime", "fp32"),
    ("onnxruntime", "int8"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
)
PARTS = {
    "decode": "file to picture",
    "resize": "resize, crop, RGB",
    "normalise": "bytes to float32",
    "encoder": "image encoder",
    "score": "similarity, softmax, best label",
}
_UNTIL_THREADS_SLEEP_S = 0.25

Label = Callable[[Sequence[Path]], list[str]]
"""Picture files to labels."""


def main() -> None:
    """Run the comparison, print it, write it."""
    parser = parser_of("folder", __doc__)
    parser.add_argument("bundle", nargs="?", type=Path, help="bundle of --model with int8 graphs for both targets")
    parser.add_argument("--model", default="ViT-B-32", help="open_clip architecture")
    parser.add_argument("--photos", type=Path, help="folder of photographs to make the JPEGs of; drawn when not given")
    parser.add_argument("--count", type=int, default=64, help="pictures in the folder")
    parser.add_argument("--batch", type=int, default=8, help="pictures in one run")
    parser.add_argument("--threads", type=int, default=2, help="threads of each")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds")
    parser.add_argument("--json", type=Path, default=OUT / "folder.json", help="result file")
    options = parser.parse_args()

    bundle = typed_bundle(options.model, (INT8_CPU, INT8_QDQ), options.bundle)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        files = make_folder(Path(folder), options.count, options.photos)
        script = Script(options.model, options.threads)
        clips, absent = open_clips(bundle, options.threads, options.batch, opened)
        candidates: dict[str, Label] = {
            SCRIPT: script.one_by_one,
            SCRIPT_IN_BATCHES: partial(script.in_batches, size=options.batch),
            **{name: partial(classify, clip, size=options.batch) for name, clip in clips.items()},
        }
        samples, labels = measure(candidates, files, options.rounds, options.batch)
        parts = {name: our_parts(clip, files, options.batch) for name, clip in clips.items()}
        parts[SCRIPT] = script.parts(files)
        sizes = [file.stat().st_size for file in files]
    record = {
        "benchmark": "folder",
        "environment": environment(options.threads),
        "model": options.model,
        "pictures": {
            "source": "photographs" if options.photos else "drawn",
            "count": len(files),
            "width": 1920,
            "height": 1080,
            "mean_bytes": statistics.mean(sizes),
        },
        "labels": len(LABELS),
        "batch": options.batch,
        "rounds": options.rounds,
        "picture_ms": {name: asdict(timing([ms for (ms,) in runs])) for name, runs in samples.items()},
        "times_script": times(samples, SCRIPT),
        "times_script_in_batches": times(samples, SCRIPT_IN_BATCHES),
        "same_label_as_script": {
            name: float(np.mean([a == b for a, b in zip(given, labels[SCRIPT], strict=True)]))
            for name, given in labels.items()
        },
        "parts_ms": parts,
        "absent": absent,
    }
    write_json(options.json, record)
    print(f"\n{report(record)}\n\nwritten to {options.json}")


def make_folder(folder: Path, count: int, images: Path | None) -> list[Path]:
    """That many 1080p JPEGs: of the photographs in `images`, over and over, or drawn."""
    photos = find_pictures([images], recursive=True) if images else ()
    return [
        full_hd_jpeg(folder / f"{i:05}.jpg", photos[i % len(photos)] if photos else None, seed=i) for i in range(count)
    ]


def open_clips(bundle: Path, threads: int, batch: int, opened: ExitStack) -> tuple[dict[str, Clip], dict[str, str]]:
    """Ours, by name, with their text banks made; and of those that cannot run here, why."""
    clips, absent = dict[str, Clip](), dict[str, str]()
    for backend, precision in OURS:
        name = f"clipdeploy, {backend} {precision}"
        try:
            clip = opened.enter_context(
                clipdeploy.load(
                    bundle,
                    backend=backend,
                    precision=precision,
                    threads=threads,
                    usual_batch=batch,
                    check_hashes=False,
                )
            )
            clip.encode_labels(LABELS)
            clip.encode_pixels(np.zeros((1, 3, clip.spec.pixels.height, clip.spec.pixels.width), np.float32))
        except ClipdeployError as error:
            absent[name] = error.message
            print(f"{name}: {error.message}", flush=True)
        else:
            clips[name] = clip
    return clips, absent


def classify(clip: Clip, files: Sequence[Path], size: int) -> list[str]:
    """Labels as users of clipdeploy get them."""
    return [answer.label for answer in clip.classify(files, LABELS, batch_size=size)]


class Script:
    """What open_clip's README tells users to write; the text features are made once, before."""

    def __init__(self, model: str, threads: int) -> None:
        import torch

        from clipdeploy.export.load import load_checkpoint

        torch.set_num_threads(threads)
        self.torch = torch
        checkpoint = load_checkpoint(checkpoint_of(model))
        self.model = cast(Any, checkpoint.model).eval()
        self.preprocess: Any = checkpoint.transform
        tokenize: Any = checkpoint.tokenize
        self.scale = checkpoint.spec.logit_scale
        with torch.no_grad():
            features = self.model.encode_text(tokenize(fill_templates(LABELS, [DEFAULT_TEMPLATE])))
            self.text_features = features / features.norm(dim=-1, keepdim=True)

    def one_by_one(self, files: Sequence[Path]) -> list[str]:
        """Picture by picture."""
        labels = []
        for file in files:
            image = self.preprocess(Image.open(file)).unsqueeze(0)
            labels += self.score(self.encode(image))
        return labels

    def in_batches(self, files: Sequence[Path], size: int) -> list[str]:
        """The same, `size` pictures in one run."""
        labels = []
        for start in range(0, len(files), size):
            images = [self.preprocess(Image.open(file)) for file in files[start : start + size]]
            labels += self.score(self.encode(self.torch.stack(images)))
        return labels

    def encode(self, images: Any) -> Any:
        """(N, 3, H, W) -> (N, D)."""
        with self.torch.no_grad():
            return self.model.encode_image(images)

    def score(self, features: Any) -> list[str]:
        """(N, D) -> N labels."""
        features = features / features.norm(dim=-1, keepdim=True)
        chances = (self.scale * features @ self.text_features.T).softmax(dim=-1)
        return [LABELS[int(best)] for best in chances.argmax(dim=-1)]

    def parts(self, files: Sequence[Path]) -> dict[str, float]:
        """Median ms a picture of every part, each on its own."""
        steps = self.preprocess.transforms
        picture = decoded(files[0])
        crop = through(steps[:-2], picture)
        image = through(steps[-2:], crop).unsqueeze(0)
        features = self.encode(image)
        turns = cycle(files)
        return medians(
            {
                "decode": lambda: decoded(next(turns)),
                "resize": lambda: through(steps[:-2], picture),
                "normalise": lambda: through(steps[-2:], crop).unsqueeze(0),
                "encoder": lambda: self.encode(image),
                "score": lambda: self.score(features),
            }
        )


def our_parts(clip: Clip, files: Sequence[Path], batch: int) -> dict[str, float]:
    """Median ms a picture of every part, each on its own and in one thread but for the encoder, which has a batch."""
    picture = open_image(files[0])
    crop = clip.images.crop(picture)
    pixels = clip.images.normalize(np.repeat(crop[None], batch, axis=0))
    embeds = clip.encode_pixels(pixels, batch_size=batch)
    classifier = clip.classifier(LABELS)
    plane, turns = np.empty_like(pixels[0]), cycle(files)
    whole = medians(
        {
            "decode": lambda: open_image(next(turns)),
            "resize": lambda: clip.images.crop(picture),
            "normalise": lambda: clip.images.normalize_into(crop, plane),
            "encoder": lambda: clip.encode_pixels(pixels, batch_size=batch),
            "score": lambda: classifier.classify_embeddings(embeds),
        }
    )
    return {part: ms / batch if part in ("encoder", "score") else ms for part, ms in whole.items()}


def decoded(file: Path) -> Image.Image:
    """The picture in a file, read whole."""
    picture = Image.open(file)
    picture.load()
    return picture


def through(steps: Sequence[Callable[[Any], Any]], value: Any) -> Any:
    """`value` after every step of a transform."""
    for step in steps:
        value = step(value)
    return value


def medians(parts: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Median ms of a call of each."""
    return {part: found.median_ms for part, found in interleaved(parts, rounds=2, calls=8).items()}


def measure(
    candidates: Mapping[str, Label], files: Sequence[Path], rounds: int, batch: int
) -> tuple[dict[str, list[list[float]]], dict[str, list[str]]]:
    """Wall ms a picture of every candidate in every round, and the labels that it gave.

    The next round starts with another candidate. Each waits until the threads of the one before have gone to sleep,
    and labels some pictures unmeasured first.
    """
    names, labels = list(candidates), dict[str, list[str]]()
    samples: dict[str, list[list[float]]] = {name: [] for name in names}
    gc.collect()
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            time.sleep(_UNTIL_THREADS_SLEEP_S)
            candidates[name](files[: min(batch, 4)])
            started = time.perf_counter()
            labels[name] = candidates[name](files)
            samples[name].append([(time.perf_counter() - started) * 1e3 / len(files)])
        print(f"round {turn + 1} of {rounds}", flush=True)
    return samples, labels


def times(samples: Mapping[str, list[list[float]]], script: str) -> dict[str, dict[str, float]]:
    """How many times as fast as `script` each is."""
    found = {name: ratio(samples[script], runs) for name, runs in samples.items()}
    return {name: {"median": one.median, "least": one.least, "most": one.most} for name, one in found.items()}


def report(record: Mapping[str, Any]) -> str:
    """The tables: whole, and by parts."""
    pictures, env = record["pictures"], record["environment"]
    speed = [
        (
            name,
            f"{found['median_ms']:.1f}",
            f"{1e3 / found['median_ms']:.0f}",
            f"{record['times_script'][name]['median']:.2f}x",
            f"{record['times_script_in_batches'][name]['median']:.2f}x",
            f"{record['same_label_as_script'][name]:.1%}",
        )
        for name, found in record["picture_ms"].items()
    ]
    parts = [
        (
            name,
            *(f"{found[part]:.2f}" for part in PARTS),
            f"{sum(found.values()):.1f}",
            f"{record['picture_ms'][name]['median_ms']:.1f}",
        )
        for name, found in record["parts_ms"].items()
    ]
    return "\n\n".join(
        (
            f"{record['model']}, {pictures['count']} JPEGs of 1920x1080 ({pictures['source']}, "
            f"{pictures['mean_bytes'] / 1e3:.0f} kB) to one of {record['labels']} labels,\n"
            f"batches of {record['batch']}, {env['threads']} threads, {env['cpu']}, load {env['load_1min']}",
            table(("median of rounds", "ms/picture", "pictures/s", "vs script", "vs batches", "same label"), speed),
            "Each part on its own, ms a picture: one thread reads pictures, the encoder has all.\n"
            "The last column is what the whole takes, with the parts side by side.",
            table(("parts", *PARTS, "sum", "whole"), parts),
        )
    )


if __name__ == "__main__":
    main()
