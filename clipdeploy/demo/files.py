"""The folder of a demo model, in the layout open_clip calls `local-dir:`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clipdeploy.bundle import write_text

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
TRAINING = "training.json"
SCORE = "score.json"
CARD = "README.md"


def write_json(path: Path, value: Any) -> None:
    """Write a value, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
