"""Fixtures that the tests of calibration share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def vit_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped CLIP whose image tower is a transformer, exported once for all tests."""
    pytest.importorskip("torch", reason="exporting needs the extra: pip install 'clipdeploy[export]'")
    from clipdeploy.demo import model_path
    from clipdeploy.pipeline import ExportRequest, export_bundle
    from clipdeploy.request import CheckpointRequest

    folder = tmp_path_factory.mktemp("vit") / "bundle"
    export_bundle(ExportRequest(CheckpointRequest(f"local-dir:{model_path('vit')}"), output=folder, verify=False))
    return folder
