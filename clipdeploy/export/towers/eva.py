"""Lean form of timm's Eva: the image encoder of EVA01 and EVA02, and of the Perception Encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipdeploy.export.towers.attention import Projections, Rope, constant, scale_queries
from clipdeploy.export.towers.blocks import BlockParts, PoolingStack, Stack, acts_on_tokens


class LeanEva(nn.Module):
    """timm's Eva that reads its class token, the mean of its patches, or a pooler: `(N, 3, H, W)` -> `(N, D)`."""

    def __init__(self, source: Any, parts: list[BlockParts], rewrite: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        self.patch_embed, self.norm_pre, self.norm = source.patch_embed, source.norm_pre, source.norm
        self.fc_norm, self.head = source.fc_norm, source.head
        self.prefix, self.pool = source.num_prefix_tokens, source.global_pool
        self.positional_embedding = constant(_positions(source))  # (L, width)
        self.attn_pool = None if source.attn_pool is None else rewrite(source.attn_pool)
        one_token = self.pool == "token" and self.attn_pool is None
        self.blocks = PoolingStack(parts) if one_token else Stack(parts)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, 3, H, W)` -> `(N, D)`, not normalised."""
        x = self.patch_embed(x)  # (N, L - prefix, width)
        if self.prefix:  # the class token's value sits in the positions: no shape arithmetic on the batch
            x = F.pad(x, (0, 0, self.prefix, 0))
        x = self.norm_pre(x + self.positional_embedding)
        if isinstance(self.blocks, PoolingStack):
            x = self.norm(self.blocks(x, 0))
        else:
            x = self.norm(self.blocks(x))
            x = x[:, self.prefix :].mean(dim=1) if self.attn_pool is None else self.attn_pool(x)
        return self.head(self.fc_norm(x))  # type: ignore[no-any-return]


def lean_eva(source: Any, rewrite: Callable[[nn.Module], nn.Module]) -> nn.Module | None:
    """The lean form; None where a part of the network is of a kind not known here."""
    pooled = source.attn_pool is not None or source.global_pool == "avg"
    if not pooled and not (source.global_pool == "token" and source.cls_token is not None):
        return None
    turns = _turns(source)
    if source.dynamic_img_size or turns is False:
        return None
    with torch.no_grad():
        parts = [_read_block(block, turns) for block in source.blocks]
    known = [p for p in parts if p is not None]
    return LeanEva(source, known, rewrite) if known and len(known) == len(parts) else None


def _positions(source: Any) -> Tensor:
    """What is added to tokens whose class and register tokens are zeros: `(L, width)`."""
    width = source.embed_dim
    tokens = [t[0] for t in (source.cls_token, source.reg_token) if t is not None]
    prefix = torch.cat(tokens) if tokens else torch.zeros(0, width)
    table = F.pad(prefix, (0, 0, 0, source.patch_embed.num_patches))
    if source.pos_embed is not None:
        own = source.pos_embed[0]
        table = table + F.pad(own, (0, 0, len(table) - len(own), 0))
    return table.detach()


def _turns(source: Any) -> tuple[Tensor, Tensor] | bool | None:
    """Cosines and sines of the rotary positions, `(L, d)` each; None where there are none, False if not known."""
    if source.rope is None:
        return None
    if type(source.rope).__name__ != "RotaryEmbeddingCat":
        return False
    sin, cos = source.rope.get_embed().detach().chunk(2, dim=-1)  # (L - prefix, d)
    prefix = source.num_prefix_tokens
    # Tokens before the patches have no place: they are turned by nothing.
    return F.pad(cos, (0, 0, prefix, 0)) + _ones(cos, prefix), F.pad(sin, (0, 0, prefix, 0))


def _ones(like: Tensor, rows: int) -> Tensor:
    return F.pad(torch.ones(rows, like.shape[1]), (0, 0, 0, len(like)))


def _read_block(block: Any, turns: Any) -> BlockParts | None:
    attention = _read_attention(block.attn, turns)
    if attention is None or not acts_on_tokens(block.mlp):
        return None
    kind = type(block).__name__
    if kind == "EvaBlock":
        return BlockParts(block.norm1, attention, _scale(block.gamma_1), block.norm2, block.mlp, _scale(block.gamma_2))
    if kind == "EvaBlockPostNorm":
        return BlockParts(nn.Identity(), attention, block.norm1, nn.Identity(), block.mlp, block.norm2)
    return None


def _read_attention(attn: Any, turns: tuple[Tensor, Tensor] | None) -> Projections | None:
    """`EvaAttention`, and `AttentionRope` with as many keys as queries; neither with a gate or a norm of queries."""
    if type(attn).__name__ not in ("EvaAttention", "AttentionRope") or attn.gate is not None:
        return None
    plain = isinstance(attn.q_norm, nn.Identity) and isinstance(attn.k_norm, nn.Identity)
    if not plain or getattr(attn, "num_kv_groups", 1) != 1:
        return None
    weight, bias = _stacked(attn)
    parts = Projections(weight, bias, attn.proj, attn.num_heads, inner_norm=attn.norm)
    if turns is not None:
        parts = _in_halves(parts, *turns, halves=attn.rotate_half)
    return scale_queries(parts)


def _stacked(attn: Any) -> tuple[Tensor, Tensor | None]:
    """Weights `(3 * H * d, D)` and biases of Q, K and V, whichever way the layer keeps them."""
    if attn.qkv is not None:
        separate = getattr(attn, "q_bias", None)
        return attn.qkv.weight, attn.qkv.bias if separate is None else torch.cat(
            [attn.q_bias, attn.k_bias, attn.v_bias]
        )
    layers = (attn.q_proj, attn.k_proj, attn.v_proj)
    biases = [torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias for layer in layers]
    bare = all(layer.bias is None for layer in layers)
    return torch.cat([layer.weight for layer in layers]), None if bare else torch.cat(biases)


def _in_halves(parts: Projections, cos: Tensor, sin: Tensor, *, halves: bool) -> Projections:
    """Rotary positions for a layer; channels that are turned in neighbouring pairs are sorted into two halves.

    The same order for queries and keys leaves their products what they are, and turning halves takes fewer nodes.
    """
    d, weight, bias = parts.head_dim, parts.weight, parts.bias
    if not halves:
        order = torch.cat([torch.arange(0, d, 2), torch.arange(1, d, 2)])
        cos, sin = cos[:, order], sin[:, order]
        rows = (torch.arange(2 * parts.heads)[:, None] * d + order).reshape(-1)
        rows = torch.cat([rows, torch.arange(len(rows), len(weight))])  # values stay in their order
        weight, bias = weight[rows], None if bias is None else bias[rows]
    signed = torch.cat([-sin[:, : d // 2], sin[:, d // 2 :]], dim=1)
    return Projections(weight, bias, parts.out, parts.heads, inner_norm=parts.inner_norm, rope=Rope(cos, signed))


def _scale(gamma: Tensor | None) -> nn.Module:
    return nn.Identity() if gamma is None else _Scale(gamma)


class _Scale(nn.Module):
    """A learned factor a channel."""

    def __init__(self, gamma: Tensor) -> None:
        super().__init__()
        self.gamma = constant(gamma)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma
