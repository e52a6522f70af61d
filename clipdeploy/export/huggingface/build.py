"""A transformers model built from its configuration, and its weights taken in by name, strictly.

`from_pretrained` gives random values to weights that a file lacks, and only says so in a log; here that is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
import transformers
from torch import nn

from clipdeploy.errors import CheckpointError
from clipdeploy.export.huggingface.config import Plan, calm, first_line
from clipdeploy.export.huggingface.encoders import Halves
from clipdeploy.export.sources.source import TransformersSource
from clipdeploy.export.weights.fit import check_finite, load_weights
from clipdeploy.export.weights.read import read_state
from clipdeploy.export.weights.wrappers import State
from clipdeploy.progress import Progress

# What older versions called a weight, and what it is called now, or the other way round.
_RENAMED = (
    ("LayerNorm.gamma", "LayerNorm.weight"),
    ("LayerNorm.beta", "LayerNorm.bias"),
    (".encoder.layer.", ".encoder.layers."),
    (".encoder.layers.", ".encoder.layer."),
)


def build_model(source: TransformersSource, plan: Plan, seed: int, progress: Progress) -> nn.Module:
    """The model that `plan` says, in eval mode and float32, with the weights of `source` or with seeded ones.

    Raises:
        CheckpointError: it cannot be built, or a weight is missing, unexpected, misshapen or not finite.
    """
    configs = [plan.config] if plan.text_config is None else [plan.config, plan.text_config]
    folders = [source.folder, source.text_folder or source.folder]
    parts = []
    for kind, config, folder in zip(plan.kinds, configs, folders, strict=False):
        model = _build(kind, config, seed, source.label)
        if source.random_weights:
            check_finite(model, label=source.label)
        else:
            progress("reading weights", 0, 0)
            load_weights(model, read_state(folder), label=source.label, rename=_renamed(model))
        parts.append(model.eval().requires_grad_(False))
    return parts[0] if len(parts) == 1 else Halves(*parts).eval()


def _renamed(model: nn.Module) -> Callable[[State], State]:
    """What turns the names of older versions of transformers into those of `model`."""
    expected = model.state_dict().keys()

    def rename(state: State) -> State:
        return {_name(name, expected): tensor for name, tensor in state.items()}

    return rename


def _name(name: str, expected: Collection[str]) -> str:
    renamed = name
    for old, new in _RENAMED:
        if renamed in expected:
            return renamed
        renamed = renamed.replace(old, new)
    return renamed if renamed in expected else name


def _build(kind: str, config: Any, seed: int, label: str) -> nn.Module:
    try:
        with calm(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: nn.Module = getattr(transformers, kind)(config)
            return model.float()
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError, ImportError) as error:
        raise CheckpointError(
            f"{label}: transformers {transformers.__version__} cannot build {kind}: {first_line(error)}",
            fix="correct config.json, or install the version of transformers it was written with",
        ) from error
