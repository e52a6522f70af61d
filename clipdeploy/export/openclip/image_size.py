"""Another image size than a checkpoint's own, as `open_clip.create_model(..., force_image_size=...)` gives it.

open_clip's own functions do the work, on a model that has its weights: its VisionTransformer gets its grid of position
embeddings resampled (bicubic, antialiased), timm's networks do it themselves (`set_input_size`), and a network of
convolutions takes pictures of any size as it is.
"""

from __future__ import annotations

from typing import Any

from open_clip.model import resize_pos_embed
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import nn

from clipdeploy.errors import CheckpointError

_CONVOLUTIONS = ("ConvNeXt", "FastVit", "ByobNet")
_DROP = "drop --image-size, or use a checkpoint of that size"


def set_image_size(model: nn.Module, size: tuple[int, int], *, label: str) -> None:
    """Make a model take pictures of another size, in place.

    Args:
        model: open_clip's CLIP, CustomTextCLIP or CoCa with its weights, float32, in eval mode.
        size: (height, width) in px.
        label: the checkpoint, for messages.

    Raises:
        CheckpointError: the image encoder cannot take pictures of that size, or open_clip does not say how.
    """
    visual: Any = model.visual
    own = visual.image_size
    own = (own, own) if isinstance(own, int) else tuple(own)
    if own == size:
        return
    if isinstance(visual, VisionTransformer):
        _check_multiple(size, visual.patch_size, "patches", label)
        _resample(model, size, label)
    elif isinstance(visual, TimmModel):
        _check_timm(visual, size, label)
        visual.set_input_size(size)
        visual.requires_grad_(False)  # new position embeddings would ask for gradients
    elif isinstance(visual, ModifiedResNet):
        raise _refused(
            label, own, size, "its attention pooling has one position a place, which open_clip resamples not"
        )
    else:
        raise _refused(label, own, size, f"for {type(visual).__name__} open_clip does not say how")


def _resample(model: nn.Module, size: tuple[int, int], label: str) -> None:
    """Give open_clip's VisionTransformer position embeddings for another grid."""
    visual: Any = model.visual
    own_grid, own = visual.grid_size, visual.image_size
    grid = (size[0] // visual.patch_size[0], size[1] // visual.patch_size[1])
    if own_grid[0] != own_grid[1]:
        raise _refused(label, own, size, f"open_clip resamples from square grids alone, this one is {own_grid}")
    if grid[0] * grid[1] == own_grid[0] * own_grid[1] and grid != own_grid:
        raise _refused(label, own, size, f"its {grid} patches are as many as before, and open_clip would mix them up")
    state = {"visual.positional_embedding": visual.positional_embedding.detach()}
    visual.grid_size, visual.image_size = grid, size
    resize_pos_embed(state, model)
    visual.positional_embedding = nn.Parameter(state["visual.positional_embedding"], requires_grad=False)


def _check_timm(visual: Any, size: tuple[int, int], label: str) -> None:
    trunk = visual.trunk
    kind, own = type(trunk).__name__, tuple(visual.image_size)
    if hasattr(visual.head, "pool"):
        raise _refused(label, own, size, "its attention pooling has one position a place")
    if kind in _CONVOLUTIONS:
        stride = trunk.feature_info[-1]["reduction"]
        _check_multiple(size, (stride, stride), "strides", label)
        return
    rope = type(getattr(trunk, "rope", None)).__name__
    if kind not in ("VisionTransformer", "Eva") or rope not in ("NoneType", "RotaryEmbeddingCat"):
        raise _refused(label, own, size, f"its {kind} is built for one size (windows or tables of relative positions)")
    embed = trunk.patch_embed
    # Behind convolutions (ViTamin, MobileCLIP-B) a patch of the network is several px of the picture.
    patch = tuple(side // cells for side, cells in zip(embed.img_size, embed.grid_size, strict=True))
    _check_multiple(size, patch, "patches", label)


def _check_multiple(size: tuple[int, int], unit: tuple[int, ...], what: str, label: str) -> None:
    if any(side <= 0 or side % step for side, step in zip(size, unit, strict=True)):
        near = [max(step, round(side / step) * step) for side, step in zip(size, unit, strict=True)]
        raise CheckpointError(
            f"{label}: {size[0]}x{size[1]} px cannot be cut into whole {what} of {unit[0]}x{unit[1]} px",
            fix=f"use a multiple, such as {near[0]}x{near[1]}",
        )


def _refused(label: str, own: tuple[int, ...], size: tuple[int, int], why: str) -> CheckpointError:
    return CheckpointError(
        f"{label}: the image encoder takes {own[0]}x{own[1]} px and cannot take {size[0]}x{size[1]}: {why}", fix=_DROP
    )
