"""Lean forms of the encoders of Hugging Face transformers, from the parts that open_clip's are made of.

transformers 5 and 4 name some classes differently (`...VisionModel` and `...VisionTransformer`); both are known here.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipdeploy.export.towers.attention import ConstantQueryAttention, constant
from clipdeploy.export.towers.bert import LeanBert, bert_layers
from clipdeploy.export.towers.blocks import Stack, read_blocks
from clipdeploy.export.towers.text import LeanTextTransformer
from clipdeploy.export.towers.vision import LeanVisionTransformer

Rewrite = Callable[[nn.Module], nn.Module]

_OPEN_CLIP_POOLING = {"eot_argmax": "argmax", "eot_first": "eos", "last": "last"}
_BERT_LAYERS = ("ChineseCLIPTextLayer", "AltRobertaLayer")


def lean_image_encoder(source: Any, rewrite: Rewrite) -> nn.Module | None:
    """The lean form of `clipdeploy.export.huggingface.encoders.ImageEncoder`; None where its tower is not known."""
    tower = source.tower
    if read_blocks(tower.encoder.layers) is None:
        return None
    kind = _stem(tower)
    if kind in ("CLIPVision", "MetaClip2Vision", "ChineseCLIPVision", "AltCLIPVision"):
        return LeanVisionTransformer(_as_open_clip_vision(tower, source.projection), rewrite)
    return LeanSiglipVision(tower) if kind == "SiglipVision" else None


def lean_text_encoder(source: Any, rewrite: Rewrite) -> nn.Module | None:
    """The lean form of `clipdeploy.export.huggingface.encoders.TextEncoder`; None where its tower is not known."""
    tower, kind = source.tower, _stem(source.tower)
    if kind in ("ChineseCLIPText", "AltCLIPText"):
        known = all(type(layer).__name__ in _BERT_LAYERS for layer in bert_layers(getattr(tower, "roberta", tower)))
        return LeanBertText(source) if known else None
    if kind not in ("CLIPText", "MetaClip2Text", "SiglipText") or read_blocks(tower.encoder.layers) is None:
        return None
    pooling = _OPEN_CLIP_POOLING[source.pooling]
    return LeanTextTransformer(_as_open_clip_text(source, kind), rewrite, pooling=pooling, eos_id=source.end_id)


class LeanSiglipVision(nn.Module):
    """SigLIP's image encoder: `(N, 3, H, W)` -> `(N, D)`."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        parts = read_blocks(source.encoder.layers)
        self.conv1, self.ln_post = source.embeddings.patch_embedding, source.post_layernorm
        self.positional_embedding = constant(source.embeddings.position_embedding.weight)  # (L, width)
        self.transformer, self.head = Stack(parts or []), LeanProbePooling(source.head)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, 3, H, W)` -> `(N, D)`, not normalised."""
        length, width = self.positional_embedding.shape
        x = self.conv1(x).reshape(-1, width, length).transpose(1, 2) + self.positional_embedding  # (N, L, width)
        return self.head(self.ln_post(self.transformer(x)))  # type: ignore[no-any-return]


class LeanProbePooling(nn.Module):
    """SigLIP's pooling head: one learned token asks, the picture answers; `(N, L, D)` -> `(N, D)`."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        attn = source.attention  # torch.nn.MultiheadAttention
        w_q, w_kv = attn.in_proj_weight.tensor_split([attn.embed_dim])
        b_q, b_kv = attn.in_proj_bias.tensor_split([attn.embed_dim])
        query = F.linear(source.probe[0], w_q, b_q) * attn.head_dim**-0.5
        self.attn = ConstantQueryAttention(query.reshape(-1, attn.num_heads, attn.head_dim), w_kv, b_kv, attn.out_proj)
        self.norm, self.mlp = source.layernorm, source.mlp

    def forward(self, x: Tensor) -> Tensor:
        """`(N, L, D)` -> `(N, D)`."""
        x = self.attn(x)[:, 0]
        return x + self.mlp(self.norm(x))  # type: ignore[no-any-return]


class LeanBertText(nn.Module):
    """The BERT of Chinese-CLIP, or the XLM-R of AltCLIP, read at its first token: `(N, L)` -> `(N, D)`."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        tower = source.tower
        alt = hasattr(tower, "roberta")
        self.bert = LeanBert(tower.roberta if alt else tower, first_token=True)
        self.pad_id = source.pad_id
        self.tail = nn.Sequential(*((tower.pre_LN, tower.transformation) if alt else ()), source.projection)

    def forward(self, ids: Tensor) -> Tensor:
        """`(N, L)` int64 -> `(N, D)`, not normalised."""
        words = ids.ne(self.pad_id).to(torch.float32)  # (N, L)
        behind = torch.ones(ids.shape[1], ids.shape[1]).tril()  # adds up what stands at a place and behind it
        return self.tail(self.bert(ids, (words @ behind).gt(0.5).to(torch.float32)))  # type: ignore[no-any-return]


def _as_open_clip_vision(tower: Any, projection: nn.Linear) -> SimpleNamespace:
    """The parts of a CLIP image encoder under open_clip's names."""
    return SimpleNamespace(
        conv1=tower.embeddings.patch_embedding,
        class_embedding=tower.embeddings.class_embedding,
        positional_embedding=tower.embeddings.position_embedding.weight,
        ln_pre=tower.pre_layrnorm,
        transformer=SimpleNamespace(resblocks=tower.encoder.layers),
        ln_post=tower.post_layernorm,
        proj=constant(projection.weight.T),
        attn_pool=None,
        pool_type="tok",
        final_ln_after_pool=False,
    )


def _as_open_clip_text(source: Any, kind: str) -> SimpleNamespace:
    """The parts of a CLIP or SigLIP text encoder under open_clip's names."""
    tower = source.tower
    positions = tower.embeddings.position_embedding.weight
    hidden = torch.full((len(positions), len(positions)), -torch.inf).triu(1)  # each sees itself and what came before
    return SimpleNamespace(
        token_embedding=tower.embeddings.token_embedding,
        positional_embedding=constant(positions),
        attn_mask=None if kind == "SiglipText" else hidden,
        transformer=SimpleNamespace(resblocks=tower.encoder.layers),
        ln_final=tower.final_layer_norm,
        text_projection=tower.head if kind == "SiglipText" else source.projection,
    )


def _stem(module: nn.Module) -> str:
    """`CLIPVision` of transformers' CLIPVisionModel and CLIPVisionTransformer; empty for classes of others."""
    name = type(module).__name__
    return name.removesuffix("Model").removesuffix("Transformer") if _is_transformers(module) else ""


def _is_transformers(module: nn.Module) -> bool:
    return type(module).__module__.startswith("transformers.models.")
