"""What is built, or taken in, all the same with `--allow`; and what rewriting a graph does to its engine's key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx", reason="the tiny bundles are written with onnx")
pytest.importorskip("onnx_ir", reason="building needs the extra: pip install 'clipdeploy[engine]'")
pytest.importorskip("onnxruntime", reason="the imagined GPU computes with it: pip install 'clipdeploy[cpu]'")

import numpy as np
from onnx import helper

from clipdeploy.building import job
from clipdeploy.building.job import BuildRequest, build_engines
from clipdeploy.building.report import document, plan_rows
from clipdeploy.cli.build_engine import plan_text
from clipdeploy.engine.targets import known_bad
from clipdeploy.engine_key import RECORD_FILE
from clipdeploy.errors import EngineError, InputError
from clipdeploy.runtime.engines import build_command, find_here
from clipdeploy.spec import Precision, Tower
from tests.building.folders import content, put_graph

SUMS = "rewritten=single-row-as-sums"


def image(bundle: Path, **more: Any) -> BuildRequest:
    return BuildRequest(bundle, towers=(Tower.IMAGE,), **more)


@pytest.fixture
def rotary(bundle: Path) -> Path:
    """A bundle whose image graph turns its input as rotary positions do."""
    angles = np.random.default_rng(0).uniform(0, 3, (1, 1, 1, 32)).astype(np.float32)
    nodes = [
        helper.make_node("Neg", ["pixel_values"], ["turned"], name="turn"),
        helper.make_node("Mul", ["pixel_values", "cos"], ["a"], name="by_cos"),
        helper.make_node("Mul", ["turned", "sin"], ["b"], name="by_sin"),
        helper.make_node("Add", ["a", "b"], ["rotated"], name="rotate"),
        helper.make_node("Flatten", ["rotated"], ["flat"], axis=1, name="flatten"),
        helper.make_node("MatMul", ["flat", "weights"], ["image_embeds"], name="project"),
    ]
    weights = np.full((3 * 32 * 32, 16), 0.01, np.float32)
    return put_graph(bundle, nodes, {"cos": np.cos(angles), "sin": np.sin(angles), "weights": weights})


@pytest.fixture
def single_row(bundle: Path) -> Path:
    """A bundle whose image graph has attention of a single query."""
    rng = np.random.default_rng(0)
    shapes = {"q": (-1, 2, 1, 8), "k": (-1, 2, 8, 7), "v": (-1, 2, 7, 8)}
    nodes = [helper.make_node("Flatten", ["pixel_values"], ["flat"], axis=1, name="flatten")]
    constants: dict[str, Any] = {"whole": np.array([-1, 16], np.int64)}
    for name, shape in shapes.items():
        constants[f"w{name}"] = (rng.standard_normal((3 * 32 * 32, -int(np.prod(shape)))) * 0.01).astype(np.float32)
        constants[f"s{name}"] = np.array(shape, np.int64)
        nodes.append(helper.make_node("MatMul", ["flat", f"w{name}"], [f"{name}_flat"], name=f"make_{name}"))
        nodes.append(helper.make_node("Reshape", [f"{name}_flat", f"s{name}"], [name], name=f"cut_{name}"))
    nodes += [
        helper.make_node("MatMul", ["q", "k"], ["scores"], name="scores"),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=-1, name="softmax"),
        helper.make_node("MatMul", ["shares", "v"], ["context"], name="context"),
        helper.make_node("Reshape", ["context", "whole"], ["image_embeds"], name="together"),
    ]
    return put_graph(bundle, nodes, constants)


@pytest.mark.parametrize("machine", ["tensorrt-10.3.0"], indirect=True)
def test_a_pattern_known_to_be_built_wrongly(machine: str, rotary: Path) -> None:
    before = content(rotary)
    with pytest.raises(EngineError, match="rotary-vit") as caught:
        build_engines(image(rotary))
    assert "--allow rotary-vit" in (caught.value.fix or "")
    assert content(rotary) == before
    (engine,) = build_engines(image(rotary, allow=("rotary-vit",))).engines
    assert engine.built and engine.record.key.flags == ("allow=rotary-vit",)
    told = json.loads((rotary / engine.folder / RECORD_FILE).read_text())["findings"]
    (note,) = [finding for finding in told if finding["check"] == "rotary-vit"]
    assert note["state"] == "note" and "--allow rotary-vit" in note["message"] and "issues/4723" in note["message"]
    with pytest.raises(EngineError, match="rotary-vit"):
        build_engines(image(rotary))  # that engine is not what is asked for now


@pytest.mark.parametrize("machine", ["tensorrt-11.4.0"], indirect=True)
def test_a_name_that_has_nothing_to_allow_is_no_part_of_the_key(machine: str, rotary: Path) -> None:
    (engine,) = build_engines(image(rotary, allow=("rotary-vit",))).engines
    assert engine.record.key.flags == ()


def test_an_unknown_name(machine: str, bundle: Path) -> None:
    with pytest.raises(InputError, match=r"--allow: rotary, half-attention-sm120\n") as caught:
        build_engines(image(bundle, allow=("rotary", "rotary-vit", "half-attention-sm120")))
    for name in ("fallback", "rotary-vit", "single-row-query", "scale-on-both-sides", "attention-operator"):
        assert name in (caught.value.fix or "")


def test_what_fell_back_is_looked_at_with_what_is_allowed(
    machine: str, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(job, "check", lambda *args: seen.append(args[-1]) or ())
    (engine,) = build_engines(image(bundle, allow=("fallback",))).engines
    assert seen == [("fallback",)] and engine.record.key.flags == ("allow=fallback",)
    assert build_engines(image(bundle)).engines[0].built  # one that was taken in so is not what is asked for now


def test_a_rewrite_is_part_of_the_key(machine: str, single_row: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (engine,) = build_engines(image(single_row)).engines
    assert engine.record.key.flags == (SUMS,)
    assert [f.check for f in engine.record.findings if f.state == "note"].count("rewritten") == 1
    assert not build_engines(image(single_row)).engines[0].built
    here = find_here("tensorrt-rtx", "1.7.1")
    command = build_command(single_row, Tower.IMAGE, Precision.FP32, here, like=engine.record.key)
    assert "rewritten" not in command and "--batch 1,1,32" in command
    monkeypatch.setattr(known_bad, "KNOWN_BAD", ())
    (plan,) = build_engines(image(single_row, dry_run=True)).plans
    assert plan.key is not None and plan.key.flags == () and not plan.there


def test_a_rewrite_that_is_not_wanted(machine: str, single_row: Path) -> None:
    (engine,) = build_engines(image(single_row, allow=("single-row-query",))).engines
    key = engine.record.key
    assert key.flags == ("allow=single-row-query",)
    told = {finding.check: finding.state for finding in engine.record.findings}
    assert told["single-row-query"] == "note" and "rewritten" not in told
    command = build_command(single_row, key.tower, key.precision, find_here("tensorrt-rtx", "1.7.1"), like=key)
    assert command.endswith("--allow single-row-query")


def test_a_dry_run_tells_of_rewrites(machine: str, single_row: Path) -> None:
    outcome = build_engines(BuildRequest(single_row, dry_run=True))
    first, second = outcome.plans
    assert (first.rewrites, second.rewrites) == (("single-row-as-sums",), ())
    assert [plan["rewrites"] for plan in document(outcome)["plans"]] == [["single-row-as-sums"], []]
    assert dict(plan_rows(first))["rewritten"].startswith("single-row-as-sums, ")
    assert "rewritten" not in dict(plan_rows(second))
    text = plan_text(outcome)
    assert text.count("tool, of the graph as it is, not rewritten:\n  tensorrt_rtx ") == 1
    assert text.count("The same with TensorRT's own tool") == 2
