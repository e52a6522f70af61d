"""Simplifying keeps the numbers, says what it did, and catches a pass that does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxsim", reason="exporting needs the extra: pip install 'clipdeploy[export]'")
pytest.importorskip("onnxruntime", reason="running graphs needs the extra: pip install 'clipdeploy[cpu]'")

import onnx
import onnx_ir as ir

from clipdeploy.errors import ExportError
from clipdeploy.export.graph.checks import relative_difference
from clipdeploy.export.graph.passes import PASSES, GraphPass
from clipdeploy.export.graph.simplify import simplify_graph
from clipdeploy.export.graph.trace import trace_tower
from clipdeploy.export.towers.build import TextTower
from clipdeploy.graphs.files import data_path
from clipdeploy.runtime.ort import OrtSession
from clipdeploy.spec import Tower
from tests.export import tiny
from tests.export.conftest import Trace


@pytest.fixture(params=["vit", "convnext", "mobileclip"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def vit(trace: Trace) -> Path:
    return trace("vit")


def feeds(name: str, tower: Tower = Tower.IMAGE) -> dict[str, Any]:
    model = tiny.clip(name)
    return {tiny.spec(model, tower).input.name: tiny.samples(model, tower, 3).numpy()}


def test_a_simplified_graph_answers_as_the_checkpoint(trace: Trace, name: str, tmp_path: Path) -> None:
    target, heard = tmp_path / "visual.onnx", []
    result = simplify_graph(
        trace(name), target, feeds=feeds(name), progress=lambda *call: heard.append(call), measure=True
    )
    model, session = tiny.clip(name), OrtSession(target)
    batch = tiny.samples(model, Tower.IMAGE, 5)
    expected = tiny.reference(model, Tower.IMAGE, batch).numpy()
    for count in (1, 2, 5):
        assert np.abs(session.run(batch[:count].numpy()) - expected[:count]).max() <= 1e-5
    onnx.checker.check_model(str(target), full_check=True)
    assert [p.name for p in tmp_path.iterdir()] == ["visual.onnx"], "scratch files stayed behind"

    first, *_, last = result.steps
    assert [s.name for s in result.steps][:2] == ["traced", "onnxsim"]
    assert last.nodes == len(onnx.load(target).graph.node) <= first.nodes
    assert all(s.max_abs <= 1e-5 and s.seconds > 0 and s.size_bytes > 1000 for s in result.steps)
    assert first.latency_ms is not None
    assert last.latency_ms is not None
    assert heard[0] == ("simplifying", 0, len(PASSES) + 1)
    assert heard[-1] == ("simplifying", len(PASSES) + 1, len(PASSES) + 1)


def test_every_pass_finds_work_in_a_real_export(trace: Trace, tmp_path: Path) -> None:
    found: set[str] = set()
    model = tiny.clip("roberta")
    as_it_is = tmp_path / "roberta.onnx"  # a text encoder of a kind that has no lean form masks as this one does
    trace_tower(TextTower(model.get_submodule("text")), tiny.spec(model, Tower.TEXT), as_it_is, opset=19)
    graphs = [(trace("convnext"), feeds("convnext")), (trace("mobileclip"), feeds("mobileclip"))]
    for graph, batch in (*graphs, (as_it_is, feeds("roberta", Tower.TEXT))):
        result = simplify_graph(graph, tmp_path / "simple.onnx", feeds=batch)
        found |= {step.name for step in result.steps}
    assert {p.name for p in PASSES} <= found


def test_a_simplified_graph_says_nothing_of_this_machine(vit: Path, tmp_path: Path) -> None:
    target = tmp_path / "visual.onnx"
    simplify_graph(vit, target, feeds=feeds("vit"))
    model = onnx.load(target)
    assert (model.producer_name, model.graph.name) == ("clipdeploy", "tiny image")
    assert not any(word in target.read_bytes() for word in (b".py", b"site-packages", str(tmp_path).encode()))


def scale_a_bias(factor: float) -> Any:
    def apply(model: ir.Model) -> int:
        value = next(v for n, v in model.graph.initializers.items() if n.endswith("ln_post.bias"))
        assert value.const_value is not None
        value.const_value = ir.tensor(value.const_value.numpy() * np.float32(factor), name=value.name)
        return 1

    return apply


def lose_a_node(model: ir.Model) -> int:
    node = next(n for n in model.graph if n.op_type == "Softmax")
    node.outputs[0].replace_all_uses_with(node.inputs[0])
    model.graph.remove(node, safe=True)
    return 1


def invent_an_operator(model: ir.Model) -> int:
    node = next(n for n in model.graph if n.op_type == "Softmax")
    node.op_type = "Softmux"
    return 1


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (scale_a_bias(1.01), "changes the embeddings"),
        (scale_a_bias(float("nan")), "changes the embeddings by inf"),
        (lose_a_node, "changes the embeddings"),
        (invent_an_operator, "does not run"),
    ],
)
def test_a_broken_pass_is_caught_and_named(vit: Path, tmp_path: Path, broken: Any, complaint: str) -> None:
    target = tmp_path / "visual.onnx"
    with pytest.raises(ExportError, match=complaint) as caught:
        simplify_graph(vit, target, feeds=feeds("vit"), passes=[*PASSES, GraphPass("broken", broken)])
    assert "'broken'" in caught.value.message
    assert caught.value.fix
    assert not list(tmp_path.iterdir())


def test_a_graph_that_runs_but_is_no_valid_onnx_is_refused(vit: Path, tmp_path: Path) -> None:
    def claim_another_shape(model: ir.Model) -> int:
        model.graph.outputs[0].shape = ir.Shape(["batch", 7])
        return 1

    with pytest.raises(ExportError, match=r"no valid ONNX|does not run"):
        passes = [GraphPass("claim", claim_another_shape)]
        simplify_graph(vit, tmp_path / "visual.onnx", feeds=feeds("vit"), passes=passes)
    assert not list(tmp_path.iterdir())


def test_a_pass_that_changes_nothing_leaves_no_step(vit: Path, tmp_path: Path) -> None:
    idle = GraphPass("idle", lambda model: 0)
    result = simplify_graph(vit, tmp_path / "g.onnx", feeds=feeds("vit"), passes=[idle])
    assert [s.name for s in result.steps] == ["traced", "onnxsim"]


def test_weights_too_large_for_one_file_stay_outside_all_the_way(vit: Path, tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside.onnx", tmp_path / "outside.onnx"
    simplify_graph(vit, inside, feeds=feeds("vit"))
    result = simplify_graph(vit, outside, feeds=feeds("vit"), inline_limit_bytes=10_000)
    assert outside.stat().st_size < 100_000 < data_path(outside).stat().st_size
    assert result.steps[-1].size_bytes == pytest.approx(inside.stat().st_size, rel=0.1)
    (batch,) = feeds("vit").values()
    assert np.abs(OrtSession(outside).run(batch) - OrtSession(inside).run(batch)).max() <= 1e-6
    again = tmp_path / "again.onnx"
    simplify_graph(outside, again, feeds=feeds("vit"), inline_limit_bytes=10_000)
    assert np.abs(OrtSession(again).run(batch) - OrtSession(inside).run(batch)).max() <= 1e-6
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "again.onnx", "again.onnx.data", "inside.onnx", "outside.onnx", "outside.onnx.data",
    ]  # fmt: skip


def test_a_difference_is_relative_and_never_hides_a_non_finite_value() -> None:
    a = np.array([[0.5, -2.0]], dtype=np.float32)
    assert relative_difference([a], [a]) == 0.0
    assert relative_difference([a + np.float32(0.5)], [a]) == pytest.approx(0.25)
    assert relative_difference([a * np.float32("nan")], [a]) == float("inf")
    assert relative_difference([a], [a * np.float32("inf")]) == float("inf")
    assert relative_difference([a[:, :1]], [a]) == float("inf")
