"""What quantising an encoder gave, for programs and for people: JSON, tables and lines of text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from clipdeploy.calibration.budget import Recipe, Trial
from clipdeploy.calibration.results import LayerRow, TowerQuantised
from clipdeploy.spec import to_dict
from clipdeploy.versions import installed

SCHEMA_VERSION = 1
_TOOLS = ("clipdeploy", "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu")

LAYER_HEAD = ("block", "layers", "sensitivity", "precision", "why")
TRIAL_HEAD = ("recipe", "layers", "size", "mean cosine", "least cosine", "top-1", "")


def record_text(result: TowerQuantised) -> str:
    """The file that the bundle keeps, as JSON."""
    return json.dumps({**record(result), "tools": installed(_TOOLS)}, indent=2, ensure_ascii=False) + "\n"


def record(result: TowerQuantised) -> dict[str, Any]:
    """The result as plain JSON types, its files by name."""
    plain = {
        "schema_version": SCHEMA_VERSION,
        "graph": result.graph.name,
        "tower": result.tower,
        "precision": result.precision,
        "target": result.target,
        "opset": result.opset,
        "recipe": _recipe(result.recipe),
        "accuracy": result.accuracy,
        "budget": result.budget,
        "measured_as": result.measured_as,
        "samples": result.samples,
        "size_before": result.size_before,
        "size_after": result.size_after,
        "seconds": round(result.seconds, 1),
        "layers": result.layers,
        "trials": [{**_trial(trial), "chosen": trial.recipe == result.recipe} for trial in result.trials],
        "float32": [{"node": node, "why": why} for node, why in result.float32],
    }
    done: dict[str, Any] = to_dict(plain)
    return done


def layer_rows(result: TowerQuantised) -> list[tuple[str, ...]]:
    """The table of layers: a row for neighbours in a block that share precision and reason."""
    rows: list[tuple[str, ...]] = []
    for (block, precision, why), group in groupby(
        result.layers, key=lambda row: (row.block, row.precision.value, row.reason)
    ):
        members = list(group)
        rows.append((block, ", ".join(_short(row) for row in members), _sensitivity(members), precision, why))
    return rows


def trial_rows(result: TowerQuantised) -> list[tuple[str, ...]]:
    """The frontier: what was tried, in order."""
    return [
        (
            str(trial.recipe),
            str(trial.layers),
            f"{trial.size_bytes / 1e6:.1f} MB",
            f"{trial.accuracy.cosine_mean:.5f}",
            f"{trial.accuracy.cosine_min:.5f}",
            f"{trial.accuracy.top1:.1%}",
            "chosen" if trial.recipe == result.recipe else "",
        )
        for trial in result.trials
    ]


def summary(result: TowerQuantised) -> list[tuple[str, str]]:
    """What came out, as (name, value)."""
    accuracy, samples = result.accuracy, result.samples
    target = f" for {result.target}" if result.target else ""
    some = "all" if samples.held_out == samples.measured else f"{samples.held_out} of them"
    held = f", {some} held out from calibration" if samples.held_out else ""
    share = result.size_after / result.size_before
    top1 = (
        f"{accuracy.top1:.1%} of {accuracy.decided} decided, of {samples.bank}" if accuracy.decided else "none decided"
    )
    return [
        ("graph", f"{result.graph.name}: {result.precision.value}{target}, opset {result.opset}"),
        ("recipe", str(result.recipe)),
        ("size", f"{result.size_before / 1e6:.1f} MB -> {result.size_after / 1e6:.1f} MB ({share:.2f}x)"),
        ("cosine to fp32", f"mean {accuracy.cosine_mean:.5f}, least {accuracy.cosine_min:.5f}"),
        ("top-1 agreement", top1),
        ("budget", f"{result.budget}: held"),
        ("measured", f"on {accuracy.samples} samples{held}; {result.measured_as}"),
        ("calibrated", f"on {samples.calibrated} of {samples.count} samples, sha256 {samples.sha256[:12]}"),
        *(("note", note) for note in samples.notes),
    ]


def _recipe(recipe: Recipe) -> dict[str, Any]:
    return {"method": recipe.method, "smooth": recipe.smooth, "kept": sorted(recipe.kept), "text": str(recipe)}


def _trial(trial: Trial) -> dict[str, Any]:
    return {
        "recipe": _recipe(trial.recipe),
        "layers": trial.layers,
        "size_bytes": trial.size_bytes,
        "accuracy": trial.accuracy,
    }


def _short(row: LayerRow) -> str:
    return row.layer.removeprefix(row.block).lstrip(".") or row.layer


def _sensitivity(rows: Sequence[LayerRow]) -> str:
    known = next((row.sensitivity for row in rows if row.sensitivity is not None), None)
    return "" if known is None else f"{known:.1e}"
