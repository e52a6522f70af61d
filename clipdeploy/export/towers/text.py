"""Lean form of the text encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipdeploy.errors import ExportError
from clipdeploy.export.towers.attention import MASK_FLOOR, constant, finite_mask
from clipdeploy.export.towers.blocks import PoolingStack, read_blocks, take_row

POOLINGS = ("first", "last", "argmax", "eos")


class LeanTextTransformer(nn.Module):
    """The text encoder of `open_clip.CLIP`, and `open_clip.TextTransformer`: `(N, L)` -> `(N, D)`.

    Args:
        source: the module whose parts are taken.
        rewrite: what makes other modules lean.
        pooling: the position that is read, in open_clip's words.
        eos_id: the id that pooling `eos` looks for.
    """

    def __init__(self, source: Any, rewrite: Callable[[nn.Module], nn.Module], *, pooling: str, eos_id: int) -> None:
        super().__init__()
        self.token_embedding, self.positional_embedding = source.token_embedding, source.positional_embedding
        self.ln_final, self.text_projection = source.ln_final, source.text_projection
        self.attn_mask = None if source.attn_mask is None else constant(finite_mask(source.attn_mask))  # (L, L)
        # These three exist in TextTransformer alone: CoCa's class token behind the text, and masked padding.
        self.cls_emb = getattr(source, "cls_emb", None)
        self.masks_padding = self.cls_emb is not None or getattr(source, "use_pad_mask", False)
        self.pad_id, self.cls_last = getattr(source, "pad_id", 0), getattr(source, "correct_cls_mask", False)
        self.pooling, self.eos_id = "last" if self.cls_emb is not None else pooling, eos_id
        if self.pooling not in POOLINGS:
            raise ExportError(
                f"the text encoder pools by {self.pooling!r}, which gives no single embedding per text; "
                f"expected one of {', '.join(POOLINGS)}",
                fix="export a checkpoint whose text_cfg.pool_type is one of these",
            )
        parts = read_blocks(source.transformer.resblocks)
        self.transformer = rewrite(source.transformer) if parts is None else PoolingStack(parts)

    @property
    def takes_any_length(self) -> bool:
        """Whether a text may be cut behind the token that is read: no token sees those behind it, and none is read."""
        if self.attn_mask is None or self.masks_padding or self.pooling not in ("argmax", "eos"):
            return False
        seen = self.attn_mask > MASK_FLOOR
        return isinstance(self.transformer, PoolingStack) and bool((seen == torch.ones_like(seen).tril()).all())

    def forward(self, ids: Tensor) -> Tensor:
        """`(N, L)` int64 -> `(N, D)`, not normalised."""
        x = self.token_embedding(ids)  # (N, L, width)
        if self.cls_emb is not None:
            # A row of zeros plus the token: no shape arithmetic on the batch.
            x = F.pad(x, (0, 0, 0, 1)) + F.pad(self.cls_emb[None], (0, 0, x.shape[1], 0))
        length = x.shape[1]
        x = x + self.positional_embedding[:length]
        mask, row = self._mask(ids, length), self._row(ids, length)
        if isinstance(self.transformer, PoolingStack):
            pooled = self.transformer(x, row, mask)
        else:
            pooled = take_row(self.transformer(x, attn_mask=mask), row)
        pooled = self.ln_final(pooled)  # a norm treats each token alone, so the others need none
        if self.text_projection is None:
            return pooled  # type: ignore[no-any-return]
        linear = isinstance(self.text_projection, nn.Linear)
        return self.text_projection(pooled) if linear else pooled @ self.text_projection  # type: ignore[no-any-return]

    def _row(self, ids: Tensor, length: int) -> int | Tensor:
        """The position that is read: the same for all texts, or `(N, 1)` int64."""
        if self.pooling in ("first", "last"):
            return 0 if self.pooling == "first" else length - 1
        score = ids.eq(self.eos_id) if self.pooling == "eos" else ids
        return score.to(torch.int32).argmax(dim=-1, keepdim=True)  # ArgMax on int64 breaks some engines

    def _mask(self, ids: Tensor, length: int) -> Tensor | None:
        """What is added to the scores `(N, H, length, length)`: `(length, length)` or `(N, 1, length or 1, length)`."""
        mask = None if self.attn_mask is None else self.attn_mask[:length, :length]
        if not self.masks_padding:
            return mask
        hidden = ids.eq(self.pad_id).to(torch.float32) * MASK_FLOOR  # (N, L)
        if self.cls_emb is not None:
            # CoCa's published weights were trained with the class token's place at the front of this mask.
            hidden = F.pad(hidden, (0, 1) if self.cls_last else (1, 0))
        hidden = hidden[:, None, None]
        return hidden if mask is None else mask + hidden
