"""A built open_clip model, described: what goes in, what comes out, and what the numbers mean."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from open_clip.hf_model import HFTextEncoder
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from torch import nn

from clipdeploy.errors import CheckpointError, InputError
from clipdeploy.export.tokens.facts import TokenFacts
from clipdeploy.spec import ModelSpec, PixelSpec, TensorSpec, TextPooling, TokenSpec, Tower, TowerSpec

_POOLINGS: dict[str, TextPooling] = {"argmax": "eot_argmax", "eos": "eot_first", "last": "last"}
_ACTIVATIONS = {"QuickGELU": "quick_gelu", "GELUTanh": "gelu_tanh", "SiLU": "silu", "ReLU": "relu", "GELU": "gelu"}
_FAMILIES = {"VisionTransformer": "ViT", "Eva": "EVA", "ByobNet": "ByobNet", "FastVit": "FastViT"}


def describe(model: nn.Module, *, name: str, embed_dim: int, pixels: PixelSpec, facts: TokenFacts) -> ModelSpec:
    """The record of a model.

    Args:
        model: open_clip's CLIP, CustomTextCLIP or CoCa.
        name: for people.
        embed_dim: D.
        pixels: its preprocessing.
        facts: what its tokenizer does.

    Raises:
        CheckpointError: tokenizer and text tower disagree, or logit_scale is no number.
    """
    visual: nn.Module = model.visual  # type: ignore[assignment]
    tokens = _token_spec(model, facts, name)
    bias = getattr(model, "logit_bias", None)
    try:
        scale = math.exp(float(model.logit_scale))  # type: ignore[arg-type]
    except OverflowError:
        scale = math.inf
    try:
        return ModelSpec(
            name=name,
            embed_dim=embed_dim,
            image=TowerSpec(
                tower=Tower.IMAGE,
                architecture=_image_family(visual),
                parameters=_count(visual),
                input=TensorSpec("pixel_values", "float32", ("batch", 3, pixels.height, pixels.width)),
                output=TensorSpec("image_embeds", "float32", ("batch", embed_dim)),
            ),
            text=TowerSpec(
                tower=Tower.TEXT,
                architecture=_text_family(model),
                parameters=_text_count(model),
                input=TensorSpec("input_ids", "int64", ("batch", tokens.context_length)),
                output=TensorSpec("text_embeds", "float32", ("batch", embed_dim)),
            ),
            pixels=pixels,
            tokens=tokens,
            activation=_activation(model),
            logit_scale=scale,
            logit_bias=0.0 if bias is None else float(bias),
            probability="softmax" if bias is None else "sigmoid",
        )
    except InputError as error:
        raise CheckpointError(f"{name}: {error.message}", fix="the checkpoint is damaged; use another one") from error


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _text_count(model: nn.Module) -> int:
    """Parameters that encode_text uses: a tower of its own, or all of CLIP but the image tower and the logit scale."""
    if hasattr(model, "text"):
        return _count(model.text)  # type: ignore[arg-type]
    logits = [p for name, p in model.named_parameters() if name in ("logit_scale", "logit_bias")]
    return _count(model) - _count(model.visual) - sum(p.numel() for p in logits)  # type: ignore[arg-type]


def _text(model: nn.Module) -> Any:
    """The text tower's module; CLIP keeps its parts on the model itself."""
    return getattr(model, "text", model)


def _token_spec(model: nn.Module, facts: TokenFacts, name: str) -> TokenSpec:
    text = _text(model)
    vocab, length = int(text.vocab_size), getattr(text, "context_length", None)
    if vocab < facts.vocab_size:
        raise CheckpointError(
            f"{name}: the tokenizer gives ids up to {facts.vocab_size - 1}, the text tower takes {vocab} of them",
            fix="set text_cfg.vocab_size and the tokenizer in open_clip_config.json as the checkpoint was trained",
        )
    if isinstance(text, HFTextEncoder):
        _check_places(text, facts, name)
    elif length is not None and length != facts.context_length:
        raise CheckpointError(
            f"{name}: the tokenizer makes {facts.context_length} ids a text, the text tower takes {length}",
            fix="set text_cfg.context_length in open_clip_config.json as the checkpoint was trained",
        )
    pool = getattr(text, "text_pool_type", None) or getattr(text, "pool_type", None)
    cls = getattr(text, "cls_emb", None) is not None or "Cls" in type(getattr(text, "pooler", None)).__name__
    pooling: TextPooling = "cls" if cls else _POOLINGS.get(str(pool), "other")
    eos = getattr(text, "text_eos_id", None) if text is model else getattr(text, "eos_id", None)
    if pooling == "eot_first" and eos != facts.end_id:
        raise CheckpointError(
            f"{name}: the text tower pools at id {eos}, but the tokenizer ends texts with {facts.end_id}",
            fix=f"set text_cfg.eos_id to {facts.end_id} in open_clip_config.json, if that is how it was trained",
        )
    return facts.spec(vocab_size=vocab, pooling=pooling)


def _check_places(text: HFTextEncoder, facts: TokenFacts, name: str) -> None:
    """Raise CheckpointError where a text is longer than a text encoder of transformers has places for."""
    places = getattr(text.config, "max_position_embeddings", None)
    if places is None:  # it counts distances
        return
    # RoBERTa and its kin count places from behind the id of the padding.
    first = int(text.config.pad_token_id) + 1 if "roberta" in text.config.model_type else 0
    if first + facts.context_length > places:
        raise CheckpointError(
            f"{name}: the tokenizer makes {facts.context_length} ids a text, the text tower has places for "
            f"{places - first}",
            fix="set text_cfg.context_length in open_clip_config.json as the checkpoint was trained",
        )


def _image_family(visual: nn.Module) -> str:
    if isinstance(visual, TimmModel):
        kind = type(visual.trunk).__name__
        return _FAMILIES.get(kind, kind)
    if isinstance(visual, ModifiedResNet):
        return "ModifiedResNet"
    return _FAMILIES.get(type(visual).__name__, type(visual).__name__)


def _text_family(model: nn.Module) -> str:
    text = _text(model)
    return str(text.config.model_type) if isinstance(text, HFTextEncoder) else "Transformer"


def _activation(model: nn.Module) -> str:
    """Activation of the MLPs, image tower first where the towers differ; a ModifiedResNet has none."""
    text = _text(model)
    towers = [] if isinstance(model.visual, ModifiedResNet) else [model.visual]
    towers.append(text.transformer)
    found = [kind for tower in towers if (kind := _activation_of(tower))]  # type: ignore[arg-type]
    return "+".join(dict.fromkeys(found))


def _activation_of(tower: nn.Module) -> str | None:
    """The activation most modules of a tower use: gates and position networks may have another."""
    found = Counter(kind for module in tower.modules() if (kind := _kind(module)))
    return found.most_common(1)[0][0] if found else None


def _kind(module: nn.Module) -> str | None:
    kind = next((name for key, name in _ACTIVATIONS.items() if key in type(module).__name__), None)
    return "gelu_tanh" if kind == "gelu" and getattr(module, "approximate", "none") == "tanh" else kind
