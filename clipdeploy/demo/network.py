"""A demo network in training, and the folder it becomes."""

from __future__ import annotations

from pathlib import Path

import torch
from open_clip.model import CLIP
from open_clip.transformer import VisionTransformer
from safetensors.torch import save_file
from torch import Tensor

from clipdeploy.demo.files import CONFIG, WEIGHTS, write_json
from clipdeploy.demo.recipe import TRAINED_POSITIONS, Recipe
from clipdeploy.demo.score import load_model
from clipdeploy.demo.start import settle
from clipdeploy.demo.vocabulary import Vocabulary


def build(recipe: Recipe, vocabulary: Vocabulary, teacher: Path | None = None, start: Path | None = None) -> CLIP:
    """A network whose token table has a row only for each word that captions use; row 0 stays zero.

    It is fresh, or what an earlier run left in the folder `start`. With a teacher the text tower is the teacher's,
    and locked.
    """
    config = recipe.model_config()
    model = CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"], quick_gelu=False)
    if isinstance(model.visual, VisionTransformer):
        settle(model.visual)
    if teacher is not None:
        taught, _, _ = load_model(teacher)
        state = {name: value for name, value in taught.state_dict().items() if not name.startswith("visual.")}
        model.load_state_dict(state, strict=False)
    if start is not None:
        begun, _, _ = load_model(start)
        model.load_state_dict(begun.state_dict())
    taken = teacher is not None or start is not None
    model.token_embedding = vocabulary.compact(model.token_embedding, keep=taken)
    if teacher is not None:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith("visual.") or name == "logit_scale")
    keep_zeros(model)
    return model


@torch.no_grad()
def keep_zeros(model: CLIP) -> None:
    """What no caption trains carries no information: the row of unknown words, the positions past all captions."""
    model.token_embedding.weight[0] = 0.0
    model.positional_embedding[TRAINED_POSITIONS:] = 0.0


def shipped_state(model: CLIP, vocabulary: Vocabulary) -> dict[str, Tensor]:
    """The state dict open_clip loads: the whole token table, float16, batch-norm statistics in float32."""
    state = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    state["token_embedding.weight"] = vocabulary.expand(state["token_embedding.weight"])
    return {
        name: (value.half() if value.is_floating_point() and "running_" not in name else value).contiguous()
        for name, value in state.items()
    }


def save(model: CLIP, vocabulary: Vocabulary, recipe: Recipe, out: Path) -> None:
    """Writes the `local-dir:` folder; a reader never meets half a file."""
    out.mkdir(parents=True, exist_ok=True)
    beside = out / (WEIGHTS + ".part")
    save_file(shipped_state(model, vocabulary), beside, metadata={"format": "pt"})
    beside.chmod(0o644)
    beside.replace(out / WEIGHTS)
    config = {"model_cfg": recipe.model_config(), "preprocess_cfg": recipe.preprocess_config()}
    write_json(out / CONFIG, config)
