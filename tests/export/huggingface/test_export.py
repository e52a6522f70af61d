"""A transformers folder to a verified bundle, and the leanness of its graphs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

for library in ("torch", "open_clip", "transformers", "onnx", "onnxsim", "onnxruntime", "sentencepiece"):
    pytest.importorskip(library)

import clipdeploy  # noqa: E402
from clipdeploy.export.tower import ExportOptions, export_tower  # noqa: E402
from clipdeploy.pipeline import ExportRequest, VerifyRequest, export_bundle, verify_bundle  # noqa: E402
from clipdeploy.request import CheckpointRequest  # noqa: E402
from clipdeploy.spec import Tower  # noqa: E402
from tests import checkpoints, hf_checkpoints  # noqa: E402


@pytest.mark.parametrize("family", ["clip", "siglip", "chinese_clip"])
def test_a_folder_becomes_a_verified_bundle(family: str, folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    request = CheckpointRequest(str(folder_of(family)))
    outcome = export_bundle(ExportRequest(request, tmp_path / "bundle"))
    assert outcome.report is not None
    assert outcome.report.passed, outcome.report.summary
    assert verify_bundle(VerifyRequest(outcome.bundle)).passed
    with clipdeploy.load(outcome.bundle) as clip:
        picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        answer = clip.classify(picture, ["cat", "dog"])
    assert answer.label in ("cat", "dog")


def test_graphs_are_as_lean_as_open_clips(tmp_path: Path) -> None:
    config = checkpoints.model_config(quick_gelu=True, text_cfg={"pool_type": "eos", "eos_id": 49407})
    ours = checkpoints.load(checkpoints.write_checkpoint(tmp_path / "open_clip", config))
    theirs = checkpoints.load(hf_checkpoints.write(tmp_path / "transformers"))
    for tower in Tower:
        counts = []
        for checkpoint in (ours, theirs):
            folder = tmp_path / f"{tower.value}{len(counts)}"
            folder.mkdir()
            result = export_tower(checkpoint, tower, folder, ExportOptions(simplify=False))
            counts.append(result.steps[-1].nodes)
            assert result.steps[0].max_abs < 1e-5
        assert counts[1] == counts[0]
