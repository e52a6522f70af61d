"""An open_clip checkpoint: the architecture built, the weights taken in, and everything it does described."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from PIL import Image
from torch import nn

from clipdeploy.errors import CheckpointError
from clipdeploy.export.checkpoint import Checkpoint
from clipdeploy.export.openclip import preprocessing
from clipdeploy.export.openclip.describe import describe
from clipdeploy.export.openclip.image_size import set_image_size
from clipdeploy.export.openclip.quiet import no_complaints
from clipdeploy.export.sources.hub import Hub
from clipdeploy.export.sources.open_clip import check_origin
from clipdeploy.export.sources.openai import as_folder
from clipdeploy.export.sources.source import OpenClipSource
from clipdeploy.export.tokens.open_clip import named_tokenizer, token_facts
from clipdeploy.export.weights.fit import check_finite, hash_weights, load_weights
from clipdeploy.export.weights.layouts import of_open_clip
from clipdeploy.export.weights.read import read_weights
from clipdeploy.progress import Progress
from clipdeploy.request import CheckpointRequest


def load_open_clip(source: OpenClipSource, request: CheckpointRequest, hub: Hub, progress: Progress) -> Checkpoint:
    """Load what `source` names; raises CheckpointError as `load_checkpoint` says."""
    with as_folder(source) as settled:
        return _load(settled, request, hub, progress)


def _load(source: OpenClipSource, request: CheckpointRequest, hub: Hub, progress: Progress) -> Checkpoint:
    config = _preprocess_config(source, request.preprocessing)
    module, embed_dim, tokenizer = _build(source, request, hub)
    if source.weights is not None:
        progress("reading weights", 0, 0)
        weights = read_weights(source.weights, request.entry)
        check_origin(source, weights)
        load_weights(module, weights, label=source.label, rename=of_open_clip(module, label=source.label))
        del weights  # what is mapped of the file need not stay
    else:
        check_finite(module, label=source.label)
    module.eval().requires_grad_(False)
    if request.image_size is not None:
        set_image_size(module, request.image_size, label=source.label)
        config = {**config, "size": None}  # what the checkpoint states is its own size
    clip: Any = module
    pixels = preprocessing.pixel_spec(config, image_size=clip.visual.image_size, label=source.label)
    transform = preprocessing.make_transform(pixels, label=source.label)
    facts = token_facts(tokenizer, name=source.label)
    return Checkpoint(
        model=module,
        image_encoder=module.get_submodule("visual"),
        text_encoder=text_encoder(module),
        encode_image=partial(clip.encode_image, normalize=True),
        encode_text=partial(clip.encode_text, normalize=True),
        spec=describe(module, name=source.name, embed_dim=embed_dim, pixels=pixels, facts=facts),
        crop=partial(_crop, transform),
        transform=transform,
        tokenize=tokenizer,
        source=source.label,
        weights_sha256=hash_weights(module),
        licence=source.licence,
        tokenizer_json=facts.to_json,
        trained=source.weights is not None,
        causal=_causal(source),
    )


def _causal(source: OpenClipSource) -> bool | None:
    """Whether the text tower's configuration asks for a causal mask; those of transformers have their own way."""
    text = open_clip.get_model_config(source.model)["text_cfg"]
    return None if text.get("hf_model_name") else not text.get("no_causal_mask", False)


def _crop(transform: Any, image: Image.Image) -> npt.NDArray[np.uint8]:
    """The picture before the transform's last two steps, which make a tensor of it and normalise."""
    picture: Any = image
    for step in transform.transforms[:-2]:
        picture = step(picture)
    return np.array(picture, dtype=np.uint8)


def text_encoder(model: nn.Module) -> nn.Module:
    """The text encoder; of `open_clip.CLIP`, which keeps its parts beside the image encoder, a view without that."""
    text = getattr(model, "text", None)
    if isinstance(text, nn.Module):
        return text
    part = copy.copy(model)
    part._modules = {name: child for name, child in model._modules.items() if name != "visual"}
    return part


def _preprocess_config(source: OpenClipSource, family: str | None) -> dict[str, Any]:
    named = preprocessing.family(family) if family is not None else None
    if source.stated is None and named is None:
        raise CheckpointError(
            f"{source.label}: nothing states how pictures were prepared for these weights",
            fix=f"name it with --preprocessing, one of {', '.join(preprocessing.FAMILIES)}; or put the weights into a "
            "folder with an open_clip_config.json that has preprocess_cfg",
        )
    if source.stated is not None and named is not None and not preprocessing.same(source.stated, named):
        raise CheckpointError(
            f"{source.label} states another preprocessing than {family!r}: {source.stated}", fix="drop --preprocessing"
        )
    return source.stated if source.stated is not None else named or {}


def _build(source: OpenClipSource, request: CheckpointRequest, hub: Hub) -> tuple[nn.Module, int, Any]:
    """The architecture with seeded values, its D, and the tokenizer."""
    config = open_clip.get_model_config(source.model)
    needed = ("hf_model_name",) if request.tokenizer else ("hf_tokenizer_name", "hf_model_name")
    asked = [config["text_cfg"][key] for key in needed if config["text_cfg"].get(key)]
    given = None if request.tokenizer is None else named_tokenizer(request.tokenizer, config, name=source.label)
    try:
        with (
            no_complaints(source.label),
            hub.session() if asked else nullcontext(),
            torch.random.fork_rng(devices=[]),
        ):
            tokenizer = given or open_clip.get_tokenizer(source.tokenizer)
            torch.manual_seed(request.seed)
            module = open_clip.create_model(source.model, load_weights=False, pretrained_text=False)
    except (OSError, TypeError, ValueError, KeyError, RuntimeError, AssertionError, ImportError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if asked and isinstance(error, (OSError, ValueError)):
            raise CheckpointError(
                f"{source.label} needs a tokenizer or text model of the Hugging Face hub ({', '.join(asked)}), "
                f"which cannot be had: {hub.unreachable or why}",
                fix="run once where the network is, which fills the cache; or put tokenizer.json and "
                "tokenizer_config.json into a folder with open_clip_config.json and the weights: local-dir:FOLDER; or, "
                "where only the tokenizer is missing, name a folder of those two files with --tokenizer",
            ) from error
        raise CheckpointError(
            f"{source.label}: open_clip {open_clip.__version__} cannot build the architecture: {why}",
            fix="correct model_cfg in open_clip_config.json, or install the open-clip-torch it was written for",
        ) from error
    return module, int(config["embed_dim"]), tokenizer
