"""Engines that are what was asked for, and engines that are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("onnx_ir", reason="graphs need the extra: pip install 'clipdeploy[engine]'")
from clipdeploy.engine.layers.asked import check, layer_report
from clipdeploy.engine.layers.products import expected_weight_bytes, find_products
from clipdeploy.engine.layers.size import ROOM_BYTES
from clipdeploy.engine.records import BuildMachine, BuildOptions, Built, EngineLayer, EngineTensor, LayerReport
from clipdeploy.engine_key import Profile
from clipdeploy.findings import Finding, worst
from clipdeploy.graphs.files import load_graph
from clipdeploy.spec import Precision, Tower
from tests.engine.asked_graphs import LINEARS, PRODUCTS, make_graph, recorded

SIZE = 1_500_000
"""What TensorRT for RTX 1.7.1 made of the recorded graphs, about."""


def look(
    graph: Path,
    precision: str,
    log: str | Sequence[str],
    *,
    size: int = SIZE,
    options: BuildOptions | None = None,
    allow: Sequence[str] = (),
) -> dict[str, Finding]:
    """The findings by what was looked at."""
    lines = recorded(log) if isinstance(log, str) else log
    built = Built(graph.with_suffix(".plan"), size, 1.0, ("8.6",), log=tuple(lines))
    return {f.check: f for f in check(graph, Precision(precision), built, layer_report(graph, built), options, allow)}


def bad(findings: dict[str, Finding]) -> list[str]:
    return [name for name, finding in findings.items() if finding.state == "bad"]


@pytest.fixture
def graph(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return make_graph(tmp_path / "visual.onnx", Precision(getattr(request, "param", "fp16")))


@pytest.mark.parametrize(("graph", "precision"), [(p.value, p.value) for p in Precision], indirect=["graph"])
def test_what_was_asked(graph: Path, precision: str) -> None:
    findings = look(graph, precision, f"image_{precision}")
    assert bad(findings) == []
    assert findings["product types"].message.startswith("8 of 8 products")
    assert findings["tensors"].message == "reads and writes pixel_values, image_embeds"
    assert findings["attention"].state == ("note" if precision == "fp32" else "good")
    assert ("8-bit results" in findings) == (precision in ("int8", "fp8"))
    assert "Float between layers" not in findings  # the L2 norm is Float in the graph too


@pytest.mark.parametrize("graph", ["int8"], indirect=True)
def test_int8_is_both_operands(graph: Path) -> None:
    products = {product.node: product for product in find_products(load_graph(graph))}
    assert {node for node, product in products.items() if product.quantised} == set(LINEARS)
    assert products["node_fc1"].operands == products["node_fc1"].weights == "Int8"
    assert products["node_fc1"].dequantised_by == ("node_fc1_dq", "node_fc1_weight_dq")
    assert (products["node_scores"].operands, products["node_scores"].weights) == ("Half", None)
    assert (products["node_patch"].operands, products["node_patch"].weights) == ("Half", "Half")
    message = look(graph, "int8", "image_int8")["product types"].message
    assert message.endswith("4 of them with activations and weights in 8 bits")


def test_fp16_was_asked_and_the_engine_is_fp32(graph: Path) -> None:
    findings = look(graph, "fp16", "image_fp32")
    assert bad(findings) == ["product types"]
    said = findings["product types"].message
    assert said.startswith("8 of 8 products do not compute")
    assert "node_patch (Half) in Float, node_qkv (Half) in Float" in said
    assert said.endswith("and 3 more")
    assert findings["product types"].fix


@pytest.mark.parametrize("graph", ["int8"], indirect=True)
@pytest.mark.parametrize(("log", "count"), [("image_fp16", 4), ("image_fp32", 8)])
def test_int8_was_asked_and_the_engine_is_wider(graph: Path, log: str, count: int) -> None:
    findings = look(graph, "int8", log)
    assert bad(findings) == ["product types"]
    assert findings["product types"].message.startswith(f"{count} of 8 products do not compute")
    for node in ("node_qkv", "node_out"):
        assert f"{node} (Int8) in" in findings["product types"].message


@pytest.mark.parametrize("graph", ["fp32"], indirect=True)
def test_fp32_was_asked_and_the_engine_is_narrower(graph: Path) -> None:
    assert bad(look(graph, "fp32", "image_fp16")) == ["product types"]


@pytest.mark.parametrize("graph", ["fp8"], indirect=True)
def test_one_product_that_was_not_fused_with_its_scales(graph: Path) -> None:
    """The engine of a graph in which fc2 stayed in Half: what a builder does that cannot fuse its Q/DQ."""
    lines = [
        line.replace("Datatype: FP8", "Datatype: Half") if line.startswith("Name: node_fc2_") else line
        for line in recorded("image_fp8")
    ]
    findings = look(graph, "fp8", lines)
    assert bad(findings) == ["product types"]
    assert "1 of 8 products do not compute in the type that the graph gives them: node_fc2 (FP8) in" in (
        findings["product types"].message
    )


@pytest.mark.parametrize(
    ("graph", "precision", "typed"), [("int8", "int8", "Int8"), ("fp8", "fp8", "FP8")], indirect=["graph"]
)
def test_products_that_fell_back_are_taken_in_where_that_is_allowed(graph: Path, precision: str, typed: str) -> None:
    lines = [
        line.replace(f"Datatype: {typed}", "Datatype: Half") if line.startswith("Name: node_fc2_") else line
        for line in recorded(f"image_{precision}")
    ]
    refused = look(graph, precision, lines)
    assert bad(refused) == ["product types"]
    fix = refused["product types"].fix or ""
    assert "--allow fallback" in fix and "--precision fp16" in fix
    findings = look(graph, precision, lines, allow=["fallback"])
    assert bad(findings) == []
    note = findings["product types"]
    assert note.state == "note" and f"--allow fallback takes in: node_fc2 ({typed}) in Float/Half" in note.message


@pytest.mark.parametrize("graph", ["int8"], indirect=True)
def test_an_engine_with_nothing_as_asked_is_never_taken_in(graph: Path) -> None:
    findings = look(graph, "int8", "image_fp16", allow=["fallback"])
    assert bad(findings) == ["product types"]
    assert "--allow" not in (findings["product types"].fix or "")


@pytest.mark.parametrize("graph", ["fp32"], indirect=True)
def test_a_narrower_type_is_no_fallback(graph: Path) -> None:
    lines = [
        line.replace("Datatype: Float", "Datatype: Half") if line.startswith("Name: node_fc2_") else line
        for line in recorded("image_fp32")
    ]
    assert bad(look(graph, "fp32", lines, allow=["fallback"])) == ["product types"]


def test_every_profile_computes_as_asked(graph: Path) -> None:
    first = recorded("image_fp16")
    second = [line.replace("_myl0_", "_myl1_") for line in first if line.startswith("Name: ")]
    assert bad(look(graph, "fp16", [*first, *second])) == []
    wide = [line.replace("Datatype: Half", "Datatype: Float") if "node_proj_myl1" in line else line for line in second]
    assert wide != second
    findings = look(graph, "fp16", [*first, *wide])
    assert "1 of 8 products do not compute" in findings["product types"].message
    assert "node_proj (Half) in Float" in findings["product types"].message


def test_what_the_graph_keeps_in_fp16_is_no_fallback(tmp_path: Path) -> None:
    graph = make_graph(tmp_path / "visual.onnx", Precision.INT8, quantised=("node_qkv", "node_fc1", "node_out"))
    lines = [
        line.replace("Datatype: Int8", "Datatype: Half") if line.startswith("Name: node_fc2_") else line
        for line in recorded("image_int8")
    ]
    assert bad(look(graph, "int8", lines)) == []
    assert bad(look(graph, "int8", recorded("image_int8"))) == ["product types"]  # node_fc2 in Int8 was not asked


@pytest.mark.parametrize("graph", ["int8"], indirect=True)
def test_weights_alone_in_8_bits(graph: Path) -> None:
    """Activations in Half, weights in Int8: what the documentation of TensorRT for RTX promises of INT8."""
    lines = []
    for line in recorded("image_int8"):
        head, mark, rest = line.partition("Constants: ")
        lines.append(head.replace("Datatype: Int8", "Datatype: Half") + mark + rest)
    findings = look(graph, "int8", lines)
    assert bad(findings) == []
    assert findings["weights alone in 8 bits"].state == "note"
    assert "4 products" in findings["weights alone in 8 bits"].message


@pytest.mark.parametrize("graph", ["fp32"], indirect=True)
@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8", "fp8"])
def test_a_graph_of_another_precision(graph: Path, precision: str) -> None:
    findings = look(graph, precision, "image_fp32")
    assert bad(findings) == ["graph"]
    assert f"--precision {precision}" in str(findings["graph"].fix)


def test_a_graph_that_is_not_all_fp32(graph: Path) -> None:
    assert "graph" in bad(look(graph, "fp32", "image_fp16"))


def test_the_other_towers_engine(graph: Path, tmp_path: Path) -> None:
    findings = look(graph, "fp16", "text_fp16")
    assert bad(findings) == ["tensors"]
    assert "pixel_values, image_embeds" in findings["tensors"].message
    text = make_graph(tmp_path / "textual.onnx", Precision.FP16, Tower.TEXT)
    assert bad(look(text, "fp16", "text_fp16")) == []
    assert bad(look(text, "fp16", "image_fp16")) == ["tensors"]


def test_an_engine_of_another_graph(graph: Path) -> None:
    lines = [line.replace("ONNX Layer: node_", "ONNX Layer: /visual/") for line in recorded("image_fp16")]
    findings = look(graph, "fp16", [line.replace("Name: node_", "Name: /visual/") for line in lines])
    assert bad(findings) == ["product types"]
    assert "built from another graph" in findings["product types"].message


@pytest.mark.parametrize("lines", [(), ("Layers:", "node_patch", "node_fc1 + node_relu")])
def test_an_engine_that_tells_no_types(graph: Path, lines: tuple[str, ...]) -> None:
    findings = look(graph, "fp16", lines)
    assert list(findings) == ["graph", "layers", "size"]
    assert findings["layers"].state == "note"
    assert "--detailed" in str(findings["layers"].fix)


def inspected(*layers: EngineLayer) -> LayerReport:
    door = EngineLayer("in", "Reformat", (EngineTensor("pixel_values", ""),), (EngineTensor("image_embeds", ""),))
    return LayerReport("inspector", (door, *layers), 1, None)


def named(node: str, tactic: str, *, weights: str = "Half") -> EngineLayer:
    """A layer of an engine with a dynamic batch, whose inspector tells no tensor's type."""
    unknown, held = (EngineTensor("x", ""),), (EngineTensor("weights", weights),)
    return EngineLayer(f"{node} + node_more", "CaskGemmConvolution", unknown, unknown, (), held, tactic)


def test_what_a_builder_logs_that_was_not_told_to_go_into_detail(graph: Path) -> None:
    """TensorRT for RTX 1.7.1 with verbosity LAYER_NAMES_ONLY: one line for the whole graph."""
    line = (
        "Layer(Myelin): {ForeignNode[node_cast_pixels...node_div]}, Tactic: 0x0000000000000000, "
        "pixel_values (Float[-1,3,32,32]) -> image_embeds (Float[-1,64])"
    )
    findings = look(graph, "fp16", ["Engine Layer Information:", line])
    assert {name: finding.state for name, finding in findings.items()} == {
        "graph": "good",
        "tensors": "good",
        "product types": "note",
        "attention": "note",
        "size": "good",
    }


def test_types_told_by_kernels_alone(graph: Path, tmp_path: Path) -> None:
    built = Built(tmp_path / "x", SIZE, 1.0, ())
    half = [named(node, "sm80_xmma_gemm_f16f16_f16f32_f32_tn_n") for node in ("node_patch", *PRODUCTS)]
    assert worst(check(graph, Precision.FP16, built, inspected(*half))) == "note"
    wide = named("node_fc2", "sm80_xmma_gemm_f32f32_tf32f32_f32_tn_n", weights="Float")
    findings = check(graph, Precision.FP16, built, inspected(*half[:6], wide, half[7]))
    (found,) = [finding for finding in findings if finding.state == "bad"]
    assert found.message.endswith("node_fc2 (Half) in Float")


@pytest.mark.parametrize("graph", ["fp32"], indirect=True)
def test_tf32_is_told(graph: Path, tmp_path: Path) -> None:
    layers = [named(n, "sm80_xmma_gemm_f32f32_tf32f32_f32_tn_n", weights="Float") for n in ("node_patch", *PRODUCTS)]
    findings = check(graph, Precision.FP32, Built(tmp_path / "x", SIZE, 1.0, ()), inspected(*layers))
    assert next(f.message for f in findings if f.check == "TF32").startswith("8 layers use TF32")


def test_a_region_that_tells_nothing_of_its_inside(graph: Path, tmp_path: Path) -> None:
    half = (EngineTensor("pixel_values", "Float"),)
    region = EngineLayer("{ForeignNode[a...b]}", "Myelin", half, (EngineTensor("image_embeds", "Float"),), PRODUCTS)
    findings = check(
        graph, Precision.FP16, Built(tmp_path / "x", SIZE, 1.0, ()), LayerReport("inspector", (region,), 1)
    )
    assert worst(findings) == "note"
    assert "does not tell in which type" in next(f.message for f in findings if f.check == "product types")


def test_float_between_layers(graph: Path) -> None:
    lines = [
        line.replace(
            "Datatype: Half, Format: (Linear) Row major linear format }], TacticName: ,",
            "Datatype: Float }], TacticName: ,",
        )
        for line in recorded("image_fp16")
    ]
    assert lines != recorded("image_fp16")
    findings = look(graph, "fp16", lines)
    assert bad(findings) == []
    assert findings["Float between layers"].state == "note"


LARGE = 1024
"""Width of a graph whose weights outweigh an engine's kernels: 13.2 M parameters."""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_graph(tmp_path_factory.mktemp("large") / "visual.onnx", Precision.FP32, width=LARGE)


def sized(graph: Path, size: int, **options: object) -> Finding:
    return look(graph, "fp32", "image_fp32", size=size, options=BuildOptions(**options))["size"]  # type: ignore[arg-type]


def test_sizes(large: Path) -> None:
    weights = expected_weight_bytes(load_graph(large))
    assert weights > 50_000_000
    assert sized(large, weights + 10_000_000).state == "good"
    twice = sized(large, 2 * weights)
    assert twice.state == "bad"
    assert "wider type" in twice.message
    two = (Profile(1, 1, 1), Profile(2, 8, 32))
    assert sized(large, 2 * weights, profiles=two).state == "good"
    assert sized(large, weights + 90_000_000).state == "bad"
    assert sized(large, weights + 90_000_000, version_compatible=True).state == "good"


def test_a_stripped_engine(large: Path) -> None:
    weights = expected_weight_bytes(load_graph(large))
    missing = sized(large, 6_000_000)
    assert missing.state == "bad"
    assert "weights are missing" in missing.message
    assert sized(large, 6_000_000, strip_weights=True).state == "good"
    whole = sized(large, weights + 6_000_000, strip_weights=True)
    assert whole.state == "bad"
    assert "still inside" in whole.message


def test_a_small_graph_does_not_tell_whether_it_was_stripped(graph: Path) -> None:
    finding = look(graph, "fp16", "image_fp16", options=BuildOptions(strip_weights=True))["size"]
    assert (finding.state, SIZE < ROOM_BYTES) == ("note", True)


def test_weights_that_the_builder_quantises_count_as_8_bits(tmp_path: Path) -> None:
    stored = expected_weight_bytes(load_graph(make_graph(tmp_path / "stored.onnx", Precision.INT8)))
    import onnx

    model = onnx.load(str(tmp_path / "stored.onnx"))
    for name in ("fc1", "fc2"):
        (held,) = [tensor for tensor in model.graph.initializer if tensor.name == f"{name}.weight"]
        wide = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(held).astype("float16"), held.name)
        held.CopyFrom(wide)
        (reader,) = [node for node in model.graph.node if node.name == f"node_{name}_weight_dq"]
        quantise = onnx.helper.make_node(
            "QuantizeLinear", list(reader.input), [f"{name}_held"], name=f"{name}_weight_q"
        )
        model.graph.node.insert(0, quantise)
        reader.input[0] = f"{name}_held"
    onnx.save(model, str(tmp_path / "quantised.onnx"))
    graph = load_graph(tmp_path / "quantised.onnx")
    assert expected_weight_bytes(graph) == stored
    assert {p.node for p in find_products(graph) if p.quantised} == set(LINEARS)


def test_a_report_without_its_log(graph: Path) -> None:
    built = Built(graph, SIZE, 1.0, ())
    assert layer_report(graph, built).source == "none"
    inspector = '{"Layers": [{"Name": "a", "LayerType": "gemm"}]}'
    assert layer_report(graph, replace(built, log=tuple(recorded("image_fp16"))), inspector).source == "inspector"


@pytest.mark.parametrize("precision", list(Precision))
def test_engines_that_are_built_here(tmp_path: Path, precision: Precision) -> None:
    """The TensorRT for RTX that is installed, which may be later than the one that was recorded."""
    pytest.importorskip("tensorrt_rtx", reason="building needs it: pip install tensorrt-rtx")
    from clipdeploy.engine.builder.build import build
    from clipdeploy.engine.product import find_product

    graph = make_graph(tmp_path / "visual.onnx", precision)
    options = BuildOptions(profiles=(Profile(1, 1, 1), Profile(2, 8, 32)))
    built = build(graph, tmp_path / "engine.plan", options, find_product("tensorrt-rtx"), machine=BuildMachine())
    report = layer_report(graph, built)
    assert report.source == "build log"
    findings = check(graph, precision, built, report, options)
    assert [finding for finding in findings if finding.state == "bad"] == []
    assert {"graph", "tensors", "product types", "attention", "size"} <= {finding.check for finding in findings}
