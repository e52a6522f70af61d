"""Results in the form of CLIP_benchmark 1.6: `dataset`, `model`, `pretrained`, `task`, `metrics`, `language`.

A folder gets a file for each pair, which `clip_benchmark build FOLDER` makes one CSV of; a `.json` file is a list of
all. PyTorch's line names the checkpoint as CLIP_benchmark does; the others add backend and precision to `pretrained`,
so that lines stay apart.
"""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

from clipdeploy.errors import OutputError
from clipdeploy.evaluate.encode import PYTORCH
from clipdeploy.evaluate.records import EvaluateRequest, EvaluateResult, PairFigures
from clipdeploy.spec import to_dict
from clipdeploy.writing import write_text

LANGUAGE = "en"


def check_outputs(request: EvaluateRequest) -> None:
    """Raise OutputError where an output cannot be written, before any work is done."""
    if request.html is not None:
        _check_file(request.html, "--html")
    if request.output is None:
        return
    if _is_file(request.output):
        _check_file(request.output, "--output")
        return
    if request.output.exists() and not request.output.is_dir():
        raise OutputError(f"{request.output} is a file, and no .json", fix="name a .json file, or a folder")
    there = next(parent for parent in (request.output, *request.output.absolute().parents) if parent.exists())
    _check_writable(there, request.output)


def write_results(target: Path, result: EvaluateResult) -> tuple[Path, ...]:
    """Write the JSON: one file, or a folder of one for each pair; each whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    rows = benchmark_rows(result)
    try:
        if _is_file(target):
            write_text(target, _json(rows))
            return (target,)
        target.mkdir(parents=True, exist_ok=True)
        paths = tuple(target / file_name(row) for row in rows)
        for path, row in zip(paths, rows, strict=True):
            write_text(path, _json(row))
        return paths
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error}", fix="free space or choose another place") from error


def write_page(target: Path, text: str) -> None:
    """Write the page, whole or not at all; raises OutputError when it cannot be written."""
    try:
        write_text(target, text)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error}", fix="free space or choose another place") from error


def benchmark_rows(result: EvaluateResult) -> list[dict[str, Any]]:
    """An object for each pair, as CLIP_benchmark writes it, and behind its keys our own."""
    return [_row(result, pair) for pair in result.pairs]


def file_name(row: dict[str, Any]) -> str:
    """`{dataset}_{pretrained}_{model}_{language}_{task}.json`, as CLIP_benchmark names its files."""
    parts = (row["dataset"], row["pretrained"], row["model"], row["language"], row["task"])
    return "_".join(re.sub(r"[^\w.+-]+", "_", str(part)).strip("_.") for part in parts if part) + ".json"


def _row(result: EvaluateResult, pair: PairFigures) -> dict[str, Any]:
    own = to_dict(pair)
    drops = own.pop("drops")
    for key in ("metrics", "backend", "precision"):
        own.pop(key)
    suffix = "" if pair.backend == PYTORCH else f" {pair.name}"
    row: dict[str, Any] = _plain(
        {
            "dataset": result.dataset,
            "model": result.model,
            "pretrained": f"{result.pretrained}{suffix}".strip(),
            "task": result.task,
            "metrics": dict(pair.metrics),
            "language": LANGUAGE,
            "backend": pair.backend,
            "precision": pair.precision,
            "checkpoint": result.pretrained,
            "bundle": result.bundle,
            "layout": result.layout,
            "pictures": result.count,
            "classnames": list(result.classes),
            "templates": list(result.templates),
            "class_counts": list(result.class_counts),
            "captions": result.captions,
            **own,
            "drops": drops,
            "skipped": result.skipped,
            "absent": result.absent,
            "misses": [miss for miss in result.misses if miss.startswith(f"{pair.name}:")],
            "notes": list(result.notes),
            "environment": result.environment,
            "created": result.created,
        }
    )
    return row


def _plain(value: Any) -> Any:
    """Numbers that JSON lacks (NaN, infinity) as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _is_file(target: Path) -> bool:
    return target.suffix.lower() == ".json" and not target.is_dir()


def _check_file(path: Path, option: str) -> None:
    if path.is_dir():
        raise OutputError(f"{path} is a folder", fix=f"name a file with {option}")
    if not path.parent.is_dir():
        raise OutputError(f"folder {path.parent} does not exist", fix=f"mkdir -p {path.parent}")
    _check_writable(path.parent, path)


def _check_writable(folder: Path, target: Path) -> None:
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{target} cannot be written: {folder} is not writable", fix="choose another place")
