"""open_clip's towers as training runs them: the same numbers, less work.

Texts are cut after the batch's longest, which changes nothing since attention is causal. Attention is written out,
since on a CPU that has a backward pass several times faster than the fused one.
"""

from __future__ import annotations

from typing import Any

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F


def _attend(attention: Any, x: Tensor, mask: Tensor | None) -> Tensor:
    """`nn.MultiheadAttention` on (B, L, D) with itself; `mask` (L, L) is added."""
    batch, length, width = x.shape
    heads = attention.num_heads
    size = width // heads
    qkv = F.linear(x, attention.in_proj_weight, attention.in_proj_bias).view(batch, length, 3, heads, size)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).reshape(3, batch * heads, length, size).unbind(0)
    products = torch.bmm(q * size**-0.5, k.transpose(1, 2))  # (B*H, L, L)
    if mask is not None:
        products = products + mask.to(products.dtype)
    mixed = torch.bmm(torch.softmax(products, -1), v).view(batch, heads, length, size)
    return attention.out_proj(mixed.transpose(1, 2).reshape(batch, length, width))  # type: ignore[no-any-return]


def _blocks(transformer: Any, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """open_clip's `Transformer`, (B, L, D) -> (B, L, D)."""
    for block in transformer.resblocks:
        x = x + _attend(block.attn, block.ln_1(x), mask)
        x = x + block.mlp(block.ln_2(x))
    return x


def encode_image(model: Any, pixels: Tensor) -> Tensor:
    """(B, 3, H, W) float32, normalised -> (B, D) float32 unit vectors."""
    tower = model.visual
    if isinstance(tower, VisionTransformer):
        x = tower.ln_post(_blocks(tower.transformer, tower._embeds(pixels))[:, 0])
        x = x @ tower.proj
    else:
        x = tower(pixels)
    return F.normalize(x.float(), dim=-1)


def encode_text(model: Any, tokens: Tensor, ends: Tensor) -> Tensor:
    """tokens (B, L), ends (B,) where each text ends -> (B, D) float32 unit vectors."""
    length = tokens.shape[1]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = _blocks(model.transformer, x, model.attn_mask[:length, :length])
    x = model.ln_final(x[torch.arange(len(x), device=x.device), ends])
    return F.normalize((x @ model.text_projection).float(), dim=-1)
