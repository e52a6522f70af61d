"""Older layouts of open_clip's weights, and Apple's, renamed as open_clip renames them."""

from __future__ import annotations

from collections.abc import Callable

from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from torch import nn

from clipdeploy.errors import CheckpointError
from clipdeploy.export.weights.text import some
from clipdeploy.export.weights.wrappers import State

_APPLE = (
    "image_encoder.model.patch_embed.0.rbr_conv.0.conv.weight",
    "image_encoder.model.patch_emb.0.block.conv.weight",
)
_APPLE_PARTS = ("image_encoder.model.", "text_encoder.", "logit_scale")


def of_open_clip(model: nn.Module, *, label: str) -> Callable[[State], State]:
    """What turns the names of a state dict into those of `model`; it raises CheckpointError when it would drop one."""

    def rename(state: State) -> State:
        if any(name in state for name in _APPLE):
            state = _from_apple(model, state, label)
        if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
            return dict(convert_to_custom_text_state_dict(state))
        return state

    return rename


def _from_apple(model: nn.Module, state: State, label: str) -> State:
    strange = [name for name in state if not name.startswith(_APPLE_PARTS)]
    if strange:
        raise CheckpointError(
            f"{label}: the weights are in Apple's layout, which has no {some(strange, 'such weights')}",
            fix="use the file as Apple published it, or the model's open_clip version",
        )
    try:
        renamed = dict(convert_state_dict(model, dict(state)))
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{label}: the weights are in Apple's layout, but are not those of this architecture "
            f"({type(error).__name__}: {error})",
            fix="name the MobileCLIP that they are of",
        ) from error
    if len(renamed) != len(state):
        raise CheckpointError(
            f"{label}: of {len(state)} weights in Apple's layout, open_clip takes {len(renamed)}",
            fix="use the file as Apple published it, or the model's open_clip version",
        )
    return renamed
