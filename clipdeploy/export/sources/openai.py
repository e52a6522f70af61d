"""A weights file as the checkpoint: OpenAI's own state their architecture in the shapes of their weights."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import open_clip

from clipdeploy.errors import CheckpointError
from clipdeploy.export.openclip import preprocessing
from clipdeploy.export.sources.hub import CONFIG
from clipdeploy.export.sources.place import FOLDER
from clipdeploy.export.sources.published import uses_quick_gelu
from clipdeploy.export.sources.source import OpenClipSource
from clipdeploy.export.weights.read import read_weights
from clipdeploy.export.weights.wrappers import State

_HEAD = 64  # width of an attention head in all of OpenAI's CLIPs
_STRIDE = 32  # image pixels a cell of their ResNets' last feature map
_SHOWN = 6
_VISION = {"layers": 12, "width": 768, "patch_size": 16, "image_size": 224}
_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 512, "layers": 12}


def from_file(model: str, entry: str | None) -> OpenClipSource:
    """The checkpoint that a weights file of OpenAI's is, without any further word.

    Raises:
        CheckpointError: the file cannot be read, or is not one of OpenAI's own; then its architecture is not certain.
    """
    path = Path(model).expanduser()
    weights = read_weights(path, entry)
    if not weights.openai:
        raise _not_certain(path, weights.state)
    try:
        config = model_config(weights.state)
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(
            f"{path} has the marks of OpenAI's own files, but not their weights: {error}",
            fix="download the file again, or name the architecture and give the file with --pretrained FILE",
        ) from error
    known = [name for name in _fitting(config) if uses_quick_gelu(name)]
    name = known[0] if known else path.stem
    stated = preprocessing.family("openai")
    return OpenClipSource(name, model, "", "", True, stated, weights=path, config={**config, "quick_gelu": True})


@contextmanager
def as_folder(source: OpenClipSource) -> Iterator[OpenClipSource]:
    """`source` with its configuration in a folder while the block runs, where it stands in no file yet."""
    if source.config is None:
        yield source
        return
    with TemporaryDirectory(prefix="clipdeploy-") as folder:
        text = json.dumps({"model_cfg": source.config})
        (Path(folder) / CONFIG).write_text(text, encoding="utf-8")
        yield replace(source, model=FOLDER + folder, tokenizer=FOLDER + folder)


def model_config(state: State) -> dict[str, Any]:
    """open_clip's `model_cfg` of weights in OpenAI's layout, read off their shapes.

    Raises:
        KeyError: a weight that tells is not there.
        ValueError: the position embeddings are of no square picture.
    """
    text_width = state["ln_final.weight"].shape[0]
    return {
        "embed_dim": state["text_projection"].shape[1],
        "vision_cfg": _vit(state) if "visual.proj" in state else _resnet(state),
        "text_cfg": {
            "context_length": state["positional_embedding"].shape[0],
            "vocab_size": state["token_embedding.weight"].shape[0],
            "width": text_width,
            "heads": text_width // _HEAD,
            "layers": _count(state, r"transformer\.resblocks\.(\d+)\."),
        },
    }


def _vit(state: State) -> dict[str, Any]:
    width, _, patch, _ = state["visual.conv1.weight"].shape
    return {
        "layers": _count(state, r"visual\.transformer\.resblocks\.(\d+)\."),
        "width": width,
        "patch_size": patch,
        "image_size": patch * _side(state["visual.positional_embedding"].shape[0]),
    }


def _resnet(state: State) -> dict[str, Any]:
    return {
        "layers": [_count(state, rf"visual\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)],
        "width": state["visual.layer1.0.conv1.weight"].shape[0],
        "patch_size": None,
        "image_size": _STRIDE * _side(state["visual.attnpool.positional_embedding"].shape[0]),
    }


def _count(state: State, pattern: str) -> int:
    return len({found.group(1) for name in state if (found := re.match(pattern, name))})


def _side(positions: int) -> int:
    """Cells along a side of the square that `positions`, one of them the whole picture's, stand for."""
    side = math.isqrt(max(positions - 1, 0))
    if side**2 + 1 != positions:
        raise ValueError(f"{positions} positions are of no square picture")
    return side


def _fitting(config: dict[str, Any]) -> list[str]:
    """The architectures of open_clip's own classes whose shapes are those of `config`."""
    names = open_clip.list_models()
    return [name for name in names if _shapes(open_clip.get_model_config(name)) == _shapes(config)]


def _shapes(config: dict[str, Any]) -> tuple[Any, ...] | None:
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "timm_model_name" in vision or "hf_model_name" in text or "multimodal_cfg" in config:
        return None
    seen = {key: vision.get(key, default) for key, default in _VISION.items()}
    if isinstance(seen["layers"], list):
        seen.update(layers=tuple(seen["layers"]), patch_size=None)
    return (config["embed_dim"], *seen.values(), *(text.get(key, default) for key, default in _TEXT.items()))


def _not_certain(path: Path, state: State) -> CheckpointError:
    fix = "name the architecture, and give the file as its weights: ARCHITECTURE --pretrained FILE"
    try:
        names = _fitting(model_config({name.removeprefix("text."): tensor for name, tensor in state.items()}))
    except (KeyError, IndexError, ValueError):
        names = []
    if names:
        fix += f"; the shapes fit {', '.join(names[:_SHOWN])}"
        if any(uses_quick_gelu(name) for name in names) and not all(uses_quick_gelu(name) for name in names):
            fix += " (the ones called quickgelu for weights that were tuned from OpenAI's)"
    elif any(name.startswith(("vision_model.", "text_model.")) for name in state):
        fix = f"name the folder that holds the file together with its config.json: {FOLDER}FOLDER"
    return CheckpointError(f"{path} is a weights file, and does not state which model the weights are of", fix=fix)
