"""Every family of CLIP as it is exported, held against an Orin and against the latest versions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxsim", reason="exporting needs the extra: pip install 'clipdeploy[export]'")
pytest.importorskip("onnxruntime", reason="running graphs needs the extra: pip install 'clipdeploy[cpu]'")

from clipdeploy.engine.targets.check import before_building
from clipdeploy.engine.targets.patterns import PATTERNS
from clipdeploy.engine.targets.target import parse_target
from clipdeploy.errors import EngineError
from clipdeploy.export.tower import ExportOptions, export_tower
from clipdeploy.graphs.files import load_graph
from clipdeploy.runtime.ort import OrtSession
from clipdeploy.spec import Tower
from tests.export import tiny

CASES = [(name, Tower.IMAGE) for name in ("resnet", "siglip", "mobileclip", "coca", "eva02")]
CASES += [("siglip_text", Tower.TEXT)]
ROTARY = {"eva02"}
ONE_QUERY = {"resnet", "siglip", "eva02", "siglip_text"}
LEARNED = {"siglip", "coca"}


@pytest.mark.parametrize(("name", "tower"), CASES)
def test_a_family(name: str, tower: Tower, tmp_path: Path) -> None:
    checkpoint = tiny.checkpoint(name)
    graph = export_tower(checkpoint, tower, tmp_path, ExportOptions()).graph
    found = {pattern for pattern, find in PATTERNS.items() if find(load_graph(graph))}
    orin = parse_target("tensorrt 10.3, sm_87")
    if name in ROTARY:
        with pytest.raises(EngineError, match="rotary-vit"):
            before_building(graph, orin, tmp_path / "none")
    else:
        assert before_building(graph, orin, tmp_path / "none").graph == graph
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    prepared = before_building(graph, parse_target("tensorrt 11.4, sm_89"), scratch)
    assert prepared.rewrites == (("single_row_as_sums",) if name in ONE_QUERY else ())
    assert ("constant_query" in found) == (name in LEARNED)
    batch = tiny.samples(checkpoint.model, tower, 3).numpy()
    before, after = (OrtSession(path).run(batch) for path in (graph, prepared.graph))
    assert np.abs(after - before).max() <= 1e-5
