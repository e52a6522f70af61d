"""Weights: read without running code, and taken into a model only when every name, shape and value fits."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from safetensors.torch import load_file
from torch import nn

from clipdeploy.errors import CheckpointError
from clipdeploy.export.weights.torchscript import is_torchscript, read_torchscript

State = dict[str, torch.Tensor]

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_OPENAI_KEYS = {"input_resolution", "context_length", "vocab_size"}
_WRAPPER = "module."
_SHOWN = 4


@dataclass(frozen=True, eq=False)
class Weights:
    """What a weights file holds.

    Attributes:
        state: name to tensor.
        openai: the file is one of OpenAI's own, all of which were trained with QuickGELU.
    """

    state: State
    openai: bool


def read_weights(path: Path) -> Weights:
    """Read a weights file: safetensors, a PyTorch state dict (alone or under `state_dict`), OpenAI's TorchScript.

    Nothing of the file is run: a pickle that asks for more than tensors is refused. The prefix `module.`, which
    PyTorch's data-parallel wrapper puts before every name, is taken off.

    Raises:
        CheckpointError: the file is missing, damaged, unsafe, or holds no state dict.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise CheckpointError(
            f"{path} is no weights file that can be read; its name should end in one of {', '.join(SUFFIXES)}",
            fix="give a .safetensors file or a PyTorch state dict",
        )
    if not path.is_file():
        raise CheckpointError(f"weights file {path} does not exist", fix="check the path")
    if path.suffix.lower() == ".safetensors":
        content = _read_safetensors(path)
    elif is_torchscript(path):
        content = read_torchscript(path)
    else:
        content = _read_pickle(path)
    state = _unwrap(content, path)
    openai = state.keys() >= _OPENAI_KEYS
    return Weights({name: t for name, t in state.items() if not (openai and name in _OPENAI_KEYS)}, openai)


def load_weights(model: nn.Module, weights: Weights, *, label: str) -> None:
    """Put `weights` into `model`; raises CheckpointError unless names and shapes agree and all values are finite.

    Older layouts and Apple's are renamed as open_clip renames them. What open_clip would fill in or stretch (a
    missing logit_bias, position embeddings of another size) is an error here.
    """
    state = convert_state_dict(model, dict(weights.state))
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    expected = model.state_dict()
    for name in ("logit_scale", "logit_bias"):  # one value, stored as a number or as a list of one
        if name in state and name in expected and state[name].numel() == 1:
            state[name] = state[name].reshape(expected[name].shape)
    # transformers wrote this constant table into older checkpoints; it holds 0, 1, 2, ...
    state.pop("text.transformer.embeddings.position_ids", None)
    _check_names(expected, state, label)
    _check_shapes(expected, state, label)
    model.load_state_dict(state, strict=True)
    check_finite(model, label=label)


def check_finite(model: nn.Module, *, label: str) -> None:
    """Raise CheckpointError naming the weights that hold NaN or infinity."""
    bad = [n for n, t in model.state_dict().items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if bad:
        raise CheckpointError(
            f"{label}: {_some(bad, 'weights')} hold NaN or infinity, or values beyond float32",
            fix="the checkpoint is damaged or its training diverged; use another one",
        )


def hash_weights(model: nn.Module) -> str:
    """sha256 over the sorted names, dtypes, shapes and values of a float32 model's weights and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is no whole safetensors file: {error}", fix="download or copy the file again"
        ) from error


def _read_pickle(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle's age; whether it can be read is all that counts
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused(path, str(error)) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{path} cannot be read, it may be truncated: {_first_line(error)}", fix="download or copy the file again"
        ) from error


def _refused(path: Path, told: str) -> CheckpointError:
    """The error for a pickle that PyTorch's tensors-only reader does not take."""
    if found := re.search(r"GLOBAL (\S+)|(?:[Cc]lass|function) `?([\w.]+)", told):
        return CheckpointError(
            f"{path} holds Python objects besides tensors ({found.group(1) or found.group(2)}); reading them could run "
            "code, so it is refused",
            fix="get the weights as .safetensors; or, if you trust the file's author, convert it once: python -c "
            f"\"import torch, safetensors.torch as s; c = torch.load('{path.name}', weights_only=False); "
            "s.save_file({k: v.contiguous() for k, v in c.get('state_dict', c).items()}, 'model.safetensors')\"",
        )
    detail = re.search(r"WeightsUnpickler error: *(.+)", told)
    return CheckpointError(
        f"{path} is not a file of tensors as torch.save writes it" + (f": {detail.group(1)}" if detail else ""),
        fix="download or copy the file again, or get the weights as .safetensors",
    )


def _unwrap(content: object, path: Path) -> State:
    """The state dict inside what a file holds."""
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(
            f"{path} holds {type(content).__name__}, not a state dict of names and tensors",
            fix="save model.state_dict(), alone or under the key 'state_dict'",
        )
    other = [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if other:
        raise CheckpointError(
            f"{path} is not a state dict: {_some(other, 'entries')} hold no tensor",
            fix="save model.state_dict(), alone or under the key 'state_dict'",
        )
    state = {str(name): tensor for name, tensor in content.items()}
    wrapped = [name for name in state if name.startswith(_WRAPPER)]
    if wrapped and len(wrapped) < len(state):
        raise CheckpointError(
            f"{path}: {len(wrapped)} of {len(state)} names begin with {_WRAPPER!r} and the others do not",
            fix="save the state dict of one model, wrapped or not",
        )
    return {name.removeprefix(_WRAPPER): tensor for name, tensor in state.items()}


def _check_names(expected: Mapping[str, torch.Tensor], state: State, label: str) -> None:
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    if not missing and not unexpected:
        return
    parts = [_some(names, kind) for names, kind in ((missing, "missing"), (unexpected, "unexpected")) if names]
    raise CheckpointError(
        f"{label}: the weights do not fit the architecture, which has {len(expected)}: {'; '.join(parts)}",
        fix=_cause(missing, unexpected),
    )


def _cause(missing: Sequence[str], unexpected: Sequence[str]) -> str:
    """The likeliest reason for names that do not match, and what to do."""
    if any(name.startswith(("text_model.", "vision_model.")) for name in unexpected):
        return "these are weights in the layout of Hugging Face transformers; use the open_clip repository of the model"
    if any(name.startswith("_orig_mod.") for name in unexpected):
        return "the state dict is of a torch.compile wrapper; save model._orig_mod.state_dict()"
    if missing == ["logit_bias"]:
        return "the architecture is for sigmoid training (logit_bias), the weights for softmax; choose its softmax twin"
    if unexpected == ["logit_bias"]:
        return 'the weights were trained with sigmoid; use local-dir: with "init_logit_bias" in its model_cfg'
    if not unexpected:
        return "the file is incomplete; save the whole state dict of the model, not of one tower or of what was trained"
    return "the weights belong to another architecture; name the one they were trained with"


def _check_shapes(expected: Mapping[str, torch.Tensor], state: State, label: str) -> None:
    wrong = [name for name, tensor in expected.items() if tensor.shape != state[name].shape]
    if not wrong:
        return
    shown = [f"{name} is {tuple(state[name].shape)}, expected {tuple(expected[name].shape)}" for name in wrong]
    if all("positional_embedding" in name or "pos_embed" in name for name in wrong):
        fix = "name the architecture of the size that the weights were trained at; positions are never stretched"
    else:
        fix = "the weights belong to another architecture or size; name the one they were trained with"
    raise CheckpointError(f"{label}: {_some(shown, 'wrong shapes')}", fix=fix)


def _some(names: Sequence[str], kind: str) -> str:
    """`3 missing (a, b, c)`, the first few by name."""
    more = ", ..." if len(names) > _SHOWN else ""
    return f"{len(names)} {kind} ({', '.join(names[:_SHOWN])}{more})"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
