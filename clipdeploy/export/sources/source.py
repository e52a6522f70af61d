"""A resolved checkpoint: which library builds it, from which files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class OpenClipSource:
    """A checkpoint that open_clip builds.

    Attributes:
        name: architecture, repository or folder name, for people.
        label: as the user gave it, weights included.
        model: what `open_clip.create_model` builds the architecture from, without asking the network.
        tokenizer: what `open_clip.get_tokenizer` builds the tokenizer from.
        quick_gelu: the configuration's activation.
        stated: the preprocessing that the checkpoint's origin states, None when it states none.
        weights: the file, None for random weights.
        licence: from the model card, None when there is no card or it states none.
        config: `model_cfg`, where the weights themselves are the only ones that state it; then `model` and
            `tokenizer` are empty until `as_folder` gives them one.
    """

    name: str
    label: str
    model: str
    tokenizer: str
    quick_gelu: bool
    stated: dict[str, Any] | None
    weights: Path | None = None
    licence: str | None = None
    config: dict[str, Any] | None = None


@dataclass(frozen=True)
class TransformersSource:
    """A checkpoint in the layout of Hugging Face transformers, all of whose files are on this machine.

    Attributes:
        name: repository or folder name, for people.
        label: as the user gave it.
        folder: holds config.json, the weights and, where the checkpoint has them, the files of its picture
            processor and its tokenizer.
        text_folder: the same of the text encoder, where it stands apart; else None.
        random_weights: take seeded values and leave the weights files alone.
        licence: from the model card, None when there is no card or it states none.
    """

    name: str
    label: str
    folder: Path
    text_folder: Path | None = None
    random_weights: bool = False
    licence: str | None = None


Source = OpenClipSource | TransformersSource
