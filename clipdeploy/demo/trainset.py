"""Pictures, captions and claims for training, rendered by several processes into plain arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipdeploy.demo.captions import caption, scene_codes
from clipdeploy.demo.paint import render
from clipdeploy.demo.world import TRAIN_STREAM, sample_scene

IMAGE_SIZE = 64
CAPTIONS_A_PICTURE = 4
CHUNK = 1000


@dataclass(frozen=True, slots=True)
class TrainSet:
    """N pictures, four captions each.

    pixels (N, 64, 64, 3) uint8 RGB; texts N x 4 str; claims (N, 4, 14) int8 (`Claim.codes`);
    things (N, 3, 4) int8 and places (N, 3, 2) float32 and setting (N, 4) int8 (`scene_codes`).
    """

    pixels: NDArray[np.uint8]
    texts: list[list[str]]
    claims: NDArray[np.int8]
    things: NDArray[np.int8]
    places: NDArray[np.float32]
    setting: NDArray[np.int8]


def shrink(picture: Image.Image, side: int = IMAGE_SIZE) -> Image.Image:
    """Shortest side to `side` px with a bicubic filter, then the central square, as the checkpoint's config says."""
    width, height = picture.size
    short = min(width, height)
    if (width, height) == (side, side):
        return picture
    fitted = picture.resize((round(width * side / short), round(height * side / short)), Image.Resampling.BICUBIC)
    left, top = (fitted.width - side) // 2, (fitted.height - side) // 2
    return fitted.crop((left, top, left + side, top + side))


def _canvas(rng: np.random.Generator) -> tuple[int, int]:
    """Mostly the model's own size; now and then a larger or longer picture, since real files are."""
    if rng.random() < 0.65:
        return IMAGE_SIZE, IMAGE_SIZE
    short = int(rng.integers(72, 176))
    long = int(short * rng.uniform(1.0, 1.5))
    return (short, long) if rng.random() < 0.5 else (long, short)


def make_chunk(seed: int, index: int, count: int = CHUNK) -> TrainSet:
    """The `index`-th chunk of the training set of a seed; the same on every machine."""
    rng = np.random.default_rng([TRAIN_STREAM, seed, index])
    pixels = np.empty((count, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    texts: list[list[str]] = []
    claims = np.empty((count, CAPTIONS_A_PICTURE, 14), np.int8)
    things = np.empty((count, 3, 4), np.int8)
    places = np.empty((count, 3, 2), np.float32)
    setting = np.empty((count, 4), np.int8)
    for i in range(count):
        scene = sample_scene(rng, things=1 + int(rng.choice(3, p=(0.62, 0.26, 0.12))))
        pixels[i] = np.asarray(shrink(render(scene, _canvas(rng))))
        said = [caption(rng, scene) for _ in range(CAPTIONS_A_PICTURE)]
        texts.append([text for text, _ in said])
        claims[i] = [claim.codes() for _, claim in said]
        things[i], places[i], setting[i] = scene_codes(scene)
    return TrainSet(pixels, texts, claims, things, places, setting)


def _make_one(job: tuple[int, int, int]) -> TrainSet:
    return make_chunk(*job)


def _chunks(jobs: list[tuple[int, int, int]], workers: int) -> Iterator[TrainSet]:
    if workers <= 1:
        yield from map(_make_one, jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_make_one, jobs)


def make_trainset(
    seed: int, count: int, *, workers: int = 2, progress: Callable[[int, int], None] | None = None
) -> TrainSet:
    """`count` training pictures, the same whatever the number of `workers`. `progress(done, count)` is called."""
    jobs = [(seed, i, min(CHUNK, count - i * CHUNK)) for i in range((count + CHUNK - 1) // CHUNK)]
    parts: list[TrainSet] = []
    done = 0
    for part in _chunks(jobs, workers):
        parts.append(part)
        done += len(part.texts)
        if progress is not None:
            progress(done, count)
    return TrainSet(
        pixels=np.concatenate([p.pixels for p in parts]),
        texts=[row for p in parts for row in p.texts],
        claims=np.concatenate([p.claims for p in parts]),
        things=np.concatenate([p.things for p in parts]),
        places=np.concatenate([p.places for p in parts]),
        setting=np.concatenate([p.setting for p in parts]),
    )


def save(path: Path, made: TrainSet) -> None:
    """Keeps a training set as one .npz, written beside and renamed."""
    beside = path.with_name(path.name + ".part")
    with beside.open("wb") as file:
        np.savez(file, allow_pickle=False, **{name: np.array(getattr(made, name)) for name in TrainSet.__slots__})
    beside.replace(path)


def load(path: Path) -> TrainSet:
    """What `save` wrote."""
    with np.load(path) as kept:
        fields = {name: kept[name] for name in TrainSet.__slots__}
    return TrainSet(**(fields | {"texts": fields["texts"].tolist()}))


def cached_trainset(
    folder: Path, seed: int, count: int, *, workers: int = 2, progress: Callable[[int, int], None] | None = None
) -> TrainSet:
    """`make_trainset`, done once a folder."""
    path = folder / f"trainset-{seed}-{count}.npz"
    if path.exists():
        return load(path)
    folder.mkdir(parents=True, exist_ok=True)
    made = make_trainset(seed, count, workers=workers, progress=progress)
    save(path, made)
    return made
