"""Tiny seeded CLIP checkpoints in the genuine layouts: open_clip folders, state dicts, OpenAI's TorchScript.

Plain functions that need the `export` extra; import this module inside tests that have asked for it.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CLIP, CustomTextCLIP
from safetensors.torch import save_file
from torch import nn

from clipdeploy.export.checkpoint import Checkpoint
from clipdeploy.export.load import load_checkpoint
from clipdeploy.progress import Progress, silent
from clipdeploy.request import CheckpointRequest

IMAGE_SIZE = 32
EMBED_DIM = 24
CONTEXT_LENGTH = 20

PREPROCESS = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}

VISION: dict[str, dict[str, Any]] = {
    "vit": {"image_size": IMAGE_SIZE, "patch_size": 8, "layers": 2, "width": 64, "head_width": 32},
    "resnet": {"image_size": IMAGE_SIZE, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
}
TEXT: dict[str, Any] = {"context_length": CONTEXT_LENGTH, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}


def model_config(
    vision: str = "vit", *, vision_cfg: Any = None, text_cfg: Any = None, **changes: Any
) -> dict[str, Any]:
    """`model_cfg` of a tiny CLIP with CLIP's real tokenizer; keyword arguments change it."""
    config: dict[str, Any] = {
        "embed_dim": EMBED_DIM,
        "vision_cfg": {**VISION[vision], **(vision_cfg or {})},
        "text_cfg": {**TEXT, **(text_cfg or {})},
        **changes,
    }
    return copy.deepcopy(config)


def load(model: str | Path, *, progress: Progress = silent, **stated: Any) -> Checkpoint:
    """`load_checkpoint` with the fields of a CheckpointRequest as keywords."""
    stated = {key: str(value) if isinstance(value, Path) else value for key, value in stated.items()}
    return load_checkpoint(CheckpointRequest(str(model), **stated), progress=progress)


def make_model(config: Mapping[str, Any] | None = None, seed: int = 0) -> nn.Module:
    """open_clip's model of a configuration, every weight and statistic seeded and none at its neutral start."""
    settings = copy.deepcopy(dict(config or model_config()))
    kind = CustomTextCLIP if settings.pop("custom_text", False) else CLIP
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(**settings).eval()
        for name, tensor in model.state_dict().items():
            if name.endswith(("bias", "running_mean")) and name != "logit_bias":
                tensor.copy_(torch.randn(tensor.shape) * 0.02)
            elif name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape) + 0.5)
    return model


def write_checkpoint(
    folder: Path,
    config: Mapping[str, Any] | None = None,
    *,
    preprocess: Mapping[str, Any] | None = PREPROCESS,
    seed: int = 0,
    weights: str | None = "open_clip_model.safetensors",
    state: Mapping[str, torch.Tensor] | None = None,
) -> Path:
    """An open_clip checkpoint folder, as `local-dir:` takes it.

    Args:
        folder: made when it is not there.
        config: `model_cfg`; a tiny ViT without it.
        preprocess: `preprocess_cfg`; None leaves it out.
        seed: of the weights.
        weights: file name, whose suffix says the format; None writes no weights.
        state: weights to write in place of the seeded ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = dict(config or model_config())
    content: dict[str, Any] = {"model_cfg": settings}
    if preprocess is not None:
        content["preprocess_cfg"] = dict(preprocess)
    (folder / "open_clip_config.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    if weights is not None:
        save_state(folder / weights, state or make_model(settings, seed).state_dict())
    return folder


def save_state(path: Path, state: Mapping[str, torch.Tensor]) -> Path:
    """A state dict as a file: safetensors, or a PyTorch pickle of tensors."""
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    else:
        torch.save(dict(state), path)
    return path


class _OpenAI(nn.Module):
    """The shape of OpenAI's published programs: a CLIP whose three facts are buffers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for name, child in model.named_children():
            self.add_module(name, child)
        for name, parameter in model.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        facts = {"input_resolution": IMAGE_SIZE, "context_length": CONTEXT_LENGTH, "vocab_size": 49408}
        for name, value in facts.items():
            self.register_buffer(name, torch.tensor(value))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * self.logit_scale  # the program is never run: what counts is which tensors it carries


def write_openai(path: Path, seed: int = 0) -> nn.Module:
    """A TorchScript archive as OpenAI published them (half-precision weights), and the model it was made of."""
    model = make_model(model_config(quick_gelu=True), seed)
    halved = copy.deepcopy(model)
    for name, parameter in halved.named_parameters():
        if name.endswith(("in_proj_weight", "c_fc.weight", "c_proj.weight", "conv1.weight")):
            parameter.data = parameter.data.half()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; the archives it made are not
        program = torch.jit.trace(_OpenAI(halved), torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE), check_trace=False)
        program.save(str(path))
    return model


def register(monkeypatch: Any, name: str, config: Mapping[str, Any] | None = None, **tags: Mapping[str, Any]) -> None:
    """Make a tiny architecture known to open_clip for one test; `tags` are its published weights."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, dict(config or model_config()))
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, name, {tag: {**PREPROCESS, **c} for tag, c in tags.items()})
