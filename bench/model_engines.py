"""Which families TensorRT for RTX takes: both encoders of a bundle as float32 engines, by the command itself.

It builds without a GPU, so this says that a graph is taken and how long that takes, not how fast the engine is.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CAPABILITY = "8.9"


def can_build() -> bool:
    """Whether TensorRT for RTX is installed here."""
    return importlib.util.find_spec("tensorrt_rtx") is not None


def build(bundle: Path) -> dict[str, Any]:
    """What became of each encoder: `{"version", "compute_capability", "towers": {tower: ...}}`.

    A tower is `{"seconds", "size_bytes", "layers", "attention_blocks", "attention_fused"}`, or `{"error"}`.
    """
    towers: dict[str, Any] = {}
    version = None
    for tower in ("image", "text"):
        document = _command(bundle, tower)
        if "error" in document:
            towers[tower] = {"error": document["error"]["message"]}
            continue
        (engine,) = document["engines"]
        version = document["version"]
        towers[tower] = {
            "seconds": round(engine["build_seconds"], 1),
            "size_bytes": engine["size_bytes"],
            "layers": engine["layers"]["count"],
            "attention_blocks": engine["attention_blocks"],
            "attention_fused": engine["attention_fused"],
        }
    return {"version": version, "compute_capability": CAPABILITY, "towers": towers}


def cell(row: dict[str, Any]) -> str:
    """The column of a row, such as `4.1 + 2.9 s, 354 + 254 MB`; `-` where it was not tried."""
    told = row.get("tensorrt_rtx")
    if not told:
        return "-"
    towers = [told["towers"][tower] for tower in ("image", "text")]
    if all("error" in tower for tower in towers):
        return "not taken"
    seconds = " + ".join("not taken" if "error" in tower else f"{tower['seconds']:.1f}" for tower in towers)
    sizes = " + ".join("-" if "error" in tower else f"{tower['size_bytes'] / 1e6:.0f}" for tower in towers)
    return f"{seconds} s, {sizes} MB"


def _command(bundle: Path, tower: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "clipdeploy", "build-engine", str(bundle), "--tower", tower, "--json"]
    command += ["--backend", "tensorrt-rtx", "--compute-capability", CAPABILITY, "--batch", "1,8,32"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if not done.stdout:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
