"""One side of `bench.profile`: the runtime that is on the path, taken apart. Stands alone, for older sources too."""

from __future__ import annotations

import runpy
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import clipdeploy
from clipdeploy.runtime.image import open_image
from clipdeploy.runtime.resize import geometry, resize_crop

LABELS = ["dog", "cat", "bird", "car", "bicycle", "person", "tree", "house", "boat", "plane"]
_REST_S, _WARM_CALLS = 0.3, 2
_SERVING = Path(__file__).resolve().parents[1] / "clipdeploy" / "benchmark" / "serving.py"

Taken = list[list[float]]
"""[wall ms, processor ms] of each call, all threads of the process."""


class Host:
    """A bundle, opened, and the pictures."""

    def open(self, bundle: str, backend: str, precision: str, threads: int, batch: int, files: list[str]) -> str:
        """Open it; where the runtime's sources are."""
        self.clip = clipdeploy.load(
            bundle, backend=backend, precision=precision, threads=threads, usual_batch=batch, check_hashes=False
        )
        self.files, self.batch = [Path(file) for file in files], batch
        self.classifier = self.clip.classifier(LABELS)
        self.classifier.classify(self.files[:batch], batch_size=batch)
        return str(Path(clipdeploy.__file__).parent)

    def round(self, calls: int) -> dict[str, Taken]:
        """One turn of everything, a picture: parts first, then one picture's way and that of all."""
        taken = {}
        for name, (call, pictures) in {**self._parts(), **self._wholes()}.items():
            time.sleep(_REST_S)  # until the threads of the one before have gone to sleep
            once = name == "many"
            for _ in range(0 if once else _WARM_CALLS):
                call()
            found = [_measured(call) for _ in range(1 if once else calls)]
            taken[name] = [[ms / pictures for ms in one] for one in found]
        return taken

    def _wholes(self) -> dict[str, tuple[Callable[[], object], int]]:
        turns = cycle(self.files)
        return {
            "one": (lambda: self.classifier.classify(next(turns)), 1),
            "many": (
                lambda: [None for _ in self.classifier.classify_many(self.files, batch_size=self.batch)],
                len(self.files),
            ),
        }

    def _parts(self) -> dict[str, tuple[Callable[[], object], int]]:
        images, turns = self.clip.images, cycle(self.files)
        picture = open_image(self.files[0])
        place = geometry(picture.size, images.spec)
        cropped = resize_crop(picture, place, Image.Resampling.BICUBIC)
        crop = images.crop(picture)
        pixels = images.normalize(np.repeat(crop[None], self.batch, axis=0))
        plane = np.empty_like(pixels[0])
        embeds = self.clip.encode_pixels(pixels, batch_size=self.batch)
        first, second = _passes(picture, place)
        return {
            "decode": (lambda: open_image(next(turns)), 1),
            "resize": (lambda: resize_crop(picture, place, Image.Resampling.BICUBIC), 1),
            "first pass": (first, 1),
            "second pass": (second, 1),
            "array": (lambda: np.asarray(cropped.convert("RGB")), 1),
            "normalise": (lambda: images.normalize_into(crop, plane), 1),
            "encoder": (lambda: self.clip.encode_pixels(pixels, batch_size=self.batch), self.batch),
            "score": (lambda: self.classifier.classify_embeddings(embeds), self.batch),
        }


def _passes(picture: Image.Image, place: Any) -> tuple[Callable[[], object], Callable[[], object]]:
    """The two passes of the resize, each on its own: by products where the sources have them, else Pillow's."""
    bicubic = Image.Resampling.BICUBIC
    try:
        from clipdeploy.runtime import lent, products
    except ImportError:
        between = picture.resize((place.size[0], picture.height), bicubic)
        wanted = between.crop((place.crop[0], 0, place.crop[2], picture.height))
        return (
            lambda: picture.resize((place.size[0], picture.height), bicubic),
            lambda: wanted.resize((wanted.width, place.size[1]), bicubic),
        )
    left, top, right, bottom = place.crop
    columns = products.axis(picture.width, place.size[0], left, right, bicubic)
    rows = products.axis(picture.height, place.size[1], top, bottom, bicubic)
    pixels = lent.lent_pixels(picture)
    if pixels is None:
        pixels = np.asarray(picture)
    planes = products.change_width(pixels, columns, rows.used)
    return (
        lambda: products.change_width(pixels, columns, rows.used),
        lambda: products.in_bytes(products.change_height(planes, rows)),
    )


def _measured(call: Callable[[], object]) -> list[float]:
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return [(time.perf_counter() - wall) * 1e3, (time.process_time() - processor) * 1e3]


if __name__ == "__main__":
    host = Host()
    runpy.run_path(str(_SERVING))["serve"]({"open": host.open, "round": host.round})
