"""Small files that stand beside graphs: JSON configurations and the model card."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from clipdeploy.errors import CheckpointError

_LICENCE = re.compile(r"^licen[cs]e:\s*([^\s#].*?)\s*$", re.MULTILINE)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, empty where there is no file; raises CheckpointError where it is broken."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", fix="copy or download the file again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected an object", fix="copy it again")
    return content


def part(content: dict[str, Any], key: str) -> dict[str, Any]:
    """An object inside an object, empty where there is none."""
    inner = content.get(key)
    return inner if isinstance(inner, dict) else {}


def first_file(folder: Path, *names: str) -> Path | None:
    """The first of `names` that is a file in `folder`."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def licence(card: Path | None) -> str | None:
    """The licence that the head of a model card states."""
    if card is None:
        return None
    try:
        text = card.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    head = text.split("\n---", 1)[0] if text.startswith("---") else ""
    found = _LICENCE.search(head)
    return found[1].strip("'\"") if found else None
