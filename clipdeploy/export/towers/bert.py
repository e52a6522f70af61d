"""Lean form of text encoders in the shape of BERT: BERT, RoBERTa, XLM-RoBERTa, as open_clip wraps them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from clipdeploy.export.towers.attention import (
    MASK_FLOOR,
    OneQueryAttention,
    Projections,
    SelfAttention,
    constant,
    scale_queries,
)

_FAMILIES = ("Bert", "Roberta", "XLMRoberta")
_MODELS = tuple(f"{name}Model" for name in _FAMILIES)
_LAYERS = tuple(f"{name}Layer" for name in _FAMILIES)
_PLACES_OF_WORDS = ("RobertaEmbeddings", "XLMRobertaEmbeddings", "AltRobertaEmbeddings")
"""Embeddings that count places from the first token that is no padding; the others count all tokens."""


class LeanBert(nn.Module):
    """A BERT of the transformers library: `(N, L)` -> `(N, L, D)`, or `(N, D)` of the first token alone.

    Args:
        source: the model; `known` says whether it is one.
        first_token: whether only the first token is read.
    """

    def __init__(self, source: Any, *, first_token: bool) -> None:
        super().__init__()
        embeddings = source.embeddings
        self.word_embeddings, self.norm = embeddings.word_embeddings, embeddings.LayerNorm
        # All tokens are of type 0, whose embedding joins that of the places.
        places = embeddings.position_embeddings.weight + embeddings.token_type_embeddings.weight[0]
        self.pad_id = source.config.pad_token_id
        self.places = nn.Embedding(places.shape[0], places.shape[1], device="meta")
        self.places.weight = constant(places)  # (places, width)
        self.counts_words = type(embeddings).__name__ in _PLACES_OF_WORDS
        layers = list(bert_layers(source))
        self.layers = nn.ModuleList(_Layer(layer, first_token and layer is layers[-1]) for layer in layers)
        self.first_token = first_token

    def forward(self, ids: Tensor, visible: Tensor) -> Tensor:
        """`(N, L)` int64, and `(N, L)` float32 that is 1 where a token is seen."""
        length = ids.shape[1]
        x = self.word_embeddings(ids) + self._places(ids, length)
        x = self.norm(x).reshape(-1, x.shape[2])
        mask = ((1.0 - visible) * MASK_FLOOR)[:, None, None]  # (N, 1, 1, L)
        for layer in self.layers:
            x = layer(x, length, mask)
        return x if self.first_token else x.reshape(-1, length, x.shape[1])  # type: ignore[no-any-return]

    def _places(self, ids: Tensor, length: int) -> Tensor:
        """Embeddings of the places, `(N, L, width)` or `(L, width)`."""
        if not self.counts_words:
            return self.places.weight[:length]
        word = ids.ne(self.pad_id).to(torch.float32)
        # A running sum as a product, exact in float32, which engines know better than CumSum.
        count = word @ torch.ones(length, length).triu()
        return self.places((count * word).to(torch.int64) + self.pad_id)  # type: ignore[no-any-return]


class LeanHFText(nn.Module):
    """open_clip's HFTextEncoder around a BERT: `(N, L)` -> `(N, D)`."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.mean = type(source.pooler).__name__ == "MeanPooler"
        self.transformer = LeanBert(source.transformer, first_token=not self.mean)
        self.pad_id, self.proj = source.config.pad_token_id, source.proj
        dense = getattr(source.pooler, "use_pooler_output", False) and getattr(source.transformer, "pooler", None)
        self.pooler = nn.Sequential(dense.dense, dense.activation) if dense else nn.Identity()

    def forward(self, ids: Tensor) -> Tensor:
        """`(N, L)` int64 -> `(N, D)`, not normalised."""
        visible = ids.ne(self.pad_id).to(torch.float32)  # (N, L)
        x = self.transformer(ids, visible)
        if self.mean:
            x = (visible[:, None] @ x)[:, 0] / visible.sum(dim=1, keepdim=True)
        return self.proj(self.pooler(x))  # type: ignore[no-any-return]


def lean_hf_text(source: Any) -> nn.Module | None:
    """The lean form; None where the text encoder or its pooling is of a kind not known here."""
    poolers = ("MeanPooler", "ClsPooler", "ClsLastHiddenStatePooler")
    return LeanHFText(source) if known(source.transformer) and type(source.pooler).__name__ in poolers else None


def bert_layers(model: Any) -> Any:
    """The layers of a BERT; AltCLIP's are named otherwise."""
    return model.encoder.layer if hasattr(model.encoder, "layer") else model.encoder.layers


def known(model: Any) -> bool:
    """Whether a model of the transformers library is a BERT as written out here."""
    if type(model).__name__ not in _MODELS or not type(model).__module__.startswith("transformers.models."):
        return False
    if any(type(layer).__name__ not in _LAYERS for layer in model.encoder.layer):
        return False
    config = model.config
    plain = getattr(config, "position_embedding_type", "absolute") in (None, "absolute")
    return plain and not config.is_decoder and config.pad_token_id is not None


class _Layer(nn.Module):
    """Attention and MLP, a norm behind each sum; for all tokens on flat tokens, or for the first of each sample."""

    def __init__(self, source: Any, first_token: bool) -> None:
        super().__init__()
        own, self.first_token = source.attention, first_token
        layers = (own.self.query, own.self.key, own.self.value)
        weight, bias = torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])
        parts = scale_queries(Projections(weight, bias, own.output.dense, own.self.num_attention_heads))
        self.attn = OneQueryAttention(parts) if first_token else SelfAttention(parts)
        self.norm_1, self.norm_2 = own.output.LayerNorm, source.output.LayerNorm
        self.mlp = nn.Sequential(
            source.intermediate.dense, source.intermediate.intermediate_act_fn, source.output.dense
        )

    def forward(self, x: Tensor, length: int, mask: Tensor) -> Tensor:
        """`(N * L, D)` -> the same, or `(N, D)`; `mask` is added to the scores."""
        if self.first_token:
            token = x.reshape(-1, length, x.shape[1])[:, 0]
            x = self.norm_1(token + self.attn(token, x, length, mask))
        else:
            x = self.norm_1(x + self.attn(x, length, mask))
        return self.norm_2(x + self.mlp(x))  # type: ignore[no-any-return]
