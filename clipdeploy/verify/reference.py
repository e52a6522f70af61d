"""What the ladder compares with: the checkpoint itself in PyTorch, or what it gave when the bundle was made."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import clipdeploy
from clipdeploy.errors import CheckpointError, ImageError, InputError
from clipdeploy.memory import collect
from clipdeploy.spec import ModelSpec
from clipdeploy.verify.records import ReferenceKind
from clipdeploy.versions import installed

BATCH = 8
"""Samples that go through a tower together, at most. Never one alone where there are more."""

RUNTIME_LIBRARIES = (
    *("numpy", "Pillow", "tokenizers", "onnxruntime", "onnxruntime-gpu", "openvino"),
    *("tensorrt", "tensorrt-rtx", "cuda-python"),
)
REFERENCE_LIBRARIES = ("torch", "torchvision", "open_clip_torch", "transformers", "numpy", "Pillow")


@dataclass(frozen=True)
class Picture:
    """A picture file and the name that reports call it by."""

    name: str
    path: Path

    def open(self) -> Image.Image:
        """The picture in its own mode, as the checkpoint's transform takes it; raises ImageError."""
        try:
            image = Image.open(self.path)
            image.load()
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ImageError(
                f"cannot read picture {self.path}: {error}", fix="name a picture file that opens"
            ) from error
        return image


class Reference(Protocol):
    """The truth about K pictures and T texts.

    Attributes:
        kind: `pytorch` or `golden`.
        pictures, texts: the samples; (K) and (T).
        tools: versions of the libraries that made the numbers.
        weights_sha256: of the weights that made the numbers, None where it is the bundle's own by construction.
        crops: (K, H, W, 3) uint8 RGB, after resize and crop.
        pixels: (K, 3, H, W) float32 RGB, normalised.
        tokens: (T, L) int64.
        image_embeds, text_embeds: (K, D) and (T, D) float32, L2-normalised, finite.
    """

    @property
    def kind(self) -> ReferenceKind: ...
    @property
    def pictures(self) -> tuple[Picture, ...]: ...
    @property
    def texts(self) -> tuple[str, ...]: ...
    @property
    def tools(self) -> Mapping[str, str]: ...
    @property
    def weights_sha256(self) -> str | None: ...
    @property
    def crops(self) -> NDArray[np.uint8]: ...
    @property
    def pixels(self) -> NDArray[np.float32]: ...
    @property
    def tokens(self) -> NDArray[np.int64]: ...
    @property
    def image_embeds(self) -> NDArray[np.float32]: ...
    @property
    def text_embeds(self) -> NDArray[np.float32]: ...

    def settle(self) -> None:
        """Compute every array now, and let go of what they are computed from."""


class Original(Protocol):
    """What golden samples are made from: a loaded checkpoint, or the graphs that an import began with."""

    @property
    def spec(self) -> ModelSpec: ...
    @property
    def source(self) -> str: ...
    @property
    def weights_sha256(self) -> str: ...
    def reference_crop(self, image: Image.Image) -> NDArray[np.uint8]: ...
    def reference_pixels(self, image: Image.Image) -> NDArray[np.float32]: ...
    def reference_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]: ...
    def reference_image_embeds(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]: ...
    def reference_text_embeds(self, ids: NDArray[np.int64]) -> NDArray[np.float32]: ...


class CheckpointReference:
    """The checkpoint itself, run in PyTorch on pictures and texts; each array is computed when first asked for.

    Args:
        checkpoint: a loaded checkpoint.
        pictures: paths, or `Picture`s to give them other names; two or more.
        texts: two or more.

    Raises:
        InputError: fewer than two of either.
    """

    kind: ReferenceKind = "pytorch"

    def __init__(self, checkpoint: Original, pictures: Sequence[str | Path | Picture], texts: Sequence[str]) -> None:
        self._made_from: Original | None = checkpoint
        self.pictures = tuple(p if isinstance(p, Picture) else Picture(Path(p).name, Path(p)) for p in pictures)
        self.texts = tuple(texts)
        self.weights_sha256: str | None = checkpoint.weights_sha256
        check_enough(self.pictures, self.texts)

    def settle(self) -> None:
        """Compute every array now, and let go of the checkpoint: its weights need not stay in memory."""
        _ = self.crops, self.pixels, self.tokens, self.image_embeds, self.text_embeds
        self._made_from = None
        collect()

    @property
    def _checkpoint(self) -> Original:
        if self._made_from is None:
            raise RuntimeError("every array is computed before the checkpoint is let go")
        return self._made_from

    @cached_property
    def tools(self) -> Mapping[str, str]:
        return made_with(REFERENCE_LIBRARIES)

    @cached_property
    def crops(self) -> NDArray[np.uint8]:
        return np.stack([self._checkpoint.reference_crop(picture.open()) for picture in self.pictures])

    @cached_property
    def pixels(self) -> NDArray[np.float32]:
        return np.stack([self._checkpoint.reference_pixels(picture.open()) for picture in self.pictures])

    @cached_property
    def tokens(self) -> NDArray[np.int64]:
        return np.asarray(self._checkpoint.reference_tokens(list(self.texts)))

    @cached_property
    def image_embeds(self) -> NDArray[np.float32]:
        parts = [self._checkpoint.reference_image_embeds(batch) for batch in batches(self.pixels)]
        return _finite(np.concatenate(parts), "image")

    @cached_property
    def text_embeds(self) -> NDArray[np.float32]:
        parts = [self._checkpoint.reference_text_embeds(batch) for batch in batches(self.tokens)]
        return _finite(np.concatenate(parts), "text")


def check_enough(pictures: Sequence[Picture], texts: Sequence[str]) -> None:
    """Raise InputError unless there are two pictures and two texts: with one, nothing can be told apart."""
    if len(pictures) < 2 or len(texts) < 2:
        raise InputError(
            f"verifying needs at least two pictures and two texts, got {len(pictures)} and {len(texts)}",
            fix="add pictures or texts, or verify with the bundle's golden samples",
        )


def batches(samples: NDArray[Any], size: int = BATCH) -> list[NDArray[Any]]:
    """`samples` in parts of nearly equal length, `size` at most, so that no part is a lone rest."""
    return np.array_split(samples, max(1, -(-len(samples) // size)))


def made_with(libraries: Sequence[str]) -> dict[str, str]:
    """Versions of Python, clipdeploy, and those of `libraries` that are installed."""
    own = {"python": platform.python_version(), "clipdeploy": clipdeploy.__version__}
    return {**own, **installed(libraries)}


def _finite(embeds: NDArray[np.float32], tower: str) -> NDArray[np.float32]:
    if not np.isfinite(embeds).all():
        bad = int((~np.isfinite(embeds)).any(axis=1).sum())
        raise CheckpointError(
            f"the checkpoint's own {tower} tower gives non-finite embeddings for {bad} of {len(embeds)} samples",
            fix="the weights are damaged: fetch the checkpoint again",
        )
    return embeds
