"""Preflight stands before the export, and its page tells of every check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx", reason="exporting needs the extra: pip install 'clipdeploy[export]'")
pytest.importorskip("open_clip", reason="exporting needs the extra: pip install 'clipdeploy[export]'")

from clipdeploy.errors import CheckpointError
from clipdeploy.export import tower
from clipdeploy.export.preflight.run import CHECKS
from clipdeploy.pipeline import ExportRequest, export_bundle
from clipdeploy.request import CheckpointRequest
from tests import checkpoints


def test_what_is_bad_ends_the_export_before_any_tracing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def trace(*args: Any) -> None:
        raise AssertionError("traced")

    monkeypatch.setattr(tower, "export_tower", trace)
    turned = {**checkpoints.PREPROCESS, "mean": checkpoints.PREPROCESS["mean"][::-1]}
    folder = checkpoints.write_checkpoint(tmp_path / "turned", preprocess=turned)
    out = tmp_path / "out"
    with pytest.raises(CheckpointError, match=r"channel statistics: .* in the order BGR") as caught:
        export_bundle(ExportRequest(CheckpointRequest(f"local-dir:{folder}"), output=out))
    assert "open_clip_config.json" in str(caught.value.fix)
    assert not out.exists()
    straight = checkpoints.write_checkpoint(tmp_path / "straight")
    with pytest.raises(AssertionError, match="traced"):
        export_bundle(ExportRequest(CheckpointRequest(f"local-dir:{straight}"), output=out))


def test_the_page_has_a_row_for_every_check() -> None:
    page = (Path(__file__).parents[3] / "docs" / "preflight.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    assert rows[1:] == list(CHECKS)
