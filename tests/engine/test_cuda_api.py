"""Every call of the CUDA runtime, against cuda-python for CUDA 12.6 (JetPack 6) and 13 (JetPack 7)."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [*sorted((ROOT / "clipdeploy/runtime/trt").glob("*.py")), ROOT / "tests/gpu/conftest.py"]
RECORDS = sorted((Path(__file__).parent / "api").glob("cuda-*.json"))


def problems(text: str, record: dict[str, Any]) -> Iterator[str]:
    """What the source asks of `self._api` or `api` that the record does not have."""
    tree = ast.parse(text)
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not node.attr.startswith("cuda"):
            continue
        owner = ast.unparse(node.value).rpartition(".")[2]
        if owner in record["enums"]:
            if node.attr not in record["enums"][owner]:
                yield f"{owner} has no {node.attr}"
        elif owner in ("api", "_api"):
            yield from _of_module(node.attr, calls.get(id(node)), record)


def _of_module(name: str, call: ast.Call | None, record: dict[str, Any]) -> Iterator[str]:
    if name in record["enums"] or name in record["constants"]:
        return
    if name not in record["functions"]:
        yield f"there is no {name}"
    elif call is not None and len(call.args) + len(call.keywords) != len(record["functions"][name].split()):
        yield f"{name} takes {record['functions'][name] or 'nothing'}, given {len(call.args)}"


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_every_call_exists(path: Path) -> None:
    record = json.loads(path.read_text())
    found = [f"{source.name}: {told}" for source in SOURCES for told in problems(source.read_text(), record)]
    assert found == []


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_wrong_call_is_found(path: Path) -> None:
    text = "self._api.cudaMalloc(1, 2)\napi.cudaMallocNow(1)\napi.cudaError_t.cudaErrorOfMine\napi.cudaFree(3)\n"
    assert sorted(problems(text, json.loads(path.read_text()))) == [
        "cudaError_t has no cudaErrorOfMine",
        "cudaMalloc takes size, given 2",
        "there is no cudaMallocNow",
    ]


def test_the_imagined_cuda_has_nothing_of_its_own() -> None:
    from tests.fake_gpu import FakeCuda, PointerAttributes

    for path in RECORDS:
        record = json.loads(path.read_text())
        mine = {name for name in vars(FakeCuda) if name.startswith("cuda") and callable(getattr(FakeCuda, name))}
        mine -= set(record["enums"])
        assert mine <= set(record["functions"])
        for name in record["enums"]:
            assert {member.name for member in getattr(FakeCuda, name)} <= set(record["enums"][name])
        assert {f.name for f in fields(PointerAttributes)} == set(record["fields"]["cudaPointerAttributes"])
        for name in mine:
            code = getattr(FakeCuda, name).__code__
            assert code.co_argcount - 1 == len(record["functions"][name].split()), name
