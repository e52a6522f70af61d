"""Tiny seeded CLIPs in open_clip's own classes, one for each thing that an encoder can be built from."""

from __future__ import annotations

from functools import partial
from typing import Any
from unittest import mock

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from torch import Tensor, nn

from clipdeploy.export.checkpoint import Checkpoint
from clipdeploy.export.openclip.load import text_encoder
from clipdeploy.export.towers.build import build_tower
from clipdeploy.spec import ModelSpec, PixelSpec, TensorSpec, TokenSpec, Tower, TowerSpec

EMBED_DIM, LENGTH, VOCABULARY = 32, 16, 100
START, EOS, PAD = 98, 99, 0
_VISION = {"layers": 2, "width": 64, "head_width": 16, "patch_size": 8, "image_size": 32}
_TEXT = {"context_length": LENGTH, "vocab_size": VOCABULARY, "width": 64, "heads": 4, "layers": 2}
_POOLER = {"attentional_pool": True, "attn_pooler_queries": 5, "attn_pooler_heads": 4}
_EXTRAS = {"qk_norm": True, "scale_heads": True, "scale_attn_inner": True, "scale_attn": True, "scale_fc": True}

# name: (class, vision_cfg, text_cfg, more)
_RECIPES: dict[str, tuple[Any, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "vit": (CLIP, {}, {}, {}),
    "quickgelu": (CLIP, {}, {}, {"quick_gelu": True}),
    "resnet": (CLIP, {"layers": (1, 1, 1, 1), "width": 16, "image_size": 64, "head_width": 16}, {}, {}),
    "mean_pool": (CLIP, {"pool_type": "avg"}, {"pool_type": "eos", "eos_id": EOS}, {}),
    "mean_pool_then_norm": (CLIP, {"pool_type": "avg", "final_ln_after_pool": True}, {"pool_type": "last"}, {}),
    "no_first_norm": (CLIP, {"no_ln_pre": True}, {"pool_type": "first", "no_causal_mask": True}, {}),
    "layer_scale": (CLIP, {"ls_init_value": 0.1}, {"ls_init_value": 0.1}, {}),
    "norms_everywhere": (CLIP, _EXTRAS, _EXTRAS, {}),
    "siglip_text": (CustomTextCLIP, {}, {"pool_type": "last", "no_causal_mask": True, "proj_bias": True}, {}),
    "no_projection": (CustomTextCLIP, {}, {"proj_type": "none", "width": EMBED_DIM}, {}),
    "coca": (CustomTextCLIP, _POOLER, {"embed_cls": True, "output_tokens": True}, {}),
    "coca_unmasked": (CustomTextCLIP, {"output_tokens": True}, {"embed_cls": True, "no_causal_mask": True}, {}),
}
_TIMM: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "siglip": (
        {"timm_model_name": "vit_base_patch16_siglip_224", "timm_pool": "map", "timm_proj": "none"},
        {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 4},
    ),
    "convnext": (
        {"timm_model_name": "convnext_base", "timm_pool": "avg", "timm_proj": "linear"},
        {"depths": (1, 1, 2, 1), "dims": (16, 24, 32, 48)},
    ),
    "eva02": (
        {"timm_model_name": "eva02_base_patch16_clip_224", "timm_pool": "token", "timm_proj": None},
        {"img_size": 64, "embed_dim": 32, "depth": 3, "num_heads": 4, "head_init_scale": 0},
    ),
    "eva02_post_norm": (
        {"timm_model_name": "eva02_enormous_patch14_clip_224", "timm_pool": "token", "timm_proj": None},
        {
            "img_size": 64,
            "patch_size": 16,
            "embed_dim": 32,
            "depth": 2,
            "num_heads": 4,
            "mlp_ratio": 2.0,
            "head_init_scale": 0,
        },
    ),
    "eva_mean": (
        {"timm_model_name": "eva_giant_patch14_224", "timm_pool": "avg", "timm_proj": None},
        {
            "img_size": 64,
            "patch_size": 16,
            "embed_dim": 32,
            "depth": 2,
            "num_heads": 4,
            "init_values": 0.1,
            "head_init_scale": 0,
        },
    ),
    "perception": (
        {"timm_model_name": "vit_pe_core_tiny_patch16_384", "timm_pool": "map", "timm_proj": None},
        {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 4, "attn_pool_num_heads": 4, "head_init_scale": 0},
    ),
    "mobileclip": (
        {"timm_model_name": "fastvit_mci0", "timm_pool": "avg", "timm_proj": ""},
        {"layers": (1, 1, 1, 1), "embed_dims": (16, 32, 64, 64)},
    ),
}
# name: (configuration of the transformers library, pooling)
_HF = {"roberta": ("XLMRobertaConfig", "mean_pooler"), "bert": ("BertConfig", "cls_pooler")}
NAMES = (*_RECIPES, *_TIMM, *_HF)


def traced(model: nn.Module, tower: Tower) -> nn.Module:
    """What the export traces of one encoder of `model`."""
    return build_tower(model.get_submodule("visual") if tower is Tower.IMAGE else text_encoder(model), tower)


def clip(name: str) -> nn.Module:
    """A model of `NAMES`, in eval mode, its biases and norms away from zeros and ones."""
    torch.manual_seed(0)
    if name in _HF:
        model = _hf_clip(*_HF[name])
    elif name in _TIMM:
        model = _timm_clip(*_TIMM[name])
    else:
        cls, vision, text, more = _RECIPES[name]
        model = cls(EMBED_DIM, CLIPVisionCfg(**{**_VISION, **vision}), CLIPTextCfg(**{**_TEXT, **text}), **more)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn_like(parameter)
            elif parameter.ndim == 4:  # else convolutions damp a random picture until all look alike
                parameter *= 2.0
    return model.eval()


def samples(model: nn.Module, tower: Tower, count: int = 3) -> Tensor:
    """Distinct inputs: `(count, 3, H, W)` float32, or `(count, L)` int64 of texts of several lengths."""
    generator = torch.Generator().manual_seed(1)
    if tower is Tower.IMAGE:
        size: Any = model.visual.image_size
        height, width = (size, size) if isinstance(size, int) else size
        return torch.randn(count, 3, height, width, generator=generator)
    ids = torch.randint(1, START, (count, LENGTH), generator=generator)
    ids[:, 0] = START
    for row, end in enumerate((5, LENGTH - 1, 2, 9, 11)[:count]):
        ids[row, end] = EOS
        ids[row, end + 1 :] = PAD
    return ids


def reference(model: Any, tower: Tower, batch: Tensor) -> Tensor:
    """What the model itself answers: `(N, D)` of length 1."""
    encode = model.encode_image if tower is Tower.IMAGE else model.encode_text
    with torch.no_grad():
        answer = encode(batch, normalize=False)
    answer = answer[0] if isinstance(answer, tuple) else answer
    return torch.nn.functional.normalize(answer, dim=-1)


def spec(model: nn.Module, tower: Tower) -> TowerSpec:
    """The record of a tower."""
    batch = samples(model, tower, 1)
    width = reference(model, tower, batch).shape[1]
    names = ("pixel_values", "image_embeds") if tower is Tower.IMAGE else ("input_ids", "text_embeds")
    dtype = "float32" if tower is Tower.IMAGE else "int64"
    return TowerSpec(
        tower,
        "tiny",
        sum(p.numel() for p in model.parameters()),
        TensorSpec(names[0], dtype, ("batch", *batch.shape[1:])),
        TensorSpec(names[1], "float32", ("batch", width)),
    )


def checkpoint(name: str) -> Checkpoint:
    """A model of `NAMES` as a loaded checkpoint, which has neither transform nor tokenizer."""
    model = clip(name)

    def unused(*_: object) -> Any:
        raise AssertionError("exporting a tower needs neither transform nor tokenizer")

    image, text = spec(model, Tower.IMAGE), spec(model, Tower.TEXT)
    height, width = image.input.shape[2:]
    return Checkpoint(
        model=model,
        image_encoder=model.get_submodule("visual"),
        text_encoder=text_encoder(model),
        encode_image=partial(reference, model, Tower.IMAGE),
        encode_text=partial(reference, model, Tower.TEXT),
        spec=ModelSpec(
            name=name,
            embed_dim=EMBED_DIM,
            image=image,
            text=text,
            pixels=PixelSpec(int(height), int(width), "shortest", "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
            tokens=TokenSpec(LENGTH, VOCABULARY, START, EOS, PAD, "lower", "eot_argmax"),
            activation="gelu",
            logit_scale=10.0,
            logit_bias=0.0,
            probability="softmax",
        ),
        crop=unused,
        transform=unused,
        tokenize=unused,
        source=name,
        weights_sha256="0" * 64,
        licence=None,
        tokenizer_json=lambda: "",
    )


def _timm_clip(vision: dict[str, Any], sizes: dict[str, Any]) -> nn.Module:
    import timm

    create = timm.create_model
    with mock.patch("timm.create_model", lambda name, **given: create(name, **{**given, **sizes})):
        return CustomTextCLIP(EMBED_DIM, CLIPVisionCfg(**{**vision, "image_size": 64}), CLIPTextCfg(**_TEXT))


def _hf_clip(config: str, pooling: str) -> nn.Module:
    """A text encoder of the transformers library, as `roberta-ViT-B-32` has one."""
    import transformers
    from open_clip.hf_model import HFTextEncoder

    model = CustomTextCLIP(EMBED_DIM, CLIPVisionCfg(**_VISION), CLIPTextCfg(**_TEXT))
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    given = getattr(transformers, config)(
        vocab_size=VOCABULARY, max_position_embeddings=32, pad_token_id=PAD, type_vocab_size=2, **sizes
    )
    model.text = HFTextEncoder("", EMBED_DIM, config=given, proj_type="mlp", pooler_type=pooling)
    return model
