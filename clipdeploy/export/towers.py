"""What is traced: one encoder and the L2 norm behind it, in float32, lean inside."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from clipdeploy.export.lean import lean_copy
from clipdeploy.spec import ModelSpec, Tower

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


def image_tower(model: nn.Module, spec: ModelSpec | None = None) -> nn.Module:
    """The image encoder of an open_clip model, ready to trace; `model` stays as it is and lends its weights."""
    return ImageTower(lean_copy(model.get_submodule("visual"))).eval()


def text_tower(model: nn.Module, spec: ModelSpec | None = None) -> nn.Module:
    """The text encoder of an open_clip model, ready to trace; `model` stays as it is and lends its weights.

    Raises:
        ExportError: the encoder pools its tokens in a way that gives no single embedding.
    """
    text = getattr(model, "text", None)
    return TextTower(lean_copy(text if isinstance(text, nn.Module) else _without_image(model))).eval()


def build_tower(model: nn.Module, tower: Tower) -> nn.Module:
    """`image_tower` or `text_tower`."""
    return image_tower(model) if tower is Tower.IMAGE else text_tower(model)


def unit_length(x: Tensor) -> Tensor:
    """Embeddings divided by their L2 norm, in float32: `(N, D)` -> `(N, D)`."""
    x = x.float()
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp(min=NORM_EPSILON)  # type: ignore[no-any-return]


def _embedding(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The embedding alone, where an encoder returns its tokens too."""
    return output[0] if isinstance(output, tuple) else output


def _without_image(model: nn.Module) -> nn.Module:
    """A view of `open_clip.CLIP`, which keeps the parts of its text encoder beside the image encoder."""
    part = copy.copy(model)
    part._modules = {name: child for name, child in model._modules.items() if name != "visual"}
    return part
