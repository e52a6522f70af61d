"""An engine as a build leaves it in a bundle: a file of bytes that are none, and a true record beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipdeploy.engine.records import EngineLayer, EngineRecord, EngineTensor, LayerReport
from clipdeploy.engine.store import record_text
from clipdeploy.engine_key import ENGINE_FILE, RECORD_FILE, EngineKey, Profile
from clipdeploy.findings import Finding
from clipdeploy.spec import Precision, Tower

SIZE = 1000


def engine_key(**changes: Any) -> EngineKey:
    """The key of a float16 image tower's engine for two compute capabilities; `changes` replace fields of it."""
    fields: dict[str, Any] = {
        "backend": "tensorrt-rtx",
        "version": "1.7.1.42",
        "platform": "linux-x86_64",
        "gpu": None,
        "compute_capabilities": ("8.6", "8.9"),
        "jetpack": None,
        "tower": Tower.IMAGE,
        "precision": Precision.FP16,
        "graph_sha256": "ab" * 32,
        "profiles": (Profile(1, 8, 32),),
    }
    return EngineKey(**{**fields, **changes})


def layer_report(count: int = 3) -> LayerReport:
    """A fused attention and `count` products."""
    half = (EngineTensor("x", "Half"),)
    products = [EngineLayer(f"node_{i}", "gemm", half, half, (f"node_{i}",), half) for i in range(count)]
    fused = EngineLayer("_gemm_mha_v2", "kgen", half * 3, (EngineTensor("y", "Int8"),))
    return LayerReport("build log", (*products, fused), 2, 1)


def write_engine(folder: Path, **changes: Any) -> Path:
    """Write an engine's folder; `changes` replace fields of its record."""
    fields: dict[str, Any] = {
        "key": engine_key(),
        "graph": "visual_fp16.onnx",
        "size_bytes": SIZE,
        "build_seconds": 2.34,
        "created": "2026-11-22T01:00:00+00:00",
        "tools": {"clipdeploy": "0.1.0", "tensorrt-rtx": "1.7.1.42"},
        "report": layer_report(),
        "findings": (
            Finding("size", "good", "3.9 MB for weights of 2.0 MB"),
            Finding("attention", "note", "1 of 2", "look"),
        ),
    }
    folder.mkdir(parents=True)
    (folder / ENGINE_FILE).write_bytes(bytes(SIZE))
    (folder / RECORD_FILE).write_text(record_text(EngineRecord(**{**fields, **changes})), encoding="utf-8")
    return folder
