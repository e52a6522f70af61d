"""Checkpoints that open_clip builds: a configuration and a weights file, of a name, a folder or a repository."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip

from clipdeploy.errors import CheckpointError
from clipdeploy.export.openclip import preprocessing
from clipdeploy.export.sources import published
from clipdeploy.export.sources.hub import CONFIG, Hub
from clipdeploy.export.sources.place import FOLDER, HUB, Place, Repository, licence
from clipdeploy.export.sources.source import OpenClipSource as Source
from clipdeploy.export.weights import foreign
from clipdeploy.export.weights.files import INDEX, is_weights_name
from clipdeploy.export.weights.read import Weights, find_weights

_SAFE, _PICKLE = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
# open_clip's own order, each single or in shards
_USUAL = (
    _SAFE,
    "open_clip_pytorch_model.safetensors",
    _PICKLE,
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
_PREFERRED = tuple(name for usual in _USUAL for name in (usual, usual + INDEX))
_TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("merges.txt", "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model"),
)


def check_origin(source: Source, weights: Weights) -> None:
    """Raise CheckpointError when the weights themselves tell that the configuration's activation is wrong."""
    if weights.openai and not source.quick_gelu:
        raise published.openai_mismatch(source.name, source.label)


def from_architecture(model: str, pretrained: str | None, *, random_weights: bool, hub: Hub) -> Source:
    """The checkpoint that an architecture's name and its weights are: a tag, a file, or seeded random values.

    Raises:
        CheckpointError: no such architecture, tag or file, a mismatch of activations, or no network where needed.
    """
    name = model.replace("/", "-")  # OpenAI writes ViT-B/32
    if name not in open_clip.list_models():
        raise published.unknown_architecture(model)
    source = Source(name, name, name, name, published.uses_quick_gelu(name), None)
    if random_weights:
        # Nothing was trained, so nothing can mismatch: the pictures are prepared as for the published weights.
        stated = preprocessing.of_architecture(name) or preprocessing.family("openai")
        return replace(source, label=f"{name} (random weights)", stated=stated)
    if pretrained is None:
        raise CheckpointError(f"{name}: no weights are named", fix=f"{published.tags_hint(name)}; or --random-weights")
    source = replace(source, label=f"{name} ({pretrained})")
    if open_clip.get_pretrained_cfg(name, pretrained):
        return _from_tag(source, pretrained, hub)
    return _from_file(source, pretrained)


def _from_tag(source: Source, tag: str, hub: Hub) -> Source:
    config = open_clip.get_pretrained_cfg(source.name, tag)
    repo, _, filename = config["hf_hub"].rpartition("/")
    published.check_tag_activation(source.name, tag, repo)
    names, fix = [_SAFE, _PICKLE], _into_folder(Repository(hub, repo, tag))
    if filename:
        names = [str(Path(filename).with_suffix(".safetensors")), filename]
        fix = f"download {filename} from https://huggingface.co/{repo} and give it: --pretrained FILE"
    place = Repository(hub, repo, source.label)
    weights = _first_of(place, names, fix)
    stated = {key: config[key] for key in ("mean", "std", "interpolation", "resize_mode")}
    return replace(source, weights=weights, stated=stated, licence=licence(place))


def _from_file(source: Source, pretrained: str) -> Source:
    """Weights in a file of their own: nothing states their preprocessing, and only OpenAI's tell their activation."""
    path = Path(pretrained).expanduser()
    if path.is_dir():
        foreign.check_adapter(path)
        foreign.check_parts(path)
        raise CheckpointError(
            f"--pretrained {pretrained} is a folder", fix=f"name it as the model: local-dir:{pretrained}"
        )
    if not path.is_file():
        if len(path.parts) > 1 or is_weights_name(path.name):
            raise CheckpointError(f"weights file {pretrained} does not exist", fix="check the path")
        raise published.unknown_tag(source.name, pretrained)
    published.check_file_activation(source.name, path.name)
    return replace(source, weights=path, stated=preprocessing.of_architecture(source.name))


def from_place(place: Place, *, random_weights: bool) -> Source:
    """The open_clip checkpoint in a folder or repository; raises CheckpointError where it is not one, or not whole."""
    fix = _into_folder(place) if isinstance(place, Repository) else f"put {CONFIG} beside the weights"
    config = place.get(CONFIG)
    if config is None:
        raise CheckpointError(f"{place.label} has no {CONFIG}, so it is not in open_clip's format", fix=fix)
    source = _from_config(config, name=place.name, label=place.label)
    if isinstance(place, Repository):
        place = place.pinned(config) if place.revision else place
        source = replace(source, tokenizer=_tokenizer(place, config, source.tokenizer))
    if random_weights:
        return replace(source, label=f"{place.label} (random weights)")
    if isinstance(place, Repository):
        return replace(source, weights=_first_of(place, [_SAFE, _PICKLE], fix), licence=licence(place))
    return replace(source, weights=find_weights(config.parent, _PREFERRED), licence=licence(place))


def _from_config(path: Path, *, name: str, label: str) -> Source:
    content = _read_config(path)
    model = FOLDER + str(path.parent)
    stated = preprocessing.of_config(content.get("preprocess_cfg"), label=label)
    return Source(name, label, model, model, bool(content["model_cfg"].get("quick_gelu", False)), stated)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", fix="download or write it again") from error
    config = content.get("model_cfg") if isinstance(content, dict) else None
    needed = ("embed_dim", "vision_cfg", "text_cfg")
    if not isinstance(config, Mapping) or not all(key in config for key in needed):
        raise CheckpointError(
            f"{path} does not describe a model: expected model_cfg with {', '.join(needed)}",
            fix="write it as open_clip does, with model_cfg and preprocess_cfg",
        )
    return dict(content)


def _tokenizer(place: Repository, config: Path, otherwise: str) -> str:
    """What `open_clip.get_tokenizer` builds the tokenizer of a repository from."""
    named = _read_config(config)["model_cfg"]["text_cfg"].get("hf_tokenizer_name")
    if not named:
        return otherwise  # CLIP's own, which open_clip brings
    if place.revision is None:
        return HUB + place.name
    if named != place.name:
        raise CheckpointError(
            f"{place.label}: the tokenizer is of another repository, {named}, of which no revision is named",
            fix=f"drop @{place.revision}, or {place.copy(CONFIG, _SAFE)}, with the tokenizer's files of {named}",
        )
    for name in _TOKENIZER:
        place.get(name)
    return otherwise  # the folder in the cache, which now holds the tokenizer's files of that revision


def _into_folder(place: Repository) -> str:
    return place.copy(f"{CONFIG} and {_SAFE} (or {_PICKLE})", "and the tokenizer's files where it has them")


def _first_of(place: Repository, names: list[str], fix: str) -> Path:
    """The first of `names` that a repository has, or without network the first that the cache holds."""
    trouble: CheckpointError | None = None
    for name in names:
        try:
            path = place.hub.fetch(place.name, name, revision=place.revision, fix=fix)
        except CheckpointError as error:
            trouble = trouble or error
            continue
        if path is not None:
            return path
    raise trouble or CheckpointError(f"{place.name} has no weights file {' or '.join(names)}", fix=fix)
