"""A stack of transformer blocks on flat tokens, which computes of its last block only what is read from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clipdeploy.export.towers.attention import OneQueryAttention, Projections, SelfAttention, read_projections


@dataclass(frozen=True)
class BlockParts:
    """A pre-norm residual block: `x + scale_1(attn(ln_1(x)))`, then `x + scale_2(mlp(ln_2(x)))`."""

    ln_1: nn.Module
    attn: Projections
    ls_1: nn.Module
    ln_2: nn.Module
    mlp: nn.Module
    ls_2: nn.Module


class Block(nn.Module):
    """One block, for all tokens."""

    def __init__(self, parts: BlockParts) -> None:
        super().__init__()
        self.ln_1, self.ls_1, self.ln_2, self.mlp, self.ls_2 = parts.ln_1, parts.ls_1, parts.ln_2, parts.mlp, parts.ls_2
        self.attn = SelfAttention(parts.attn)

    def forward(self, x: Tensor, length: int, mask: Tensor | None) -> Tensor:
        """`(N * L, D)` -> `(N * L, D)`."""
        x = x + self.ls_1(self.attn(self.ln_1(x), length, mask))
        return x + self.ls_2(self.mlp(self.ln_2(x)))  # type: ignore[no-any-return]


class PoolingBlock(nn.Module):
    """The last block, for the one token of each sample that is read; the others only serve as keys and values."""

    def __init__(self, parts: BlockParts) -> None:
        super().__init__()
        self.ln_1, self.ls_1, self.ln_2, self.mlp, self.ls_2 = parts.ln_1, parts.ls_1, parts.ln_2, parts.mlp, parts.ls_2
        self.attn = OneQueryAttention(parts.attn)

    def forward(self, x: Tensor, length: int, mask: Tensor | None, row: int | Tensor) -> Tensor:
        """`(N * L, D)` -> `(N, D)`; `mask` is `(..., L, L)`, `row` as in `take_row`."""
        token = take_row(x.reshape(-1, length, x.shape[1]), row)  # (N, D)
        mask = None if mask is None else _mask_row(mask, row)
        token = token + self.ls_1(self.attn(self.ln_1(token), self.ln_1(x), length, mask))
        return token + self.ls_2(self.mlp(self.ln_2(token)))  # type: ignore[no-any-return]


class Stack(nn.Module):
    """Blocks one after the other: `(N, L, D)` -> `(N, L, D)`."""

    def __init__(self, parts: Iterable[BlockParts]) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(p) for p in parts)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """`attn_mask` is added to the scores `(N, H, L, L)`."""
        _, length, width = x.shape
        x = x.reshape(-1, width)
        for block in self.resblocks:
            x = block(x, length, attn_mask)
        return x.reshape(-1, length, width)


class PoolingStack(nn.Module):
    """Blocks one after the other, of which one token a sample is read: `(N, L, D)` -> `(N, D)`."""

    def __init__(self, parts: Iterable[BlockParts]) -> None:
        super().__init__()
        *first, last = parts
        self.resblocks = nn.ModuleList([*(Block(p) for p in first), PoolingBlock(last)])

    def forward(self, x: Tensor, row: int | Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """`attn_mask` is added to the scores `(N, H, L, L)`; `row` as in `take_row`."""
        _, length, width = x.shape
        x = x.reshape(-1, width)
        for block in self.resblocks[:-1]:
            x = block(x, length, attn_mask)
        return self.resblocks[-1](x, length, attn_mask, row)  # type: ignore[no-any-return]


def take_row(x: Tensor, row: int | Tensor) -> Tensor:
    """One token of each sample, `(N, L, D)` -> `(N, D)`: the same for all (an int) or its own, `(N, 1)` int64."""
    if isinstance(row, int):
        return x[:, row]
    return torch.ops.clipdeploy.take_row(x, row)  # type: ignore[no-any-return]


@torch.library.custom_op("clipdeploy::take_row", mutates_args=())
def _take_row(x: Tensor, row: Tensor) -> Tensor:
    # An operator of its own, because plain indexing traces into a dozen nodes around the batch size.
    return x[torch.arange(x.shape[0], device=x.device), row[:, 0]]


@_take_row.register_fake
def _(x: Tensor, row: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[2]))


def read_blocks(blocks: Iterable[nn.Module]) -> list[BlockParts] | None:
    """The parts of each block; None where one is of a kind not known here."""
    parts = [_read_block(block) for block in blocks]
    known = [p for p in parts if p is not None]
    return known if known and len(known) == len(parts) else None


def _mask_row(mask: Tensor, row: int | Tensor) -> Tensor:
    """The part of a mask that one query sees, broadcastable to `(N, H, 1, L)`.

    `mask` is `(L, L)`, `(N, 1, 1, L)`, or, for the same row in all samples, `(N, 1, L, L)`.
    """
    if mask.shape[-2] == 1:  # the same for all queries
        return mask
    if isinstance(row, int):
        return mask[..., row : row + 1, :]
    return nn.functional.embedding(row, mask)[:, None]  # (N, 1, 1, L)


_TRANSFORMERS_BLOCKS = frozenset(
    (
        "transformers.models.clip.modeling_clip.CLIPEncoderLayer",
        "transformers.models.siglip.modeling_siglip.SiglipEncoderLayer",
        "transformers.models.metaclip_2.modeling_metaclip_2.MetaClip2EncoderLayer",
        "transformers.models.altclip.modeling_altclip.AltCLIPEncoderLayer",
        "transformers.models.chinese_clip.modeling_chinese_clip.ChineseCLIPVisionLayer",
    )
)


def _read_block(block: nn.Module) -> BlockParts | None:
    kind = f"{type(block).__module__}.{type(block).__name__}"
    if kind == "open_clip.transformer.ResidualAttentionBlock" and not hasattr(block, "ln_1_kv"):
        return _with_attention(block, "ln_1", "ls_1", "ln_2", "ls_2")
    if kind == "open_clip.transformer.CustomResidualAttentionBlock":
        return _with_attention(block, "ln_1", "ls_1", "ln_2", "ls_2", behind_attention="ln_attn")
    if kind == "timm.models.vision_transformer.Block" and acts_on_tokens(block.mlp):
        return _with_attention(block, "norm1", "ls1", "norm2", "ls2")
    if kind in _TRANSFORMERS_BLOCKS:
        return _with_attention(block, "layer_norm1", None, "layer_norm2", None, attention="self_attn")
    return None


def _with_attention(
    block: nn.Module,
    ln_1: str,
    ls_1: str | None,
    ln_2: str,
    ls_2: str | None,
    *,
    attention: str = "attn",
    behind_attention: str | None = None,
) -> BlockParts | None:
    projections = read_projections(block.get_submodule(attention))
    if projections is None:
        return None
    scale = nn.Identity() if ls_1 is None else block.get_submodule(ls_1)
    if behind_attention is not None:
        scale = nn.Sequential(block.get_submodule(behind_attention), scale)
    return BlockParts(
        block.get_submodule(ln_1),
        projections,
        scale,
        block.get_submodule(ln_2),
        block.get_submodule("mlp"),
        nn.Identity() if ls_2 is None else block.get_submodule(ls_2),
    )


def acts_on_tokens(mlp: object) -> bool:
    """Whether a timm MLP treats each token alone, so that flat tokens give the same."""
    from timm.layers.mlp import GluMlp, Mlp, SwiGLU

    return type(mlp) in (Mlp, GluMlp, SwiGLU) and not getattr(mlp, "use_conv", False)
