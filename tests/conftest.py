"""Fixtures that several rooms share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What is remembered of this machine stays out of the user's cache, and goes with the tests."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("CLIPDEPLOY_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def photos() -> list[Path]:
    """Real photographs, where there are some: `CLIPDEPLOY_IMAGES`, or `shared/images` beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "images"
    folder = Path(os.environ.get("CLIPDEPLOY_IMAGES", beside))
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
    if not found:
        pytest.skip(f"no photographs in {folder}: set CLIPDEPLOY_IMAGES to a folder of pictures")
    return found


@pytest.fixture(scope="session")
def demo_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped CLIP, exported and verified once for all tests."""
    pytest.importorskip("torch", reason="exporting needs the extra: pip install 'clipdeploy[export]'")
    from clipdeploy.demo import model_path
    from clipdeploy.pipeline import ExportRequest, export_bundle
    from clipdeploy.request import CheckpointRequest

    folder = tmp_path_factory.mktemp("demo") / "bundle"
    export_bundle(ExportRequest(CheckpointRequest(f"local-dir:{model_path()}"), output=folder))
    return folder
