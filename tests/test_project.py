"""What pyproject.toml promises."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx", "open-clip-torch"}


def requirements() -> dict[str, set[str]]:
    """Names of the distributions that the base (`""`) and each extra ask for."""
    if sys.version_info < (3, 11):
        pytest.skip("tomllib comes with Python 3.11")
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = {"": project["dependencies"], **project["optional-dependencies"]}
    return {extra: {re.split(r"[^\w.-]", line)[0] for line in lines} for extra, lines in lists.items()}


def test_the_base_forces_no_engine_and_no_pytorch() -> None:
    assert not requirements()[""] & HEAVY


def test_only_one_extra_brings_each_onnxruntime() -> None:
    """The two share their files, and the one installed last breaks the other."""
    asked = requirements()
    for engine, extra in (("onnxruntime", "cpu"), ("onnxruntime-gpu", "gpu")):
        assert {name for name, names in asked.items() if engine in names} == {extra}


def test_every_extra_that_an_error_names_exists() -> None:
    named = set()
    for path in (ROOT / "clipdeploy").rglob("*.py"):
        for extras in re.findall(r'clipdeploy\[([\w,-]+)\]|extra="([\w,-]+)"', path.read_text(encoding="utf-8")):
            named |= set("".join(extras).split(","))
    assert {"export", "cpu", "parquet", "tokenizers"} <= named <= set(requirements())
