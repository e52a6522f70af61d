"""A built transformers model, described: what goes in, what comes out, and what the numbers mean."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from clipdeploy.errors import CheckpointError, InputError
from clipdeploy.export.huggingface.config import Plan
from clipdeploy.export.huggingface.encoders import Encoders
from clipdeploy.spec import ModelSpec, PixelSpec, TensorSpec, TokenSpec, Tower, TowerSpec

_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh", "swish": "silu"}


def describe(
    model: nn.Module,
    encoders: Encoders,
    plan: Plan,
    *,
    name: str,
    label: str,
    pixels: PixelSpec,
    tokens: TokenSpec,
    logit_scale: float | None,
) -> ModelSpec:
    """The record of a model.

    Args:
        model: built, with its weights.
        encoders: its encoders.
        plan: what it was built from.
        name: for people.
        label: as the user gave it, for messages.
        pixels: its preprocessing.
        tokens: its text side.
        logit_scale: what the user says of it, already exponentiated, for halves that hold none.

    Raises:
        CheckpointError: the logit scale is unknown, stated twice, or no number.
    """
    width = _embed_dim(plan)
    bias = getattr(model, "logit_bias", None)
    try:
        return ModelSpec(
            name=name,
            embed_dim=width,
            image=TowerSpec(
                tower=Tower.IMAGE,
                architecture="ViT",
                parameters=_count(encoders.image_encoder),
                input=TensorSpec("pixel_values", "float32", ("batch", 3, pixels.height, pixels.width)),
                output=TensorSpec("image_embeds", "float32", ("batch", width)),
            ),
            text=TowerSpec(
                tower=Tower.TEXT,
                architecture=_text_family(plan),
                parameters=_count(encoders.text_encoder),
                input=TensorSpec("input_ids", "int64", ("batch", tokens.context_length)),
                output=TensorSpec("text_embeds", "float32", ("batch", width)),
            ),
            pixels=pixels,
            tokens=tokens,
            activation=_activation(plan),
            logit_scale=_logit_scale(getattr(model, "logit_scale", None), logit_scale, label),
            logit_bias=0.0 if bias is None else float(bias),
            probability="softmax" if bias is None else "sigmoid",
        )
    except InputError as error:
        raise CheckpointError(f"{label}: {error.message}", fix="the checkpoint is damaged; use another one") from error


def _logit_scale(stored: Tensor | None, stated: float | None, label: str) -> float:
    if stored is None and stated is None:
        raise CheckpointError(
            f"{label}: the two encoders apart hold no logit scale, so cosines cannot become probabilities",
            fix="give the scale of the whole model with --logit-scale; CLIP's published ones have 100",
        )
    if stored is None:
        return float(stated or 0.0)
    try:
        own = math.exp(float(stored))
    except OverflowError:
        own = math.inf
    if stated is not None and not math.isclose(own, stated, rel_tol=1e-4):
        raise CheckpointError(f"{label} holds a logit scale of {own:g}; {stated:g} was given", fix="drop --logit-scale")
    return own


def _embed_dim(plan: Plan) -> int:
    """D, the width of the shared space."""
    width: Any = getattr(plan.config, "projection_dim", None)
    return int(plan.vision.hidden_size if width is None else width)  # SigLIP projects pictures no further


def _text_family(plan: Plan) -> str:
    return {"ChineseCLIPModel": "bert", "AltCLIPModel": "xlm-roberta"}.get(plan.family.kind, "Transformer")


def _activation(plan: Plan) -> str:
    """Activation of the MLPs, image encoder first where the encoders differ."""
    found = [_ACTIVATIONS.get(part.hidden_act, part.hidden_act) for part in (plan.vision, plan.text)]
    return "+".join(dict.fromkeys(found))


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
