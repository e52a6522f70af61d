"""Tiny bundles to measure, and a request that takes a second or two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clipdeploy.benchmark.records import BenchRequest


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx", reason="the tiny bundles are written with onnx")
    pytest.importorskip("onnxruntime", reason="needs an engine: pip install 'clipdeploy[cpu]'")
    from clipdeploy.spec import Precision
    from tests.bundles import make_bundle

    folder = tmp_path_factory.mktemp("bench") / "tiny"
    return make_bundle(folder, precisions=(Precision.FP32, Precision.FP16, Precision.BF16))


@pytest.fixture(scope="session", autouse=True)
def small_picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `quick` measures with."""
    path = tmp_path_factory.mktemp("pictures") / "small.png"
    Image.new("RGB", (60, 50), "teal").save(path)
    PICTURES[:] = [path]
    return path


PICTURES: list[Path] = []


def quick(bundle: Path, **changes: Any) -> BenchRequest:
    """ONNX Runtime in fp32, in two rounds of one call or so, with one small picture."""
    asked: dict[str, Any] = {
        "backends": ("onnxruntime",),
        "precisions": ("fp32",),
        "batches": (1, 2),
        "rounds": 2,
        "seconds": 0.005,
        "cold_starts": 1,
        "pictures": tuple(PICTURES),
    }
    return BenchRequest(bundle, **{**asked, **changes})
