"""Lean forms of the image encoder and of the poolers that end one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipdeploy.export.towers.attention import (
    ConstantQueryAttention,
    OneQueryAttention,
    Projections,
    constant,
    scale_queries,
)
from clipdeploy.export.towers.blocks import PoolingStack, Stack, read_blocks


class LeanVisionTransformer(nn.Module):
    """open_clip's VisionTransformer that reads one token or the mean of all: `(N, 3, H, W)` -> `(N, D)`."""

    def __init__(self, source: Any, rewrite: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        self.conv1, self.ln_pre, self.ln_post, self.proj = source.conv1, source.ln_pre, source.ln_post, source.proj
        # The class token joins as a row of zeros whose value sits in the positions: no shape arithmetic on the batch.
        positions = source.positional_embedding.detach().clone()
        positions[0] += source.class_embedding
        self.positional_embedding = constant(positions)  # (L, width)
        self.attn_pool = None if source.attn_pool is None else rewrite(source.attn_pool)
        self.pool_type, self.pool_before_norm = source.pool_type, source.final_ln_after_pool
        parts = read_blocks(source.transformer.resblocks)
        if parts is None:
            self.transformer = rewrite(source.transformer)
        else:
            one_token = self.pool_type == "tok" and self.attn_pool is None
            self.transformer = PoolingStack(parts) if one_token else Stack(parts)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, 3, H, W)` -> `(N, D)`, not normalised."""
        length, width = self.positional_embedding.shape
        x = self.conv1(x).reshape(-1, width, length - 1).transpose(1, 2)  # (N, L - 1, width)
        x = self.ln_pre(F.pad(x, (0, 0, 1, 0)) + self.positional_embedding)
        pooled = self._pool(x)
        return pooled if self.proj is None else pooled @ self.proj

    def _pool(self, x: Tensor) -> Tensor:
        if isinstance(self.transformer, PoolingStack):
            return self.ln_post(self.transformer(x, 0))  # type: ignore[no-any-return]
        x = self.transformer(x)
        if self.attn_pool is not None:
            x = self.attn_pool(x)
        if self.pool_type == "tok":  # a norm treats each token alone, so the others need none
            return self.ln_post(x[:, 0])  # type: ignore[no-any-return]
        if self.pool_before_norm and self.attn_pool is None:
            return self.ln_post(x[:, 1:].mean(dim=1))  # type: ignore[no-any-return]
        return self.ln_post(x)[:, 1:].mean(dim=1)  # type: ignore[no-any-return]


class LeanAttentionPool2d(nn.Module):
    """The pooling of OpenAI's ResNets: the mean asks, all places answer; `(N, C, h, w)` -> `(N, D)`."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.positional_embedding = source.positional_embedding  # (h * w + 1, C)
        layers = (source.q_proj, source.k_proj, source.v_proj)
        weight, bias = torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])
        self.attn = OneQueryAttention(scale_queries(Projections(weight, bias, source.c_proj, source.num_heads)))

    def forward(self, x: Tensor) -> Tensor:
        """`(N, C, h, w)` -> `(N, D)`."""
        length, width = self.positional_embedding.shape
        x = x.reshape(-1, width, length - 1).transpose(1, 2)  # (N, h * w, C)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + self.positional_embedding
        return self.attn(x[:, 0], x.reshape(-1, width), length)  # type: ignore[no-any-return]


class LeanAttentionalPooler(nn.Module):
    """CoCa's pooler: learned queries ask, the picture answers; `(N, L, C)` -> `(N, n, D)`."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        attn, self.ln_k = source.attn, source.ln_k
        if attn.in_proj_weight is not None:
            w_q, w_k, w_v = attn.in_proj_weight.chunk(3)
        else:
            w_q, w_k, w_v = attn.q_proj_weight, attn.k_proj_weight, attn.v_proj_weight
        b_q, b_k, b_v = attn.in_proj_bias.chunk(3)
        query = F.linear(source.ln_q(source.query), w_q, b_q) * attn.head_dim**-0.5
        query = query.reshape(-1, attn.num_heads, attn.head_dim)
        self.attn = ConstantQueryAttention(query, torch.cat([w_k, w_v]), torch.cat([b_k, b_v]), attn.out_proj)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, L, C)` -> `(N, n, D)`."""
        return self.attn(self.ln_k(x))  # type: ignore[no-any-return]


class LeanAttentionPoolLatent(nn.Module):
    """timm's latent attention pooling, the head of SigLIP: `(N, L, C)` -> `(N, D)`."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.pos_embed, self.pool, self.norm, self.mlp = source.pos_embed, source.pool, source.norm, source.mlp
        query = source.q(source.latent[0]).reshape(-1, source.num_heads, source.head_dim)
        query = source.q_norm(query) * source.head_dim**-0.5
        k_norm = None if isinstance(source.k_norm, nn.Identity) else source.k_norm
        self.attn = ConstantQueryAttention(query, source.kv.weight, source.kv.bias, source.proj, k_norm)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, L, C)` -> `(N, D)`, or `(N, n, D)` where the checkpoint does not pool its latents."""
        if self.pos_embed is not None:
            x = x + self.pos_embed
        x = self.attn(x)  # (N, n, D)
        if self.pool == "token" or (self.pool == "avg" and self.attn.queries == 1):
            x = x[:, 0]
        if self.mlp is not None:
            x = x + self.mlp(self.norm(x))
        return x.mean(dim=1) if self.pool == "avg" and self.attn.queries > 1 else x


class LeanMeanPool2d(nn.Module):
    """Adaptive pooling to one place, as the mean that it is: `(N, C, h, w)` -> `(N, C, 1, 1)`."""

    def forward(self, x: Tensor) -> Tensor:
        """`(N, C, h, w)` -> `(N, C, 1, 1)`."""
        return x.mean(dim=(2, 3), keepdim=True)
