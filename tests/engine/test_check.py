"""Whole bundles held against targets, and graphs made ready for building."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="running graphs needs the extra: pip install 'clipdeploy[cpu]'")
pytest.importorskip("onnx_ir", reason="checking graphs needs the extra: pip install 'clipdeploy[export]'")

import onnx_ir as ir

from clipdeploy.bundle import Bundle
from clipdeploy.engine.builder.outline import read_outline
from clipdeploy.engine.targets.check import CheckOutcome, Verdict, before_building, check_bundle, key_flags
from clipdeploy.engine.targets.target import parse_target
from clipdeploy.errors import BundleCorruptError, EngineError, InputError
from clipdeploy.graphs.files import data_path, load_graph, save_graph
from clipdeploy.manifest import NewFile
from clipdeploy.spec import Precision, Tower
from tests.bundles import make_bundle
from tests.engine.attention_graphs import feeds, heads, model_text, ops, plain, read, run, save, sdpa

ORIN = parse_target("tensorrt 10.3, sm_87")
LATEST = parse_target("tensorrt 11.4, sm_89")

With = Callable[..., Path]


@pytest.fixture
def bundle_with(tmp_path: Path) -> With:
    """A bundle whose image tower has the given graphs: `name=(model, precision, target)`."""

    def make(**graphs: tuple[ir.Model, Precision, str | None]) -> Path:
        folder = make_bundle(tmp_path / "bundle")
        bundle = Bundle.open(folder)
        files = []
        for number, (model, precision, target) in enumerate(graphs.values()):
            name = Tower.IMAGE.graph_name(precision, target)  # type: ignore[arg-type]
            source = save(model, tmp_path / f"{number}.onnx")
            files.append(
                NewFile(name, source, "graph", "test", Tower.IMAGE, precision, model.opset_imports[""], target)  # type: ignore[arg-type]
            )
        bundle.add_all(files)
        return folder

    return make


def verdicts(outcome: CheckOutcome, tower: Tower = Tower.IMAGE) -> dict[str, Verdict]:
    return {graph.name: graph.verdict for graph in outcome.graphs if graph.tower is tower}


def test_a_bundle_of_several_precisions(bundle_with: With) -> None:
    folder = bundle_with(
        half=(plain(rows=1, dtype="float16"), Precision.FP16, None),
        eight=(plain(rows=5), Precision.FP8, "tensorrt"),
        whole=(plain(rows=5), Precision.INT8, "cpu"),
    )
    hashes = {path: hashlib.sha256(path.read_bytes()).digest() for path in folder.rglob("*") if path.is_file()}
    outcome = check_bundle(folder, ORIN)
    assert verdicts(outcome) == {
        "visual.onnx": "accepted",
        "visual_fp16.onnx": "accepted",
        "visual_bf16.onnx": "absent",
        "visual_int8_cpu.onnx": "refused",
        "visual_fp8.onnx": "refused",
    }
    assert outcome.passed  # nothing was asked for, and each encoder has a graph
    later = check_bundle(folder, LATEST)
    assert verdicts(later)["visual_fp16.onnx"] == "rewritten" and verdicts(later)["visual_fp8.onnx"] == "accepted"
    assert hashes == {path: hashlib.sha256(path.read_bytes()).digest() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("precision", "passed"),
    [(Precision.FP16, True), (Precision.FP8, False), (Precision.INT8, False), (Precision.BF16, False)],
)
def test_what_is_asked_for_must_be_accepted(bundle_with: With, precision: Precision, passed: bool) -> None:
    folder = bundle_with(
        half=(plain(rows=5, dtype="float16"), Precision.FP16, None),
        eight=(plain(rows=5), Precision.FP8, "tensorrt"),
        whole=(plain(rows=5), Precision.INT8, "cpu"),
    )
    outcome = check_bundle(folder, ORIN, precisions=[precision], towers=[Tower.IMAGE])
    assert outcome.passed is passed
    assert {graph.precision for graph in outcome.graphs} == {precision}
    assert {graph.tower for graph in outcome.graphs} == {Tower.IMAGE}


def test_each_graph_of_a_target_counts(bundle_with: With) -> None:
    folder = bundle_with(
        first=(plain(rows=5), Precision.INT8, "cpu"),
        second=(plain(rows=5), Precision.INT8, "tensorrt"),
    )
    outcome = check_bundle(folder, ORIN, precisions=[Precision.INT8], towers=[Tower.IMAGE])
    assert verdicts(outcome) == {"visual_int8_cpu.onnx": "refused", "visual_int8.onnx": "accepted"}
    assert outcome.passed


def test_a_gpu_that_is_not_built_for(tmp_path: Path) -> None:
    outcome = check_bundle(make_bundle(tmp_path / "b"), parse_target("tensorrt-rtx 1.7, sm_87"))
    assert not outcome.passed
    assert set(verdicts(outcome).values()) == {"refused", "absent"}
    told = [finding.message for graph in outcome.graphs if graph.verdict == "absent" for finding in graph.findings]
    assert set(told) == {"the bundle has none, and the target takes none"}


def test_nothing_to_do_gives_the_file_itself(tmp_path: Path) -> None:
    graph = save(plain(rows=5), tmp_path / "g.onnx")
    prepared = before_building(graph, ORIN, tmp_path)
    assert (prepared.graph, prepared.rewrites, prepared.findings) == (graph, (), ())


def test_a_graph_is_rewritten_beside(tmp_path: Path) -> None:
    model = sdpa(rows=1, columns=7)
    graph = save(model, tmp_path / "g.onnx")
    whole = graph.read_bytes()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    prepared = before_building(graph, parse_target("tensorrt 10.7, sm_89"), scratch)
    assert prepared.graph == scratch / "g.onnx" and prepared.rewrites == ("scale_into_query",)
    assert "TensorRT/issues/4333" in prepared.findings[0].message
    later = before_building(graph, LATEST, scratch)
    assert later.rewrites == ("single_row_as_sums",) and ": single-row-query, " in later.findings[0].message
    given = feeds(model)
    assert np.abs(run(load_graph(later.graph), given) - run(model, given)).max() <= 1e-5
    assert graph.read_bytes() == whole
    with pytest.raises(InputError, match="holds the graph itself"):
        before_building(graph, LATEST, tmp_path)


def test_one_rewrite_shows_what_another_is_for(tmp_path: Path) -> None:
    text = model_text("y = Attention (q, k, v)", inputs=heads(1, 7), outputs="float[N,2,1,4] y", opset=23)
    graph = save(read(text), tmp_path / "g.onnx")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    prepared = before_building(graph, LATEST, scratch)
    assert prepared.rewrites == ("explicit_attention", "single_row_as_sums")
    flags = ("rewritten=explicit-attention", "rewritten=single-row-as-sums")
    assert key_flags(graph, {"Attention"}, LATEST) == flags
    assert not {"Attention", "MatMul"} & set(ops(load_graph(prepared.graph)))
    given = feeds(read(text))
    assert np.abs(run(load_graph(prepared.graph), given) - run(read(text), given)).max() <= 1e-5


def test_weights_beside_the_graph_stay_beside_it(tmp_path: Path) -> None:
    body = "q = MatMul (x, w) scores = MatMul (q, k) p = Softmax <axis = -1> (scores) y = MatMul (p, v)"
    inputs = "float[N,1,64] x, float[N,64,6] k, float[N,6,64] v, float[64,64] w"
    model = read(model_text(body, inputs=inputs, outputs="float[N,1,64] y"))
    weight = next(value for value in model.graph.inputs if value.name == "w")
    model.graph.inputs.remove(weight)
    weight.const_value = ir.tensor(np.ones((64, 64), np.float32) / 64, name="w")
    model.graph.register_initializer(weight)
    graph = tmp_path / "g.onnx"
    save_graph(model, graph, inline_limit_bytes=0)
    assert data_path(graph).exists()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    prepared = before_building(graph, LATEST, scratch)
    given = feeds(model)
    assert np.abs(run(load_graph(prepared.graph), given) - run(model, given)).max() <= 1e-5


ROTARY = """
    cos = Constant <value = float[2,2] {0.8, 0.0, 0.8, 0.0}> ()
    sin = Constant <value = float[2,2] {0.6, 1.0, 0.6, 1.0}> ()
    turned = Neg (x) a = Mul (x, cos) b = Mul (turned, sin) y = Add (a, b)
"""


def test_what_has_no_rewrite_is_refused_with_its_thread(tmp_path: Path) -> None:
    graph = save(read(model_text(ROTARY, inputs="float[2,2] x", outputs="float[2,2] y")), tmp_path / "g.onnx")
    with pytest.raises(EngineError) as caught:
        before_building(graph, ORIN, tmp_path)
    assert "https://github.com/NVIDIA/TensorRT/issues/4723" in caught.value.message
    assert caught.value.fix is not None and "TensorRT 10.6" in caught.value.fix
    assert "--allow rotary-vit" in caught.value.fix
    allowed = before_building(graph, ORIN, tmp_path, allow=["rotary-vit"])
    assert allowed.rewrites == () and allowed.graph == graph
    (note,) = allowed.findings
    assert (note.check, note.state) == ("rotary-vit", "note") and "issues/4723" in note.message
    assert key_flags(graph, {"Add"}, ORIN, ["rotary-vit"]) == ("allow=rotary-vit",)
    assert key_flags(graph, {"Add"}, LATEST, ["rotary-vit"]) == ()
    assert before_building(graph, LATEST, tmp_path).graph == graph


def test_what_the_target_cannot_take_is_refused(tmp_path: Path) -> None:
    body = "y = Attention <softcap = 2.0> (q, k, v)"
    model = read(model_text(body, inputs=heads(5, 5), outputs="float[N,2,5,4] y", opset=23))
    with pytest.raises(EngineError, match="attention-operator") as caught:
        before_building(save(model, tmp_path / "a.onnx"), ORIN, tmp_path)
    assert caught.value.fix is not None and "clipdeploy export" in caught.value.fix
    graph = save(plain(rows=5), tmp_path / "g.onnx")
    with pytest.raises(EngineError, match="FP8 needs compute capability"):
        before_building(graph, ORIN, tmp_path, precision=Precision.FP8)
    with pytest.raises(EngineError, match="builds for no such GPU"):
        before_building(graph, parse_target("tensorrt-rtx 1.7, sm_90"), tmp_path)


def test_an_exported_clip_is_accepted_on_an_orin(demo_bundle: Path, tmp_path: Path) -> None:
    outcome = check_bundle(demo_bundle, ORIN)
    assert {graph.name: graph.verdict for graph in outcome.graphs if graph.verdict != "absent"} == {
        "visual.onnx": "accepted",
        "textual.onnx": "accepted",
    }
    assert [finding for graph in outcome.graphs for finding in graph.findings if finding.state == "bad"] == [
        graph.findings[0] for graph in outcome.graphs if graph.precision is Precision.FP8
    ]


@pytest.mark.parametrize("tower", list(Tower))
@pytest.mark.parametrize("target", ["tensorrt 10.13, sm_110", "tensorrt-rtx 1.7, sm_89"])
def test_an_exported_clip_answers_the_same_when_rewritten(
    demo_bundle: Path, tmp_path: Path, tower: Tower, target: str
) -> None:
    graph = Bundle.open(demo_bundle).graph(tower)
    prepared = before_building(graph, parse_target(target), tmp_path)
    assert prepared.rewrites == ("single_row_as_sums",)
    rng = np.random.default_rng(0)
    model = Bundle.open(demo_bundle).model
    spec = model.tower(tower).input
    shape = (3, *spec.shape[1:]) if tower is Tower.IMAGE else (3, model.tokens.context_length)
    given = rng.standard_normal(shape).astype(np.float32) if tower is Tower.IMAGE else np.zeros(shape, np.int64)
    if tower is Tower.TEXT:
        given[:] = rng.integers(1, 9, shape)
    before, after = (run(load_graph(path), {spec.name: given}) for path in (graph, prepared.graph))
    assert np.abs(after - before).max() <= 1e-5


def test_an_engine_of_texts_is_for_the_longest(demo_bundle: Path, tmp_path: Path) -> None:
    """Which is no rewrite that would keep weights from being stripped, or that a key names."""
    bundle = Bundle.open(demo_bundle)
    graph = bundle.graph(Tower.TEXT)
    assert bundle.model.text.any_length
    prepared = before_building(graph, ORIN, tmp_path)
    assert prepared.rewrites == ()
    assert prepared.graph.parent == tmp_path
    assert [i.shape for i in read_outline(prepared.graph).inputs] == [("batch", 77)]
    assert {"Shape", "Slice"}.isdisjoint(node.op_type for node in load_graph(prepared.graph).graph)
    assert key_flags(graph, [node.op_type for node in load_graph(graph).graph], ORIN) == ()


def test_broken_files_do_not_stay(bundle_with: With, tmp_path: Path) -> None:
    folder = bundle_with(half=(plain(rows=1, dtype="float16"), Precision.FP16, None))
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "visual_fp16.onnx").unlink()
    with pytest.raises(BundleCorruptError, match="is missing"):
        check_bundle(copy, ORIN)
