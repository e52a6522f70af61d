"""What is traced: one encoder and the L2 norm behind it, in float32, lean inside."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clipdeploy.export.towers.lean import lean_copy
from clipdeploy.export.towers.text import LeanTextTransformer
from clipdeploy.spec import Tower

NORM_EPSILON = 1e-12
"""Floor of the length that embeddings are divided by, as in `torch.nn.functional.normalize`."""


class ImageTower(nn.Module):
    """Pixels to embeddings: `(N, 3, H, W)` float32, RGB, normalised -> `(N, D)` float32 of length 1."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, pixel_values: Tensor) -> Tensor:
        """`(N, 3, H, W)` float32 -> `(N, D)` float32."""
        return unit_length(_embedding(self.visual(pixel_values)))


class TextTower(nn.Module):
    """Token ids to embeddings: `(N, L)` int64 -> `(N, D)` float32 of length 1."""

    def __init__(self, text: nn.Module) -> None:
        super().__init__()
        self.text = text

    def forward(self, input_ids: Tensor) -> Tensor:
        """`(N, L)` int64 -> `(N, D)` float32."""
        return unit_length(_embedding(self.text(input_ids)))


def build_tower(encoder: nn.Module, tower: Tower) -> nn.Module:
    """An encoder of a checkpoint, ready to trace; `encoder` stays as it is and lends its weights.

    Raises:
        ExportError: the text encoder pools its tokens in a way that gives no single embedding.
    """
    kind = ImageTower if tower is Tower.IMAGE else TextTower
    return kind(lean_copy(encoder)).eval()


def takes_any_length(text_encoder: nn.Module) -> bool:
    """Whether a text encoder answers the same where texts are cut behind their end token, and can be traced so."""
    lean = lean_copy(text_encoder)
    return isinstance(lean, LeanTextTransformer) and lean.takes_any_length


def unit_length(x: Tensor) -> Tensor:
    """Embeddings divided by their L2 norm, in float32: `(N, D)` -> `(N, D)`."""
    x = x.float()
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp(min=NORM_EPSILON)  # type: ignore[no-any-return]


def _embedding(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The embedding alone, where an encoder returns its tokens too."""
    return output[0] if isinstance(output, tuple) else output
