from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("onnx", reason="building engines needs the extra: pip install 'clipdeploy[quantize]'")

from clipdeploy.engine.builder.capabilities import choose_capabilities, known_to, parse_capabilities, parse_capability
from clipdeploy.engine.builder.outline import Outline
from clipdeploy.engine.product import Product
from clipdeploy.engine.targets.target import parse_target
from clipdeploy.errors import EngineError, InputError
from tests.engine.api import load

FULL = Product("tensorrt", SimpleNamespace(), "10.3.0")


def rtx() -> Product:
    """TensorRT for RTX with the capabilities of its recorded version."""
    members: dict[str, Any] = load("tensorrt_rtx-1.7.1").kinds["ComputeCapability"].members
    return Product("tensorrt-rtx", SimpleNamespace(ComputeCapability=SimpleNamespace(__members__=members)), "1.7.1")


def outline(*dtypes: str) -> Outline:
    return Outline(Path("visual.onnx"), 19, (), (), frozenset(dtypes), 1000)


@pytest.mark.parametrize(
    ("text", "capability"),
    [("8.6", "8.6"), ("86", "8.6"), ("sm86", "8.6"), ("SM_89", "8.9"), ("sm120", "12.0"), ("12.1", "12.1")],
)
def test_the_ways_to_write_one(text: str, capability: str) -> None:
    assert parse_capability(text) == capability


@pytest.mark.parametrize("text", ["", "8", "sm_90a", "ampere", "8.66", "-8.6"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(InputError, match=r"write it as 8\.6 or sm86"):
        parse_capability(text)


def test_several_are_ascending_and_each_once() -> None:
    assert parse_capabilities(["12.0,8.6", "sm89", "86"]) == ("8.6", "8.9", "12.0")


def test_what_rtx_knows() -> None:
    assert list(known_to(rtx())) == ["7.5", "8.0", "8.6", "8.9", "12.0", "12.1"]
    assert known_to(FULL) == {}


def test_without_a_gpu_rtx_builds_for_all_from_ampere_on() -> None:
    assert choose_capabilities(rtx(), outline("FLOAT16")) == ("8.0", "8.6", "8.9", "12.0", "12.1")
    assert parse_target("tensorrt-rtx 1.7").compute_capabilities == choose_capabilities(rtx(), outline("FLOAT16"))


def test_without_a_gpu_fp8_leaves_out_what_cannot_compute_in_it() -> None:
    assert choose_capabilities(rtx(), outline("FLOAT16", "FLOAT8E4M3FN")) == ("8.9", "12.0", "12.1")


def test_with_a_gpu_rtx_builds_for_it() -> None:
    assert choose_capabilities(rtx(), outline("FLOAT16"), here="8.9") == ("8.9",)
    assert choose_capabilities(rtx(), outline("FLOAT16"), asked=("8.6", "7.5"), here="8.9") == ("7.5", "8.6")


@pytest.mark.parametrize(
    ("dtypes", "asked", "message"),
    [
        (("FLOAT16", "FLOAT8E4M3FN"), ("8.6", "8.9"), r"capability 8\.6 cannot run .*8-bit floats, which needs 8\.9"),
        (("BFLOAT16",), ("7.5",), r"capability 7\.5 cannot run visual.onnx: it computes in bfloat16"),
        (("FLOAT",), ("7.5",), r"multiplies in float32, which needs 8\.0[\s\S]*--precision fp16"),
        (("FLOAT16",), ("8.7",), r"builds for compute capability 7\.5, .*; asked for 8\.7[\s\S]*--backend tensorrt"),
    ],
)
def test_gpus_that_rtx_does_not_build_for(dtypes: tuple[str, ...], asked: tuple[str, ...], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        choose_capabilities(rtx(), outline(*dtypes), asked=asked)


def test_a_gpu_here_that_is_not_rtx() -> None:
    with pytest.raises(EngineError, match=r"this machine's GPU has 9\.0[\s\S]*--compute-capability"):
        choose_capabilities(rtx(), outline("FLOAT16"), here="9.0")


def test_tensorrt_builds_for_the_gpu_here() -> None:
    assert choose_capabilities(FULL, outline("FLOAT"), here="8.7") == ("8.7",)
    assert choose_capabilities(FULL, outline("FLOAT"), asked=("8.7",), here="8.7") == ("8.7",)
    with pytest.raises(EngineError, match=r"capability 8\.7; asked for 8\.6[\s\S]*--hardware-compatible"):
        choose_capabilities(FULL, outline("FLOAT"), asked=("8.6",), here="8.7")
    with pytest.raises(EngineError, match=r"none is seen here[\s\S]*--backend tensorrt-rtx"):
        choose_capabilities(FULL, outline("FLOAT"))
