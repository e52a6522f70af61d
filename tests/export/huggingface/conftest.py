"""One folder of each family for all tests; a test that changes a folder makes its own."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Family to its checkpoint's folder, not to be changed."""
    from tests import hf_checkpoints

    @lru_cache
    def make(family: str) -> Path:
        return hf_checkpoints.write(tmp_path_factory.mktemp("transformers") / family, family)

    return make


@pytest.fixture(scope="session")
def checkpoint_of(folder_of: Callable[[str], Path]) -> Callable[[str], Any]:
    """Family to its loaded checkpoint."""
    from tests.export.huggingface.loading import load

    @lru_cache
    def read(family: str) -> Any:
        return load(folder_of(family))

    return read
