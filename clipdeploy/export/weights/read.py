"""A state dict from a weights file, or from the weights files of a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from clipdeploy.errors import CheckpointError
from clipdeploy.export.weights import foreign
from clipdeploy.export.weights.files import INDEX, SUFFIXES, read_content
from clipdeploy.export.weights.text import some
from clipdeploy.export.weights.wrappers import State, unwrap

OPENAI_KEYS = frozenset({"input_resolution", "context_length", "vocab_size"})
"""What OpenAI's own files hold besides weights, and no others do."""
SAFE, SAFE_INDEX = "model.safetensors", f"model.safetensors{INDEX}"
PICKLE, PICKLE_INDEX = "pytorch_model.bin", f"pytorch_model.bin{INDEX}"
TRANSFORMERS = (SAFE, SAFE_INDEX, PICKLE, PICKLE_INDEX)
"""The names under which transformers saves weights, in its own order."""
# What a trainer leaves beside the weights.
_OTHERS = ("training_args", "optimizer", "scheduler", "scaler", "rng_state", "random_states", "trainer_state")


@dataclass(frozen=True, eq=False)
class Weights:
    """What a weights file holds.

    Attributes:
        state: name to tensor; a tensor may be mapped from the file, so the file must stay while it is used.
        openai: the file is one of OpenAI's own, all of which were trained with QuickGELU.
    """

    state: State
    openai: bool = False


def read_weights(path: Path, entry: str | None = None) -> Weights:
    """Read a weights file: safetensors, a PyTorch state dict however wrapped, OpenAI's TorchScript, or shards by index.

    Nothing of the file is run: a pickle that asks for more than tensors is refused.

    Args:
        path: the file.
        entry: which state dict, of a file that holds several.

    Raises:
        CheckpointError: the file is missing, damaged, unsafe, quantised, an adapter, or holds no one state dict.
    """
    state = unwrap(read_content(path), path, entry)
    foreign.check_names(state, path)
    odd = [n for n, t in state.items() if t.layout != torch.strided or t.is_quantized or t.device.type != "cpu"]
    if odd:
        raise CheckpointError(
            f"{path}: {some(odd, 'weights')} are sparse, quantised or without values",
            fix="save the model's plain dense weights",
        )
    openai = state.keys() >= OPENAI_KEYS
    return Weights({name: t for name, t in state.items() if not (openai and name in OPENAI_KEYS)}, openai)


def read_state(folder: Path) -> Weights:
    """Read the weights of a transformers folder, single or in shards, as `read_weights` reads a file.

    Raises:
        CheckpointError: as `read_weights`; or the folder holds no weights, or several of unknown names.
    """
    return read_weights(find_weights(folder, TRANSFORMERS))


def find_weights(folder: Path, preferred: tuple[str, ...]) -> Path:
    """The weights file (or index) of a folder: of the usual names the first, else the only one there is.

    Raises:
        CheckpointError: none, several, an adapter, or the parts that a training framework wrote.
    """
    foreign.check_adapter(folder)
    for name in preferred:
        if (folder / name).is_file():
            return folder / name
    foreign.check_parts(folder)
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(_OTHERS))
    found = [path for path in files if path.suffix.lower() in SUFFIXES]
    if len(found) != 1:
        for path in files if not found else ():
            foreign.check_file(path)
        names = ", ".join(path.name for path in found) or "none"
        raise CheckpointError(
            f"folder {folder} should hold one weights file, found: {names}", fix=f"name the one to use {preferred[0]}"
        )
    return found[0]
