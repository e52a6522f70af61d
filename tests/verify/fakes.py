"""A tiny CLIP in numpy: the checkpoint's side and the runtime's side of it, the second with seams to break."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from clipdeploy.bundle import SCHEMA_VERSION, Bundle, Manifest, Provenance, create_bundle
from clipdeploy.spec import FrameSpec, ModelSpec, PixelSpec, Precision, Tower
from tests.bundles import model_spec

VOCAB = 300
SPEC = model_spec(VOCAB)
WEIGHTS = "1" * 64
SPACE = "0123456789abcdef"

Change = Callable[[Any], Any]


def crop(image: Image.Image, spec: PixelSpec = SPEC.pixels) -> np.ndarray:
    """Shortest side to size, then the centre: (H, W, 3) uint8."""
    rgb = image.convert("RGB")
    scale = max(spec.width / rgb.width, spec.height / rgb.height)
    size = (max(spec.width, int(rgb.width * scale)), max(spec.height, int(rgb.height * scale)))
    rgb = rgb.resize(size, Image.Resampling.BICUBIC)
    left, top = round((rgb.width - spec.width) / 2), round((rgb.height - spec.height) / 2)
    return np.asarray(rgb.crop((left, top, left + spec.width, top + spec.height)))


def normalize(crops: np.ndarray, spec: PixelSpec = SPEC.pixels) -> np.ndarray:
    scaled = np.moveaxis(crops, -1, 1).astype(np.float32) / np.float32(255)
    mean, std = (np.asarray(v, np.float32).reshape(3, 1, 1) for v in (spec.mean, spec.std))
    return (scaled - mean) / std


def tokenize(texts: Sequence[str], spec: ModelSpec = SPEC) -> np.ndarray:
    """A byte a token between start and end, cut, padded: (T, L) int64."""
    tokens = spec.tokens
    ids = np.full((len(texts), tokens.context_length), tokens.pad_id, np.int64)
    for row, text in zip(ids, texts, strict=True):
        line = [tokens.start_id, *(b + 1 for b in text.lower().encode())][: tokens.context_length - 1]
        row[: len(line) + 1] = [*line, tokens.end_id]
    return ids


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def see(pixels: np.ndarray, seed: int = 0) -> np.ndarray:
    """(N, 3, H, W) -> (N, D) float32."""
    matrix = np.random.default_rng(seed).standard_normal((pixels[0].size, SPEC.embed_dim))
    return unit(pixels.reshape(len(pixels), -1).astype(np.float64) @ matrix)


def read(ids: np.ndarray, seed: int = 1) -> np.ndarray:
    """(N, L) -> (N, D) float32; where a token stands matters."""
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((VOCAB + 8, SPEC.embed_dim))
    return unit((table[ids] * rng.uniform(0.5, 1.5, (ids.shape[1], 1))).sum(axis=1))


@dataclass
class FakeCheckpoint:
    """The checkpoint's side. Notes the batch sizes that its towers saw."""

    spec: ModelSpec = SPEC
    source: str = "fake"
    weights_sha256: str = WEIGHTS
    batch_sizes: list[int] = field(default_factory=list)

    def reference_crop(self, image: Image.Image) -> np.ndarray:
        return crop(image, self.spec.pixels)

    def reference_pixels(self, image: Image.Image) -> np.ndarray:
        return normalize(self.reference_crop(image)[None], self.spec.pixels)[0]

    def reference_tokens(self, texts: Sequence[str]) -> np.ndarray:
        return tokenize(texts, self.spec)

    def reference_image_embeds(self, pixels: np.ndarray) -> np.ndarray:
        self.batch_sizes.append(len(pixels))
        return see(pixels)

    def reference_text_embeds(self, ids: np.ndarray) -> np.ndarray:
        self.batch_sizes.append(len(ids))
        return read(ids)


def same(value: Any) -> Any:
    return value


class FakeClip:
    """The runtime's side. Each argument replaces or changes what one seam gives."""

    def __init__(
        self,
        *,
        crops: Change = same,
        floats: Change = same,
        ids: Change = same,
        images: Change = see,
        texts: Change = read,
    ) -> None:
        self.spec = SPEC
        self.precision = Precision.FP32
        self.precisions = dict.fromkeys(Tower, Precision.FP32)
        self.graphs: dict[Tower, Any] = {}
        self.unbuilt: dict[Tower, str] = {}
        self.frames: tuple[FrameSpec, ...] = ()
        self.embedding_space = SPACE
        self.backend = SimpleNamespace(name="numpy", reason="fake")
        self.images = SimpleNamespace(
            crop=lambda path: crops(crop(Image.open(path))), normalize=lambda levels: floats(normalize(levels))
        )
        self.tokenizer = lambda texts: ids(tokenize(texts))
        self.encode_pixels = images
        self.encode_tokens = texts


def empty_bundle(folder: Path, spec: ModelSpec = SPEC) -> Bundle:
    """A bundle without graphs, for what needs none."""
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        model=spec,
        embedding_space=SPACE,
        provenance=Provenance("fake", WEIGHTS, None, "2026-01-01T00:00:00+00:00"),
        tools={},
    )
    with create_bundle(folder, manifest):
        pass
    return Bundle.open(folder)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
