"""Loads a transformers folder as `load_checkpoint` does once it knows what the folder is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipdeploy.export.checkpoint import Checkpoint
from clipdeploy.export.huggingface.load import load_transformers
from clipdeploy.export.sources.hub import Hub
from clipdeploy.export.sources.source import TransformersSource
from clipdeploy.progress import silent
from clipdeploy.request import CheckpointRequest


def load(folder: Path, text: Path | None = None, *, random_weights: bool = False, **stated: Any) -> Checkpoint:
    """`load_transformers` with the fields of a CheckpointRequest as keywords."""
    source = TransformersSource(folder.name, str(folder), folder, text, random_weights)
    return load_transformers(source, CheckpointRequest(str(folder), **stated), Hub(), silent)
