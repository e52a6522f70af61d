"""The towers themselves: fused branches, projections, weights that say nothing, and their mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from clipdeploy.export.preflight.probe import SAME, Probe, apart
from clipdeploy.findings import Finding
from clipdeploy.spec import Tower

BRANCHES, PROJECTION, WEIGHTS, NORMS, MODE = "branches", "projection", "weights", "BatchNorm", "evaluation mode"

_SHOWN = 3
_COLLAPSED = 1e-6


def branches(probe: Probe) -> Finding:
    """Blocks that were trained as several branches and run as one: the export fuses them, which may change nothing."""
    encoder = probe.checkpoint.image_encoder
    blocks = [module for module in encoder.modules() if hasattr(module, "reparameterize")]
    open_blocks = [block for block in blocks if getattr(block, "reparam_conv", block) is None]
    if not blocks:
        return Finding(BRANCHES, "good", "none")
    if not open_blocks:
        return Finding(BRANCHES, "good", "fused already")
    from timm.utils.model import reparameterize_model

    fused = reparameterize_model(encoder).eval()
    with torch.inference_mode():
        rows = torch.from_numpy(probe.pixels)
        embeds = nn.functional.normalize(_first(fused(rows)), dim=-1).numpy()
    change = max(apart(embeds[0], probe.image.first), apart(embeds[1], probe.image.other))
    if change > SAME:
        return Finding(
            BRANCHES,
            "bad",
            f"fusing the branches of {len(open_blocks)} blocks changes the embedding by {change:.1e}, beyond {SAME:g}",
            "fuse them with timm.utils.reparameterize_model, save that, and see whether it still answers right",
        )
    return Finding(
        BRANCHES,
        "good",
        f"{len(open_blocks)} blocks of several branches; the export fuses each into one convolution, which changes the "
        f"embedding by {change:.0e}",
    )


def projection(probe: Probe) -> Finding:
    """Both towers end in the same space."""
    dim = probe.spec.embed_dim
    widths = {Tower.IMAGE: probe.image.first.shape[-1], Tower.TEXT: probe.text.plain.shape[-1]}
    wrong = [f"the {tower.value} tower gives {width}" for tower, width in widths.items() if width != dim]
    if wrong:
        return Finding(
            PROJECTION,
            "bad",
            f"D = {dim} is stated, but {' and '.join(wrong)}: a projection is missing or of another size",
            f"use the weights with both projections, and state their width in {probe.model_file}"
            + (" (projection_dim)" if probe.transformers else " (embed_dim)"),
        )
    return Finding(PROJECTION, "good", f"both towers give D = {dim}")


def weights(probe: Probe) -> Finding:
    """Towers that answer everything alike, and weights of a single value: not loaded, or not trained."""
    if not probe.checkpoint.trained:
        return Finding(
            WEIGHTS,
            "note",
            "random, as asked for: what their values would tell was not looked at",
            "for answers, name the weights with --pretrained",
        )
    spread = {
        Tower.IMAGE: apart(probe.image.first, probe.image.other),
        Tower.TEXT: apart(probe.text.plain, probe.text.other),
    }
    for tower, distance in spread.items():
        if not _COLLAPSED < distance < np.inf:
            what = "picture" if tower is Tower.IMAGE else "text"
            how = "the same embedding" if distance <= _COLLAPSED else "embeddings that are not finite"
            fix = "its weights were not loaded or not trained: use another checkpoint"
            if tower is Tower.TEXT:
                place = "eos_token_id" if probe.transformers else "pool_type"
                fix += f"; or it reads a place before the words: {place} in {probe.model_file}"
            return Finding(WEIGHTS, "bad", f"the {tower.value} tower gives {how} for every {what}", fix)
    constant = [name for tower in Tower for name in _constant(probe.checkpoint.encoder(tower))]
    if constant:
        return Finding(
            WEIGHTS,
            "note",
            f"{len(constant)} weights hold one value throughout: {_some(constant)}",
            "check that the training wrote them; they are exported as they are",
        )
    return Finding(
        WEIGHTS, "good", f"different inputs, different embeddings ({min(spread.values()):.1e} apart or more)"
    )


def batch_norm(probe: Probe) -> Finding:
    """Running statistics that never moved from their start, in a tower that is said to be trained."""
    norms = [
        (name, module)
        for name, module in probe.checkpoint.image_encoder.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None
    ]
    if not norms:
        return Finding(NORMS, "good", "none")
    fresh = [name for name, norm in norms if _untouched(norm)]
    if fresh and probe.checkpoint.trained:
        return Finding(
            NORMS,
            "note",
            f"{len(fresh)} of {len(norms)} hold the statistics they start with, mean 0 and variance 1: {_some(fresh)}",
            "check that the weights file holds running_mean and running_var of the training",
        )
    return Finding(NORMS, "good", f"{len(norms)}, with statistics of their own" if not fresh else f"{len(norms)}")


def evaluation_mode(probe: Probe) -> Finding:
    """Dropout and its like are off: the same input gives the same embedding twice."""
    training = [
        f"{tower.value}.{name}"
        for tower in Tower
        for name, module in probe.checkpoint.encoder(tower).named_modules()
        if module.training and not any(module.children())
    ]
    change = max(apart(probe.image.first, probe.image.again), apart(probe.text.plain, probe.text.again))
    if training or change > SAME:
        what = f"{len(training)} modules are in training mode: {_some(training)}; " if training else ""
        return Finding(
            MODE,
            "bad",
            f"{what}the same input twice gives embeddings {change:.1e} apart",
            "call model.eval() before the checkpoint is handed on",
        )
    return Finding(MODE, "good", "the same input twice gives the same embedding")


def _untouched(norm: Any) -> bool:
    return bool((norm.running_mean == 0).all()) and bool((norm.running_var == 1).all())


def _constant(encoder: nn.Module) -> list[str]:
    """Names of the matrices and kernels that hold one value throughout."""
    return [
        name
        for name, weight in encoder.named_parameters()
        if weight.ndim >= 2 and min(weight.shape[:2]) > 1 and _is_constant(weight.detach().reshape(-1))
    ]


def _is_constant(flat: torch.Tensor) -> bool:
    # Nearly all are told apart by their first values.
    return bool((flat[:64] == flat[0]).all()) and bool((flat == flat[0]).all())


def _first(output: Any) -> torch.Tensor:
    answer: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return answer


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
