"""A tiny bundle, a few pictures, and a way to run the command line in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from clipdeploy.cli.root import root
from tests.bundles import make_bundle

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("cli") / "tiny")


@pytest.fixture
def photos_folder(tmp_path: Path) -> Path:
    """Five pictures, two of them in a folder further down."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    for name in ("a.png", "b.jpg", "c.png", "deep/d.png", "deep/e.jpg"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A JPEG that ends in the middle."""
    rng = np.random.default_rng(0)
    path = tmp_path / "broken.jpg"
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:400])
    return path


@pytest.fixture
def run() -> Run:
    """Run `clipdeploy ARGS`; whatever happens, no traceback may show."""

    def call(*args: object, **kwargs: Any) -> Result:
        result = CliRunner(**kwargs).invoke(root, [str(arg) for arg in args], prog_name="clipdeploy")
        assert "Traceback" not in result.output
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return call


def document(result: Result) -> Any:
    """The one JSON document on stdout."""
    return json.loads(result.stdout)


def failure(result: Result, code: int = 1) -> str:
    """What stderr says when the verb failed: `error: ...`, and the fix below it."""
    assert result.exit_code == code, result.output
    assert result.stderr.count("error:") == 1
    assert result.stdout == ""
    return result.stderr
