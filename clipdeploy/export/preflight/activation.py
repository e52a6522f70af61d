"""The activation function: what the modules compute, and whether that is what the checkpoint was trained with."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipdeploy.export.preflight.probe import Probe
from clipdeploy.findings import Finding
from clipdeploy.spec import Tower

CHECK = "activation"

_LINE = torch.linspace(-4.0, 4.0, 65)
_NEAR = 1e-5
_CURVES: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "relu": F.relu,
}
_NAMES = re.compile("gelu|silu|swish|relu", re.IGNORECASE)
# Published weights that were trained with QuickGELU, and those that were not, by what stands in their names.
_QUICK = re.compile(r"\bopenai\b|\bdfn|\bmetaclip|\bclip-vit-(base-patch(16|32)|large-patch14)(-336)?$", re.IGNORECASE)
_PLAIN = re.compile(r"\blaion|\bdatacomp", re.IGNORECASE)


def activation(probe: Probe) -> Finding:
    """QuickGELU or GELU: what the modules compute is compared with what is stated, number by number."""
    stated = set(probe.spec.activation.split("+"))
    for tower in Tower:
        computed = computed_activation(probe.checkpoint.encoder(tower))
        # Convolutional towers have ReLU in places that the stated activation is not about.
        if computed is not None and computed != "relu" and computed not in stated:
            return Finding(
                CHECK,
                "bad",
                f"{probe.spec.activation} is stated, but the {tower.value} tower computes {computed}",
                f"state the activation that the weights were trained with: {_where(probe)}",
            )
    return _named(probe) or Finding(CHECK, "good", f"{probe.spec.activation}, as stated")


def computed_activation(encoder: nn.Module) -> str | None:
    """The activation that most modules of an encoder compute; None where none is a module of its own."""
    found = Counter(kind for module in encoder.modules() if (kind := _curve(module)))
    return found.most_common(1)[0][0] if found else None


def _curve(module: nn.Module) -> str | None:
    """Which of the known functions a module computes, found out on a line of numbers."""
    if not _NAMES.search(type(module).__name__) or next(module.parameters(), None) is not None:
        return None
    try:
        with torch.inference_mode():
            values = module(_LINE.clone())
    except (RuntimeError, TypeError, ValueError):
        return None  # no function of one tensor
    if not isinstance(values, Tensor) or values.shape != _LINE.shape:
        return None
    matches = (name for name, curve in _CURVES.items() if bool(((curve(_LINE) - values).abs() < _NEAR).all()))
    return next(matches, f"an unknown function ({type(module).__name__})")


def _named(probe: Probe) -> Finding | None:
    """What the names of the checkpoint tell: of published weights, and of a file that states no activation."""
    if not probe.checkpoint.trained:
        return None
    quick = "quick_gelu" in probe.spec.activation
    names = f"{probe.checkpoint.source} {probe.spec.name}"
    twin = probe.spec.name.removesuffix("-quickgelu") if quick else f"{probe.spec.name}-quickgelu"
    published = open_clip.list_pretrained_tags_by_model(probe.spec.name) if not probe.transformers else []
    if any(probe.checkpoint.source == f"{probe.spec.name} ({tag})" for tag in published):
        return None  # open_clip states the activation of each tag, and loading compares it
    if _QUICK.search(names) and not _PLAIN.search(names) and not quick:
        return Finding(
            CHECK,
            "note",
            f"{probe.spec.activation}, but the name is that of weights trained with QuickGELU (OpenAI, DFN, MetaCLIP); "
            "fine-tuning does not change it",
            f"if these weights come of them: {_where(probe)}",
        )
    if twin in open_clip.list_models() and probe.spec.name in open_clip.list_models():
        return Finding(
            CHECK,
            "note",
            f"{probe.spec.activation}, from the architecture: a weights file states none, and with the wrong one the "
            "answers are wrong without a sign of it",
            f"fine-tuned from OpenAI, DFN or MetaCLIP weights? They have QuickGELU: {twin}"
            if not quick
            else f"fine-tuned from LAION or DataComp weights? They have GELU: {twin}",
        )
    return None


def _where(probe: Probe) -> str:
    if probe.transformers:
        return "hidden_act of vision_config and text_config in config.json"
    name = probe.spec.name.removesuffix("-quickgelu")
    known = f"{name}-quickgelu" in open_clip.list_models()
    other = name if probe.spec.name.endswith("-quickgelu") else f"{name}-quickgelu"
    return f"export {other}" if known else "quick_gelu in model_cfg of open_clip_config.json"
