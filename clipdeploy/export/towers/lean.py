"""Rewrite a network for tracing: known modules become lean ones, all others stay what they are.

The caller's network is never touched: `lean_copy` copies its skeleton and shares its tensors, so a copy weighs almost
nothing. A module is known by its exact class. Each rewrite computes the same function; the export checks it against
the checkpoint itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from clipdeploy.export.towers.bert import lean_hf_text
from clipdeploy.export.towers.blocks import Stack, read_blocks
from clipdeploy.export.towers.eva import lean_eva
from clipdeploy.export.towers.text import LeanTextTransformer
from clipdeploy.export.towers.transformers_layers import lean_image_encoder, lean_text_encoder
from clipdeploy.export.towers.vision import (
    LeanAttentionalPooler,
    LeanAttentionPool2d,
    LeanAttentionPoolLatent,
    LeanMeanPool2d,
    LeanVisionTransformer,
)


def lean_copy(module: nn.Module) -> nn.Module:
    """A copy in eval mode with every known module rewritten; its tensors are shared, not copied."""
    shared: dict[int, Any] = {}
    for tensor in [*module.parameters(), *module.buffers()]:
        alias = tensor.detach()
        shared[id(tensor)] = nn.Parameter(alias, requires_grad=False) if isinstance(tensor, nn.Parameter) else alias
    skeleton = copy.deepcopy(module, shared).eval()
    with torch.no_grad():
        return rewrite(skeleton)


def rewrite(module: nn.Module) -> nn.Module:
    """The lean form of `module`, or `module` itself with its children rewritten."""
    if hasattr(module, "reparameterize"):  # timm: several trained branches that add up to one convolution
        module.reparameterize()  # type: ignore[operator]
    rule = _RULES.get(f"{type(module).__module__}.{type(module).__name__}")
    lean = rule(module) if rule else None
    if lean is not None:
        return lean
    if getattr(module, "fused_attn", False):  # timm: explicit products instead of the fused operator
        module.fused_attn = False  # type: ignore[assignment]
    for name, child in list(module.named_children()):
        setattr(module, name, rewrite(child))
    return module


def _vision_transformer(module: Any) -> nn.Module | None:
    # `none` pools nothing, and the poolers in pairs of some CoCa variants are traced as they are.
    pair = module.attn_pool is not None and module.attn_pool_contrastive is not None
    if module.pool_type not in ("tok", "avg") or pair:
        return None
    return LeanVisionTransformer(module, rewrite)


def _transformer(module: Any) -> nn.Module | None:
    parts = read_blocks(module.resblocks)
    return Stack(parts) if parts is not None else None


def _sequential(module: Any) -> nn.Module | None:
    parts = read_blocks(module)
    return Stack(parts) if parts is not None else None


def _attentional_pooler(module: Any) -> nn.Module | None:
    return LeanAttentionalPooler(module) if module.attn.in_proj_bias is not None else None


def _adaptive_mean(module: Any) -> nn.Module | None:
    # Traced as it is, it ends in index arithmetic over the batch that restores a memory layout.
    return LeanMeanPool2d() if module.output_size in (1, (1, 1)) else None


def _clip_text(module: Any) -> nn.Module | None:
    return LeanTextTransformer(module, rewrite, pooling=module.text_pool_type, eos_id=module.text_eos_id)


def _text_transformer(module: Any) -> nn.Module | None:
    if module.pool_type == "none" and module.cls_emb is None:
        return None
    return LeanTextTransformer(module, rewrite, pooling=module.pool_type, eos_id=module.eos_id)


def _image_encoder(module: Any) -> nn.Module | None:
    return lean_image_encoder(module, rewrite)


def _text_encoder(module: Any) -> nn.Module | None:
    return lean_text_encoder(module, rewrite)


def _eva(module: Any) -> nn.Module | None:
    return lean_eva(module, rewrite)


# By exact class: a subclass may compute something else.
_RULES: dict[str, Callable[[Any], nn.Module | None]] = {
    "clipdeploy.export.huggingface.encoders.ImageEncoder": _image_encoder,
    "clipdeploy.export.huggingface.encoders.TextEncoder": _text_encoder,
    "open_clip.model.CLIP": _clip_text,
    "open_clip.transformer.TextTransformer": _text_transformer,
    "open_clip.transformer.VisionTransformer": _vision_transformer,
    "open_clip.transformer.Transformer": _transformer,
    "open_clip.transformer.AttentionalPooler": _attentional_pooler,
    "open_clip.hf_model.HFTextEncoder": lean_hf_text,
    "open_clip.modified_resnet.AttentionPool2d": LeanAttentionPool2d,
    "timm.models.eva.Eva": _eva,
    "timm.layers.attention_pool.AttentionPoolLatent": LeanAttentionPoolLatent,
    "torch.nn.modules.pooling.AdaptiveAvgPool2d": _adaptive_mean,
    "torch.nn.modules.container.Sequential": _sequential,
}
