"""The record of a loaded checkpoint, whichever library built it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from clipdeploy.bundle import write_text
from clipdeploy.errors import OutputError
from clipdeploy.spec import ModelSpec, Tower

_CHUNK = 16


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A loaded checkpoint, and the reference that everything made from it is measured against.

    The `reference_*` methods do what the checkpoint's own library does, on the CPU in float32.

    Attributes:
        model: the library's own module; eval, float32, on the CPU, without gradients.
        image_encoder: the part that is traced: `(N, 3, H, W) float32` to `(N, D) float32`, not normalised.
        text_encoder: the part that is traced: `(N, L) int64` to `(N, D) float32`, not normalised.
        encode_image: the library's own answer, `(N, 3, H, W) float32` to `(N, D) float32`, L2-normalised.
        encode_text: the library's own answer, `(N, L) int64` to `(N, D) float32`, L2-normalised.
        spec: what it takes and gives.
        crop: its own resize and crop, PIL picture to `(H, W, 3) uint8`, RGB.
        transform: its own transform, PIL picture to `(3, H, W) float32`.
        tokenize: its own tokenizer, N texts to `(N, L) int64`.
        source: the name, tag or path the user gave.
        weights_sha256: over the sorted names, dtypes, shapes and values of all weights.
        licence: as the model card states it, None when it does not.
        tokenizer_json: makes the content of `tokenizer.json`.
        trained: False for random weights.
        causal: whether the configuration says that a token sees only those before it; None when it says nothing.
    """

    model: nn.Module
    image_encoder: nn.Module
    text_encoder: nn.Module
    encode_image: Callable[[Tensor], Tensor]
    encode_text: Callable[[Tensor], Tensor]
    spec: ModelSpec
    crop: Callable[[Image.Image], npt.NDArray[np.uint8]]
    transform: Callable[[Image.Image], Tensor]
    tokenize: Callable[[list[str]], Tensor]
    source: str
    weights_sha256: str
    licence: str | None
    tokenizer_json: Callable[[], str] = field(repr=False)
    trained: bool = True
    causal: bool | None = None

    def encoder(self, tower: Tower) -> nn.Module:
        """The part that is traced for one tower."""
        return self.image_encoder if tower is Tower.IMAGE else self.text_encoder

    def reference_crop(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """The picture after the transform's resize, crop and conversion: `(H, W, 3) uint8`, RGB."""
        return self.crop(image)

    def reference_pixels(self, image: Image.Image) -> npt.NDArray[np.float32]:
        """The picture after the whole transform: `(3, H, W) float32`, RGB, normalised."""
        return self.transform(image).numpy()

    def reference_tokens(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """The ids of N texts: `(N, L) int64`."""
        return self.tokenize(list(texts)).numpy().astype(np.int64, copy=False)

    def reference_image_embeds(self, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """`(N, 3, H, W) float32` to `(N, D) float32`, L2-normalised, by the library's own encoder."""
        return self._encode(self.encode_image, torch.from_numpy(np.ascontiguousarray(pixels)))

    def reference_text_embeds(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """`(N, L) int64` to `(N, D) float32`, L2-normalised, by the library's own encoder."""
        return self._encode(self.encode_text, torch.from_numpy(np.ascontiguousarray(ids)))

    def write_tokenizer(self, path: Path) -> None:
        """Write `tokenizer.json`, whole or not at all; raises OutputError when it cannot be written."""
        try:
            write_text(path, self.tokenizer_json())
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error}", fix="free space or choose another folder") from error

    def _encode(self, encode: Callable[[Tensor], Tensor], rows: Tensor) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            parts = [encode(rows[start : start + _CHUNK]).numpy() for start in range(0, len(rows), _CHUNK)]
        return np.concatenate(parts) if parts else np.zeros((0, self.spec.embed_dim), np.float32)
