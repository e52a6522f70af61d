"""What training frameworks put around a state dict: found by its shape, never by a guess between two."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from clipdeploy.errors import CheckpointError
from clipdeploy.export.weights.text import some

State = dict[str, torch.Tensor]

_PARALLEL, _COMPILED = "module.", "_orig_mod."
_SAVE = "save model.state_dict(), alone or under the key 'state_dict'"


def unwrap(content: object, path: Path, entry: str | None) -> State:
    """The one state dict inside what a weights file holds.

    It may stand alone, under any key, or one level deeper. A file that holds several, such as the weights and their
    moving average, is refused unless `entry` names one. Of names, what PyTorch's data-parallel and compile wrappers
    put into them (`module.`, `_orig_mod.`) is taken off.

    Raises:
        CheckpointError: there is no state dict, there are several, or `entry` names none of them.
    """
    found = {"": content} if _is_state(content) else _entries(content)
    chosen = _choose(found, path, entry, content)
    return _plain_names(_tensors(chosen, path), path)


def _choose(found: Mapping[str, object], path: Path, entry: str | None, content: object) -> object:
    names = [name for name in found if name]
    if entry is not None:
        fitting = [n for n in names if n == entry] or [n for n in names if n.startswith(f"{entry}.")]
        if len(fitting) != 1:
            there = f"there are {', '.join(names)}" if names else "it holds one state dict and no entries"
            raise CheckpointError(f"{path} has no entry {entry!r}: {there}", fix="correct or drop --entry")
        return found[fitting[0]]
    if len(found) > 1:
        raise CheckpointError(
            f"{path} holds {len(found)} sets of weights: {', '.join(names)}",
            fix=f"choose one with --entry {names[0]}; of a moving average (ema), it is the average that was evaluated",
        )
    return next(iter(found.values())) if found else content


def _entries(content: object) -> dict[str, object]:
    """Dotted key to value, for everything in `content` or one level deeper that may be a set of weights."""
    found: dict[str, object] = {}
    for name, value in _items(content):
        if _may_be_weights(name, value):
            found[name] = value
            continue
        for inner, deeper in _items(value):
            if _may_be_weights(inner, deeper):
                found[f"{name}.{inner}"] = deeper
    return found


def _items(content: object) -> list[tuple[str, object]]:
    """The items of a mapping whose keys are all text; none of anything else, optimiser states among it."""
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        return []
    return list(content.items())


def _is_state(value: object) -> bool:
    """Whether all values are tensors, and some of them weights: random states are tensors of bytes."""
    items = _items(value)
    tensors = [tensor for _, tensor in items if isinstance(tensor, torch.Tensor)]
    return bool(items) and len(tensors) == len(items) and any(tensor.is_floating_point() for tensor in tensors)


def _may_be_weights(name: str, value: object) -> bool:
    """A state dict, one with something else in it, or the nameless list of a moving average."""
    if _is_state(value) or any(isinstance(v, torch.Tensor) and "." in key for key, v in _items(value)):
        return True
    return ("shadow" in name or "ema" in name) and _is_nameless(value)


def _is_nameless(value: object) -> bool:
    """Whether it is a list of tensors: values whose names are lost."""
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(v, torch.Tensor) for v in value)


def _tensors(content: object, path: Path) -> State:
    if _is_nameless(content):
        raise CheckpointError(
            f"{path} holds a list of tensors without names, which fit no model for certain",
            fix="copy the averaged values into the model where it was trained, and save model.state_dict()",
        )
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(
            f"{path} holds {type(content).__name__}, not a state dict of names and tensors", fix=_SAVE
        )
    other = [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if other:
        raise CheckpointError(f"{path} is not a state dict: {some(other, 'entries')} hold no tensor", fix=_SAVE)
    return {str(name): tensor for name, tensor in content.items()}


def _plain_names(state: State, path: Path) -> State:
    """The names without what wrappers of PyTorch put before or into them."""
    plain = {name.replace(_COMPILED, ""): name for name in state}
    while all(name.startswith(_PARALLEL) for name in plain):
        plain = {name.removeprefix(_PARALLEL): old for name, old in plain.items()}
    wrapped = [name for name in plain if name.startswith(_PARALLEL)]
    if wrapped or len(plain) < len(state):
        raise CheckpointError(
            f"{path}: {len(wrapped) or len(state) - len(plain)} of {len(state)} names begin with "
            f"{_PARALLEL!r} or {_COMPILED!r} and the others do not",
            fix="save the state dict of one model, wrapped or not",
        )
    return {name: state[old] for name, old in plain.items()}
