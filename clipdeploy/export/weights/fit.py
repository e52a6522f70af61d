"""Weights into a model: only when every name, shape and kind of number fits, and every value is finite.

What cannot be seen here: a square matrix that was transposed, or two weights of one shape that changed places. Their
names and shapes are right, and nothing in a checkpoint says what its values should be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatch

import torch
from torch import nn

from clipdeploy.errors import CheckpointError
from clipdeploy.export.weights.mapped import give_back
from clipdeploy.export.weights.read import Weights
from clipdeploy.export.weights.text import some
from clipdeploy.export.weights.wrappers import State

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def load_weights(
    model: nn.Module,
    weights: Weights,
    *,
    label: str,
    rename: Callable[[State], State] = dict,
    harmless: Sequence[str] = (),
) -> None:
    """Put `weights` into a float32 `model`, tensor by tensor; values of other precision become float32.

    A prefix that all names share, as training frameworks add one (`model.`), is taken off where the names fit the
    model only without it. Constant tables that older versions of a library saved (position ids, causal masks) are
    left out when they hold what they should.

    Args:
        model: takes the values in place.
        weights: what a file holds.
        label: of the checkpoint, for messages.
        rename: from an older layout of the library to the model's.
        harmless: patterns of names (`*.embeddings.position_ids`) that the model need not have.

    Raises:
        CheckpointError: a weight is missing, unexpected, misshapen, of no floating-point kind, NaN or infinite.
    """
    expected = model.state_dict()
    state = _best_fit(expected, weights.state, rename)
    state = {name: t for name, t in state.items() if name in expected or not _is_harmless(name, t, harmless)}
    for name in ("logit_scale", "logit_bias"):  # one value, stored as a number or as a list of one
        if name in state and name in expected and state[name].numel() == 1:
            state[name] = state[name].reshape(expected[name].shape)
    _check_names(expected, state, label)
    _check_shapes(expected, state, label)
    _check_kinds(expected, state, label)
    _take(model, expected, state)
    check_finite(model, label=label)


def check_finite(model: nn.Module, *, label: str) -> None:
    """Raise CheckpointError naming the weights that hold NaN or infinity."""
    bad = [n for n, t in model.state_dict().items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if bad:
        raise CheckpointError(
            f"{label}: {some(bad, 'weights')} hold NaN or infinity, or values beyond float32",
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


def _take(model: nn.Module, expected: Mapping[str, torch.Tensor], state: State) -> None:
    """Copy every value into the model, giving back the memory of each as it goes."""
    own = dict([*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)])
    if any(name not in own or own[name].data_ptr() != tensor.data_ptr() for name, tensor in expected.items()):
        model.load_state_dict(state, strict=True)  # a module that computes what it shows has its own way back
        return
    for name, tensor in expected.items():
        tensor.copy_(state[name])
        give_back(state[name])


def _best_fit(expected: Mapping[str, torch.Tensor], state: State, rename: Callable[[State], State]) -> State:
    """`state` renamed: as it is or, when more of its names fit the model then, without a prefix they all share."""
    candidates = [rename(candidate) for candidate in _without_prefixes(state)]
    return max(candidates, key=lambda candidate: len(expected.keys() & candidate.keys()))  # the first of equals


def _without_prefixes(state: State) -> Iterator[State]:
    """`state`, then without each dotted prefix that all its names share, shortest first."""
    yield dict(state)
    while True:
        firsts = {name.partition(".")[0] for name in state}
        if len(firsts) != 1 or not all("." in name for name in state):
            return
        state = {name.partition(".")[2]: tensor for name, tensor in state.items()}
        yield dict(state)


def _is_harmless(name: str, tensor: torch.Tensor, patterns: Sequence[str]) -> bool:
    if any(fnmatch(name, pattern) for pattern in patterns):
        return True
    last = name.rpartition(".")[2]
    if last == "position_ids":
        return bool((tensor.reshape(-1) == torch.arange(tensor.numel())).all())
    if last == "attn_mask" and tensor.ndim == 2 and tensor.is_floating_point():
        mask = torch.full(tensor.shape, -torch.inf).triu(1)
        return bool((tensor.float() == mask).all())
    return False


def _check_names(expected: Mapping[str, torch.Tensor], state: State, label: str) -> None:
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    if not missing and not unexpected:
        return
    parts = [some(names, kind) for names, kind in ((missing, "missing"), (unexpected, "unexpected")) if names]
    raise CheckpointError(
        f"{label}: the weights do not fit the architecture, which has {len(expected)}: {'; '.join(parts)}",
        fix=_cause(missing, unexpected),
    )


def _cause(missing: Sequence[str], unexpected: Sequence[str]) -> str:
    """The likeliest reason for names that do not match, and what to do."""
    lacks_all = len(missing) > len(unexpected) // 2 > 0
    if lacks_all and any(name.startswith(("text_model.", "vision_model.")) for name in unexpected):
        return (
            "these are weights in the layout of Hugging Face transformers: name the folder that holds them and their "
            "config.json, or the repository, with --library transformers"
        )
    if missing == ["logit_bias"]:
        return "the architecture is for sigmoid training (logit_bias), the weights for softmax; choose its softmax twin"
    if unexpected == ["logit_bias"]:
        return 'the weights were trained with sigmoid; use local-dir: with "init_logit_bias" in its model_cfg'
    if not unexpected:
        return "the file is incomplete; save the whole state dict of the model, not of one tower or of what was trained"
    if not missing:
        return (
            "the file holds more than the architecture: name the architecture it was trained with; or, if the training "
            "program put a part of its own beside the model (a head, a loss), save the state dict of the CLIP alone"
        )
    return "the weights belong to another architecture; name the one they were trained with"


def _check_shapes(expected: Mapping[str, torch.Tensor], state: State, label: str) -> None:
    wrong = [name for name, tensor in expected.items() if tensor.shape != state[name].shape]
    if not wrong:
        return
    shown = [f"{name} is {tuple(state[name].shape)}, expected {tuple(expected[name].shape)}" for name in wrong]
    if all("positional_embedding" in name or "pos_embed" in name for name in wrong):
        fix = (
            "name the architecture of the size that the weights were trained at, and the size to export at with "
            "--image-size; positions are never stretched unasked"
        )
    elif all(state[name].numel() == 0 for name in wrong):
        fix = "the values stand in other files, as DeepSpeed ZeRO-3 writes them: join them with its zero_to_fp32.py"
    else:
        fix = "the weights belong to another architecture or size; name the one they were trained with"
    raise CheckpointError(f"{label}: {some(shown, 'wrong shapes')}", fix=fix)


def _check_kinds(expected: Mapping[str, torch.Tensor], state: State, label: str) -> None:
    """Whole numbers in the place of weights are quantised values: without their scales they mean nothing."""
    wrong = []
    for name, tensor in expected.items():
        same = state[name].dtype == tensor.dtype
        if not same and not (tensor.is_floating_point() and state[name].dtype in _FLOATS):
            wrong.append(f"{name} is {state[name].dtype}, expected {tensor.dtype}".replace("torch.", ""))
    if wrong:
        raise CheckpointError(
            f"{label}: {some(wrong, 'weights of another kind of number')}",
            fix="give the checkpoint in float32, float16 or bfloat16, as it was before it was quantised",
        )
