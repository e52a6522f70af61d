"""Immich's layout, whose graphs come from open_clip:

config.json                                        open_clip's model configuration
visual/model.onnx   visual/preprocess_cfg.json
textual/model.onnx  textual/tokenizer.json  textual/tokenizer_config.json
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipdeploy.errors import CheckpointError
from clipdeploy.importing.files import first_file, part, read_json
from clipdeploy.importing.pixels import of_open_clip
from clipdeploy.importing.records import ImportRequest, Stated
from clipdeploy.spec import TextCleaning, TextPooling

_IMAGE, _TEXT = Path("visual/model.onnx"), Path("textual/model.onnx")
_POOLING: dict[str, TextPooling] = {"argmax": "eot_argmax", "eos": "eot_first", "last": "last"}
_LENGTH = 77  # open_clip's, where a configuration states none


def fits(folder: Path) -> bool:
    """Whether both graphs are where Immich keeps them."""
    return (folder / _IMAGE).is_file() and (folder / _TEXT).is_file()


def read(request: ImportRequest) -> Stated:
    """What the folder states."""
    folder = request.folder
    if request.variant is not None:
        raise CheckpointError(f"{folder}: Immich's layout has no variants", fix="leave out --variant")
    config = read_json(folder / "config.json")
    words, preprocess = part(config, "text_cfg"), folder / "visual/preprocess_cfg.json"
    facts: dict[str, Any] = {}
    if words:
        facts = {**open_clip_text(config), "activation": open_clip_activation(config)}
    return Stated(
        layout="immich",
        name=folder.resolve().name,
        image_graph=folder / _IMAGE,
        text_graph=folder / _TEXT,
        pixels=of_open_clip(read_json(preprocess), preprocess),
        tokenizer=first_file(folder, "textual/tokenizer.json"),
        tokenizer_config=read_json(folder / "textual/tokenizer_config.json"),
        embed_dim=config.get("embed_dim"),
        card=first_file(folder, "README.md"),
        **facts,
    )


def open_clip_text(config: dict[str, Any]) -> dict[str, Any]:
    """What `model_cfg` of open_clip states of texts, as fields of `Stated`."""
    words = part(config, "text_cfg")
    hub = "hf_model_name" in words
    cleaning: TextCleaning = "whitespace" if "hf_tokenizer_name" in words else "lower"
    stated = part(words, "tokenizer_kwargs").get("clean", cleaning)
    if stated not in ("whitespace", "lower", "canonicalize"):
        raise CheckpointError(
            f"config.json cleans texts by {stated!r}, which is not known", fix="say --cleaning, or mend config.json"
        )
    pooling = "cls" if words.get("embed_cls") else _POOLING.get(str(words.get("pool_type", "argmax")), "other")
    return {
        "context_length": int(words.get("context_length") or _LENGTH),
        "cleaning": stated,
        "pooling": "other" if hub else pooling,
        "causal": not (hub or words.get("no_causal_mask", False)),
        "masks_padding": True if hub else None,
        "probability": "sigmoid" if config.get("init_logit_bias") is not None else "softmax",
        "image_family": str(part(config, "vision_cfg").get("timm_model_name") or _family(config)),
        "text_family": str(words.get("hf_model_name") or "Transformer"),
    }


def open_clip_activation(config: dict[str, Any]) -> str | None:
    """Of a plain open_clip transformer; towers of other libraries state theirs elsewhere."""
    vision, words = part(config, "vision_cfg"), part(config, "text_cfg")
    if "timm_model_name" in vision or "hf_model_name" in words or isinstance(vision.get("layers"), list):
        return None
    tanh = [bool(part(c, "act_kwargs")) for c in (vision, words)]
    return None if any(tanh) else "quick_gelu" if config.get("quick_gelu") else "gelu"


def _family(config: dict[str, Any]) -> str:
    return "ModifiedResNet" if isinstance(part(config, "vision_cfg").get("layers"), list) else "ViT"
