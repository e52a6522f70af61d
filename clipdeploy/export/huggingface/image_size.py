"""Another image size than a checkpoint's own, as transformers gives it with `interpolate_pos_encoding=True`.

The table of positions is stretched once, by the library's own interpolation (bicubic, not antialiased); open_clip
stretches with antialiasing, so that a smaller size of the same weights differs a little between the two libraries.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from clipdeploy.errors import CheckpointError
from clipdeploy.export.huggingface.config import Plan


def image_sizes(plan: Plan, wanted: tuple[int, int] | None, *, label: str) -> tuple[int, int]:
    """Side of the pictures a checkpoint was trained on, and of those it is to be exported for, in px.

    Raises:
        CheckpointError: one of them is no square, or smaller than a patch.
    """
    own, patch = plan.vision.image_size, plan.vision.patch_size
    if not isinstance(own, int) or not isinstance(patch, int):
        raise CheckpointError(
            f"{label}: config.json has image_size {own!r} and patch_size {patch!r}, expected one number each",
            fix="correct config.json",
        )
    height, width = wanted or (own, own)
    if height != width or height < patch:
        raise CheckpointError(
            f"{label}: transformers checkpoints are exported for square pictures of at least one patch ({patch} px); "
            f"{height}x{width} was given",
            fix="give another --image-size, or export an open_clip version of the model",
        )
    return own, height


@torch.no_grad()
def set_image_size(model: nn.Module, size: int) -> None:
    """Make the image encoder of `model` take square pictures of another side, in px."""
    whole: Any = model
    embeddings = whole.vision_model.embeddings
    grid = size // embeddings.patch_size
    table = embeddings.position_embedding
    extra = table.num_embeddings - (embeddings.image_size // embeddings.patch_size) ** 2  # CLIP has a class token
    places = torch.zeros(1, grid**2 + extra, table.embedding_dim)
    positions = embeddings.interpolate_pos_encoding(places, size, size)[0]  # (L, width)
    stretched = nn.Embedding(len(positions), table.embedding_dim, _weight=positions.clone(), _freeze=True)
    embeddings.position_embedding = stretched
    embeddings.position_ids = torch.arange(len(positions))[None]
    embeddings.image_size = size
    embeddings.num_patches, embeddings.num_positions = grid**2, len(positions)
