"""Weights files: what they hold, read without running any of it and mapped into memory where the format allows.

A mapped file costs no memory of its own: its pages are read as they are used. Loading a model therefore needs about
the model, not the model and its file.
"""

from __future__ import annotations

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file

from clipdeploy.errors import CheckpointError
from clipdeploy.export.weights import foreign
from clipdeploy.export.weights.torchscript import is_torchscript, read_torchscript

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
INDEX = ".index.json"
"""What the name of a file ends in that says which of several files holds which tensor."""


class _Ignored:
    """Stands for what training programs keep beside the weights: it takes anything and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _Ignored:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


# Settings, scores and paths. None of these classes is made: the stand-in takes the place of each.
_STOOD_IN_FOR = (
    "argparse.Namespace",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath",
)


def is_weights_name(name: str) -> bool:
    """Whether a file of this name can be a weights file."""
    return name.lower().endswith((*SUFFIXES, INDEX))


def read_content(path: Path) -> object:
    """What a weights file holds: safetensors, a PyTorch pickle of tensors, OpenAI's TorchScript, or several by index.

    A pickle that asks for more than tensors, plain containers and the settings that training programs add is refused
    before anything of it is made.

    Raises:
        CheckpointError: the file is missing, damaged, unsafe, or of a kind that is not read.
    """
    if not path.is_file():
        raise CheckpointError(f"weights file {path} does not exist", fix="check the path")
    foreign.check_file(path)
    if not is_weights_name(path.name):
        raise CheckpointError(
            f"{path} is no weights file that can be read; its name should end in one of {', '.join(SUFFIXES)}",
            fix="give a .safetensors file or a PyTorch state dict",
        )
    if path.name.lower().endswith(INDEX):
        return _read_shards(path)
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    if is_torchscript(path):
        return read_torchscript(path)
    return _read_pickle(path)


def _read_safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is no whole safetensors file: {error}", fix="download or copy the file again"
        ) from error


def _read_pickle(path: Path) -> object:
    allowed: list[Any] = [(_Ignored, name) for name in _STOOD_IN_FOR]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
            warnings.simplefilter("ignore")  # of a pickle's age; whether it can be read is all that counts
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise _refused(path, str(error)) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
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


def _read_shards(index: Path) -> object:
    """One state dict of the files that an index names; every tensor must stand where the index says, and no other."""
    places = read_index(index)
    shards = sorted(set(places.values()))
    lacking = [name for name in shards if not (index.parent / name).is_file()]
    if lacking:
        raise CheckpointError(
            f"{index} names {len(shards)} files, of which {len(lacking)} are missing: {', '.join(lacking)}",
            fix=f"put them beside {index.name}",
        )
    state: dict[str, object] = {}
    for name in shards:
        content = read_content(index.parent / name)
        held = set(content) if isinstance(content, Mapping) else set()
        promised = {tensor for tensor, place in places.items() if place == name}
        if not isinstance(content, Mapping) or held != promised:
            wrong = sorted(map(str, held ^ promised))
            raise CheckpointError(
                f"{index.name} and {name} in {index.parent} disagree about {len(wrong)} tensors, such as {wrong[0]}",
                fix="download or copy all files again, so that they are of one save",
            )
        state.update(content)
    return state


def read_index(index: Path) -> dict[str, str]:
    """Tensor to file name."""
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{index} cannot be read: {error}", fix="download or copy the file again") from error
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{index} has no weight_map of tensors and files", fix="download or copy the file again")
    for name in places.values():
        plain = isinstance(name, str) and name == Path(name).name and name.lower().endswith(SUFFIXES)
        if not plain:
            raise CheckpointError(
                f"{index} names {name!r}, which is no weights file beside it", fix="download or copy the file again"
            )
    return dict(places)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
