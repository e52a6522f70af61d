"""Graphs that several tests of this room share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from clipdeploy.spec import Tower

Trace = Callable[..., Path]


@pytest.fixture(scope="session")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """Trace a tiny tower, once for each (name, tower, opset)."""
    from clipdeploy.export.graph.trace import trace_tower
    from tests.export import tiny

    folder, done = tmp_path_factory.mktemp("traced"), {}

    def run(name: str, tower: Tower = Tower.IMAGE, opset: int = 19) -> Path:
        key = f"{name}_{tower.value}_{opset}"
        if key not in done:
            model = tiny.clip(name)
            done[key] = folder / f"{key}.onnx"
            trace_tower(tiny.traced(model, tower), tiny.spec(model, tower), done[key], opset=opset)
        return done[key]

    return run
