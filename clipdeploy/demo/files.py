"""The folder of a demo model, in the layout open_clip calls `local-dir:`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
TRAINING = "training.json"
SCORE = "score.json"
CARD = "README.md"


def write_json(path: Path, value: Any) -> None:
    """Writes beside and renames, so that a reader never meets half a file."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes beside and renames."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def read_json(path: Path) -> Any:
    """The value in a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
