"""Checkpoints in the layout of Hugging Face transformers: the files that one needs, all on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clipdeploy.errors import CheckpointError
from clipdeploy.export.sources.place import Place, Repository, licence
from clipdeploy.export.sources.source import TransformersSource
from clipdeploy.export.weights import read
from clipdeploy.export.weights.files import INDEX, read_index

CONFIG = "config.json"
_PICTURES = ("preprocessor_config.json", "processor_config.json")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
# What tokenizer.json replaces.
_VOCABULARY = (
    *("vocab.json", "merges.txt", "vocab.txt", "added_tokens.json"),
    *("spiece.model", "sentencepiece.bpe.model", "tokenizer.model"),
)
_UNUSABLE = ("adapter_config.json", "flax_model.msgpack", "tf_model.h5")


def from_place(place: Place, text: Place | None, *, random_weights: bool) -> TransformersSource:
    """The transformers checkpoint in a folder or repository.

    Args:
        place: where the whole model is, or its image encoder.
        text: where its text encoder is, when that stands apart.
        random_weights: leave the weights where they are.

    Raises:
        CheckpointError: it is not in the layout of transformers, or a file cannot be had.
    """
    folder = _collect(place, random_weights)
    return TransformersSource(
        name=place.name,
        label=f"{place.label} (random weights)" if random_weights else place.label,
        folder=folder,
        text_folder=None if text is None else _collect(text, random_weights),
        random_weights=random_weights,
        licence=None if random_weights else licence(place),
    )


def read_config(place: Place) -> tuple[Path, dict[str, Any]] | None:
    """config.json of a place and its content, None when there is none; raises CheckpointError when it is damaged."""
    path = place.get(CONFIG)
    if path is None:
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", fix="download or copy it again") from error
    return path, content if isinstance(content, dict) else {}


def _collect(place: Place, random_weights: bool) -> Path:
    """The folder of this machine with all files of `place` that are needed."""
    found = read_config(place)
    if found is None:
        raise CheckpointError(
            f"{place.label} has no {CONFIG}, so it is not in the layout of transformers",
            fix="name the folder or repository that save_pretrained wrote",
        )
    path, config = found
    if not isinstance(config.get("model_type"), str) and not config.get("architectures"):
        raise CheckpointError(
            f"{CONFIG} of {place.label} names no model_type, so it is not of transformers",
            fix="name the folder or repository that save_pretrained wrote, or use the open_clip version of the model",
        )
    if config.get("quantization_config"):
        raise CheckpointError(
            f"{place.label} holds quantised weights, as its {CONFIG} says, whose exact values are lost",
            fix="give the checkpoint they were made from, in float32, float16 or bfloat16, and quantise after export",
        )
    if isinstance(place, Repository):
        _fetch(place.pinned(path), random_weights)
    return path.parent


def _fetch(place: Repository, random_weights: bool) -> None:
    """Bring the files of a repository, at the commit its config.json is of, into the cache."""
    everything = (*_PICTURES, *_TOKENIZER, *((read.SAFE,) if not random_weights else ()))
    fix = place.copy(CONFIG, *everything, f"and {', '.join(_VOCABULARY)} where it has them")

    def get(name: str) -> Path | None:
        return place.hub.fetch(place.name, place.inside + name, revision=place.revision, fix=fix)

    has = {name: get(name) is not None for name in (*_PICTURES, *_TOKENIZER)}
    for name in _VOCABULARY:
        try:
            get(name)
        except CheckpointError:
            if not has["tokenizer.json"]:
                raise
    if not random_weights:
        _fetch_weights(place, get, fix)


def _fetch_weights(place: Repository, get: Any, fix: str) -> None:
    trouble: CheckpointError | None = None
    for name in read.TRANSFORMERS:
        try:
            path = get(name)
            if path is None:
                continue
            if path.name.endswith(INDEX):
                for shard in sorted(set(read_index(path).values())):
                    if get(shard) is None:
                        raise CheckpointError(f"{place.label} has no {shard}, which {name} names", fix=fix)
            return
        except CheckpointError as error:
            trouble = trouble or error
    if trouble is not None:
        raise trouble
    others = [name for name in _UNUSABLE if get(name) is not None]
    raise CheckpointError(
        f"{place.label} has no weights that PyTorch reads ({' or '.join((read.SAFE, read.PICKLE))})"
        + (f", but {', '.join(others)}" if others else ""),
        fix="merge the adapter into its base model, or save the model for PyTorch, with save_pretrained(FOLDER), and "
        "name that folder",
    )
