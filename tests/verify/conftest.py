"""A bundle with golden samples, and both references to it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from clipdeploy.bundle import Bundle
from clipdeploy.verify import CheckpointReference, GoldenReference, read_golden, write_golden
from tests.verify.fakes import FakeCheckpoint, empty_bundle


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with golden samples, made once."""
    bundle = empty_bundle(tmp_path_factory.mktemp("verify") / "fake")
    write_golden(as_any(FakeCheckpoint()), bundle)
    return bundle.folder


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Bundle:
    """A copy of it that a test may harm."""
    shutil.copytree(made, tmp_path / "fake")
    return Bundle.open(tmp_path / "fake")


@pytest.fixture
def golden(bundle: Bundle) -> GoldenReference:
    return GoldenReference(bundle)


@pytest.fixture
def pytorch(bundle: Bundle) -> CheckpointReference:
    samples = read_golden(bundle)
    return CheckpointReference(as_any(FakeCheckpoint()), samples.pictures, samples.texts)


def as_any(fake: object) -> Any:
    return fake
