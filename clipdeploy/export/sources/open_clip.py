"""Where a checkpoint comes from: what the user named, resolved to a configuration and a weights file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip

from clipdeploy.errors import CheckpointError
from clipdeploy.export.openclip import preprocessing
from clipdeploy.export.sources import published
from clipdeploy.export.sources.hub import CONFIG, Hub
from clipdeploy.export.sources.source import OpenClipSource as Source
from clipdeploy.export.weights.fit import SUFFIXES, Weights

_HUB, _FOLDER = "hf-hub:", "local-dir:"
_SAFE, _PICKLE = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
# open_clip's own order
_PREFERRED = (
    _SAFE,
    "open_clip_pytorch_model.safetensors",
    _PICKLE,
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
_README = "README.md"


def resolve(model: str, pretrained: str | None, *, random_weights: bool, hub: Hub) -> Source:
    """Find the configuration and the weights that `model` and `pretrained` name.

    Raises:
        CheckpointError: nothing of that name, an ambiguity, a mismatch of activations, or no network where needed.
    """
    if pretrained is not None and random_weights:
        raise CheckpointError(f"{model}: both weights ({pretrained}) and random weights are asked for", fix="drop one")
    if not model.startswith((_HUB, _FOLDER)) and Path(model).is_dir():
        model = _FOLDER + model
    if model.startswith((_HUB, _FOLDER)) and pretrained is not None:
        raise CheckpointError(
            f"{model} brings its own weights, and --pretrained {pretrained} names others",
            fix="drop --pretrained, or name an architecture instead",
        )
    if model.startswith(_HUB):
        return _from_hub(model, random_weights, hub)
    if model.startswith(_FOLDER):
        return _from_folder(model, random_weights)
    return _from_architecture(model, pretrained, random_weights, hub)


def check_origin(source: Source, weights: Weights) -> None:
    """Raise CheckpointError when the weights themselves tell that the configuration's activation is wrong."""
    if weights.openai and not source.quick_gelu:
        raise published.openai_mismatch(source.name, source.label)


def _from_architecture(model: str, pretrained: str | None, random_weights: bool, hub: Hub) -> Source:
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
    names, fix = [_SAFE, _PICKLE], _into_folder(repo)
    if filename:
        names = [str(Path(filename).with_suffix(".safetensors")), filename]
        fix = f"download {filename} from https://huggingface.co/{repo} and give it: --pretrained FILE"
    weights = _first_of(hub, repo, names, fix)
    stated = {key: config[key] for key in ("mean", "std", "interpolation", "resize_mode")}
    return replace(source, weights=weights, stated=stated, licence=_hub_licence(hub, repo))


def _from_file(source: Source, pretrained: str) -> Source:
    """Weights in a file of their own: nothing states their preprocessing, and only OpenAI's tell their activation."""
    path = Path(pretrained).expanduser()
    if path.is_dir():
        raise CheckpointError(
            f"--pretrained {pretrained} is a folder", fix=f"name it as the model: local-dir:{pretrained}"
        )
    if not path.is_file():
        if len(path.parts) > 1 or path.suffix.lower() in SUFFIXES:
            raise CheckpointError(f"weights file {pretrained} does not exist", fix="check the path")
        raise published.unknown_tag(source.name, pretrained)
    published.check_file_activation(source.name, path.name)
    return replace(source, weights=path, stated=preprocessing.of_architecture(source.name))


def _from_hub(model: str, random_weights: bool, hub: Hub) -> Source:
    repo = model.removeprefix(_HUB)
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise CheckpointError(f"{model!r} names no repository", fix="write hf-hub:ORGANISATION/NAME")
    fix = _into_folder(repo)
    config = hub.fetch(repo, CONFIG, fix=fix)
    if config is None:
        raise CheckpointError(
            f"{model}: the repository has no {CONFIG}, so it is not in open_clip's format",
            fix="use the open_clip version of the model, or an architecture with --pretrained TAG",
        )
    source = _from_config(config, name=repo, label=model)
    if _hub_tokenizer(config):
        source = replace(source, tokenizer=model)
    if random_weights:
        return replace(source, label=f"{model} (random weights)")
    return replace(source, weights=_first_of(hub, repo, [_SAFE, _PICKLE], fix), licence=_hub_licence(hub, repo))


def _from_folder(model: str, random_weights: bool) -> Source:
    folder = Path(model.removeprefix(_FOLDER)).expanduser()
    if not folder.is_dir():
        raise CheckpointError(f"folder {folder} does not exist", fix="check the path behind local-dir:")
    if not (folder / CONFIG).is_file():
        raise CheckpointError(
            f"folder {folder} is no open_clip checkpoint: it has no {CONFIG}",
            fix=f"put {CONFIG} beside the weights; if these are weights of a known architecture, name that instead "
            "and give the file with --pretrained FILE",
        )
    card = folder / _README
    licence = _licence(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None
    source = replace(_from_config(folder / CONFIG, name=folder.resolve().name, label=model), licence=licence)
    if random_weights:
        return replace(source, label=f"{model} (random weights)", licence=None)
    return replace(source, weights=_weights_in(folder))


def _from_config(path: Path, *, name: str, label: str) -> Source:
    content = _read_config(path)
    model = _FOLDER + str(path.parent)
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


def _hub_tokenizer(path: Path) -> bool:
    return bool(_read_config(path)["model_cfg"]["text_cfg"].get("hf_tokenizer_name"))


def _weights_in(folder: Path) -> Path:
    """The weights file of a folder: of open_clip's usual names the first, else the only one there is."""
    for name in _PREFERRED:
        if (folder / name).is_file():
            return folder / name
    found = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES and p.is_file())
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        raise CheckpointError(
            f"folder {folder} should hold one weights file, found: {names}", fix=f"name the one to use {_SAFE}"
        )
    return found[0]


def _into_folder(repo: str) -> str:
    return (
        f"download {CONFIG} and {_SAFE} (or {_PICKLE}) from https://huggingface.co/{repo} into a folder, and name it: "
        "local-dir:FOLDER"
    )


def _first_of(hub: Hub, repo: str, names: list[str], fix: str) -> Path:
    """The first of `names` that `repo` has; without network, the first that the cache holds."""
    trouble: CheckpointError | None = None
    for name in names:
        try:
            path = hub.fetch(repo, name, fix=fix)
        except CheckpointError as error:
            trouble = trouble or error
            continue
        if path is not None:
            return path
    raise trouble or CheckpointError(f"{repo} has no weights file {' or '.join(names)}", fix=fix)


def _hub_licence(hub: Hub, repo: str) -> str | None:
    try:
        card = hub.fetch(repo, _README, fix="")
    except CheckpointError:
        return None  # a card that cannot be had states no licence
    return _licence(card.read_text(encoding="utf-8", errors="replace")) if card else None


def _licence(card: str) -> str | None:
    """The licence that a model card states in its header."""
    header = re.match(r"---\s*\n(.*?)\n---", card, re.DOTALL)
    lines = header.group(1) if header else ""
    stated = dict(re.findall(r"^(license\w*):[ \t]*['\"]?([^'\"\n]+?)['\"]?[ \t]*$", lines, re.MULTILINE))
    licence = stated.get("license")
    return stated.get("license_name", licence) if licence == "other" else licence
