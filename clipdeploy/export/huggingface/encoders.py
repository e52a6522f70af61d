"""The two encoders of a transformers model: what is traced, and the library's own answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from clipdeploy.errors import CheckpointError
from clipdeploy.export.huggingface.config import Family
from clipdeploy.spec import TextPooling


class ImageEncoder(nn.Module):
    """The image encoder and its projection: `(N, 3, H, W) float32` to `(N, D) float32`, not normalised.

    Args:
        tower: transformers' vision model, whose `pooler_output` is read.
        projection: into the shared space; None where the tower ends there.
    """

    def __init__(self, tower: nn.Module, projection: nn.Module | None) -> None:
        super().__init__()
        self.tower, self.projection = tower, projection

    def forward(self, pixel_values: Tensor) -> Tensor:
        """`(N, 3, H, W)` -> `(N, D)`."""
        pooled: Tensor = self.tower(pixel_values=pixel_values).pooler_output
        return pooled if self.projection is None else self.projection(pooled)


class TextEncoder(nn.Module):
    """The text encoder and its projection: `(N, L) int64` to `(N, D) float32`, not normalised.

    Args:
        tower: transformers' text model.
        projection: into the shared space; None where the tower ends there.
        pooling: the position that is read: `cls` from the last hidden state, all others as the tower itself pools.
        end_id: the id that pooling `eot_first` looks for.
        pad_id: of the padding that no token may attend to; None where all places are seen.
    """

    def __init__(
        self, tower: nn.Module, projection: nn.Module | None, *, pooling: TextPooling, end_id: int, pad_id: int | None
    ) -> None:
        super().__init__()
        self.tower, self.projection = tower, projection
        self.pooling, self.end_id, self.pad_id = pooling, end_id, pad_id

    def forward(self, ids: Tensor) -> Tensor:
        """`(N, L)` -> `(N, D)`."""
        mask = None if self.pad_id is None else before_padding(ids, self.pad_id)
        output = self.tower(input_ids=ids, attention_mask=mask)
        pooled: Tensor = output.last_hidden_state[:, 0] if self.pooling == "cls" else output.pooler_output
        return pooled if self.projection is None else self.projection(pooled)


@dataclass(frozen=True, eq=False)
class Encoders:
    """A built model in the terms of `clipdeploy.export.checkpoint.Checkpoint`, whose attributes these are."""

    image_encoder: ImageEncoder
    text_encoder: TextEncoder
    encode_image: Callable[[Tensor], Tensor]
    encode_text: Callable[[Tensor], Tensor]


def take_apart(
    model: nn.Module, family: Family, *, pooling: TextPooling, end_id: int, pad_id: int, label: str
) -> Encoders:
    """The encoders of a whole model, or of a `Halves`.

    Args:
        model: built, with its weights.
        family: what it is.
        pooling: the position that its text encoder reads.
        end_id: of its tokenizer.
        pad_id: of its tokenizer.
        label: the checkpoint, for messages.

    Raises:
        CheckpointError: the image encoder pools nothing.
    """
    whole: Any = model
    if getattr(whole.vision_model, "use_head", True) is False:
        raise CheckpointError(
            f"{label}: the image encoder has no pooling head (vision_use_head is false), so it gives no embedding",
            fix="export the whole SigLIP checkpoint",
        )
    hidden = pad_id if family.masks_padding else None
    text = TextEncoder(
        whole.text_model, getattr(whole, "text_projection", None), pooling=pooling, end_id=end_id, pad_id=hidden
    )
    return Encoders(
        image_encoder=ImageEncoder(whole.vision_model, getattr(whole, "visual_projection", None)),
        text_encoder=text,
        encode_image=partial(_image_features, whole),
        encode_text=partial(_text_features, whole if hidden is None else text),
    )


class Halves(nn.Module):
    """A `...VisionModelWithProjection` and a `...TextModelWithProjection`, with the face of the whole model."""

    def __init__(self, image: nn.Module, text: nn.Module) -> None:
        super().__init__()
        self.image, self.text = image, text

    @property
    def vision_model(self) -> Any:
        """The image encoder without its projection."""
        return self.image.vision_model

    @property
    def text_model(self) -> Any:
        """The text encoder without its projection."""
        return self.text.text_model

    @property
    def visual_projection(self) -> Any:
        """Into the shared space."""
        return self.image.visual_projection

    @property
    def text_projection(self) -> Any:
        """Into the shared space."""
        return self.text.text_projection

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """`(N, 3, H, W)` -> `(N, D)`, not normalised."""
        return self.image(pixel_values=pixel_values).image_embeds  # type: ignore[no-any-return]

    def get_text_features(self, input_ids: Tensor) -> Tensor:
        """`(N, L)` -> `(N, D)`, not normalised."""
        return self.text(input_ids=input_ids).text_embeds  # type: ignore[no-any-return]


def before_padding(ids: Tensor, pad_id: int) -> Tensor:
    """Which places of texts come before the padding behind them, as the tokenizer's attention mask says: `(N, L)` bool.

    A text may hold the padding token in words; that place is no padding.
    """
    return ids.ne(pad_id).flip(1).cumsum(dim=1).flip(1) > 0


def _image_features(model: Any, pixels: Tensor) -> Tensor:
    return _unit(model.get_image_features(pixel_values=pixels))


def _text_features(model: Any, ids: Tensor) -> Tensor:
    # The library's get_text_features of the kinds that mask their padding is what TextEncoder writes out, except in
    # versions in which it fails (4.57's of Chinese-CLIP reads a pooler that there is none of).
    return _unit(model(ids) if isinstance(model, TextEncoder) else model.get_text_features(input_ids=ids))


def _unit(output: Any) -> Tensor:
    """Embeddings of length 1; transformers 4 answers with them, transformers 5 with a record that holds them."""
    features = output if isinstance(output, Tensor) else output.pooler_output
    return torch.nn.functional.normalize(features, dim=-1)
