"""Everything that can be wrong with graphs of others has a graph here that is wrong in that way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the extra: pip install 'clipdeploy[import,cpu]'")
pytest.importorskip("onnxruntime")
pytest.importorskip("tokenizers")

import onnx
from onnx import TensorProto

from clipdeploy.errors import CheckpointError
from clipdeploy.findings import Finding
from clipdeploy.importing.job import import_bundle
from clipdeploy.importing.records import ImportOutcome, ImportRequest
from clipdeploy.spec import Precision
from tests.importing import graphs


def take(folder: Path, **said: Any) -> ImportOutcome:
    """Import `folder` with what it does not state."""
    given = {key: value for key, value in {**graphs.SAID, **said}.items() if value is not None}
    return import_bundle(ImportRequest(folder, folder.parent / "bundle", **given))


def seen(outcome: ImportOutcome, check: str, state: str) -> Finding:
    """The one finding of that kind."""
    (finding,) = [f for f in outcome.findings if (f.check, f.state) == (check, state)]
    return finding


def refused(folder: Path, **said: Any) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        take(folder, **said)
    assert not (folder.parent / "bundle").exists()
    return caught.value


def blind() -> Any:
    """An image tower that sees nothing."""
    zero = graphs.node("Sub", ["flat", "flat"], "nothing")
    return graphs.image(between=[zero, graphs.node("Exp", ["nothing"], "ready")])


def batch_bound() -> Any:
    """An image tower that takes the mean of its batch off, as quantising at run time does in effect."""
    mean = graphs.node("ReduceMean", ["flat"], "mean_of_all", axes=[0], keepdims=1)
    return graphs.image(between=[mean, graphs.node("Sub", ["flat", "mean_of_all"], "ready")])


def normalising() -> Any:
    """An image tower that subtracts the mean itself, of float pixels."""
    given = graphs.image(name="normal")
    given.graph.node.insert(0, graphs.node("Sub", ["pixels", "mean"], "normal"))
    given.graph.initializer.append(onnx.numpy_helper.from_array(np.full((1, 3, 1, 1), 0.5, np.float32), "mean"))
    given.graph.input[0].name = "pixels"
    return given


def overflowing() -> Any:
    half = graphs.node("Cast", ["flat"], "half", to=TensorProto.FLOAT16)
    steps = [
        half,
        graphs.node("Exp", ["half"], "e"),
        graphs.node("Exp", ["e"], "ee"),
        graphs.node("Exp", ["ee"], "eee"),
    ]
    return graphs.image(between=[*steps, graphs.node("Cast", ["eee"], "ready", to=TensorProto.FLOAT)])


BAD: dict[str, tuple[Callable[[], Any], Callable[[], Any], str, str]] = {
    # check: image graph, text graph, what is said, what mends it
    "causal mask": (graphs.image, lambda: graphs.text(causal=False), "mask was lost on export", "--no-causal-mask"),
    "distinct": (blind, graphs.text, "different pictures get the same embedding", "export it again"),
    "normalisation": (normalising, graphs.text, "normalised twice", "--preprocessing mobileclip"),
    "batch": (batch_bound, graphs.text, "changes with what shares its batch", "fp32 graphs"),
}


@pytest.mark.parametrize("check", list(BAD))
def test_a_bad_finding_keeps_the_bundle_from_being_written(tmp_path: Path, check: str) -> None:
    image, text, message, fix = BAD[check]
    outcome = take(graphs.write(tmp_path / "given", image(), text()))
    finding = seen(outcome, check, "bad")
    assert message in finding.message
    assert fix in (finding.fix or "")
    assert outcome.bundle is None
    assert not (tmp_path / "bundle").exists()


def test_a_bad_finding_can_be_accepted(tmp_path: Path) -> None:
    folder = graphs.write(tmp_path / "given", None, graphs.text(causal=False))
    outcome = take(folder, accept_bad=True)
    assert outcome.bundle is not None
    told = json.loads((outcome.bundle / "report/preflight.json").read_text(encoding="utf-8"))
    assert [one["check"] for one in told if one["state"] == "bad"] == ["causal mask"]


def test_a_tower_without_a_mask_is_right_where_it_was_trained_so(tmp_path: Path) -> None:
    folder = graphs.write(tmp_path / "given", None, graphs.text(causal=False))
    outcome = take(folder, causal_mask=False)
    assert outcome.bundle is not None
    assert "causal mask" not in [finding.check for finding in outcome.findings]


def test_the_activation_is_compared_with_the_configuration(tmp_path: Path) -> None:
    quick = [
        graphs.node("Mul", ["flat", "factor"], "scaled"),
        graphs.node("Sigmoid", ["scaled"], "gate"),
        graphs.node("Mul", ["flat", "gate"], "ready"),
    ]
    given = graphs.image(between=quick)
    given.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1.702), "factor"))
    folder = graphs.write(tmp_path / "given", given)
    config = {"embed_dim": graphs.WIDTH, "vision_cfg": {}, "text_cfg": {"context_length": graphs.LENGTH}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}), encoding="utf-8")
    finding = seen(take(folder), "activation", "bad")
    assert "computes quick_gelu, the configuration says gelu" in finding.message


@pytest.mark.parametrize(("key", "check"), [("embed_dim", "width"), ("context_length", "text length")])
def test_the_configuration_must_be_of_these_graphs(tmp_path: Path, key: str, check: str) -> None:
    folder = graphs.write(tmp_path / "given")
    config: dict[str, Any] = {"embed_dim": graphs.WIDTH, "vision_cfg": {}}
    config["text_cfg"] = {"context_length": graphs.LENGTH, "width": 8}
    (config if key in config else config["text_cfg"])[key] = 64
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}), encoding="utf-8")
    assert "the configuration says 64" in seen(take(folder), check, "bad").message


def test_noise_of_quantising_at_run_time_is_no_missing_mask(tmp_path: Path) -> None:
    """Ids behind the end token move the ranges that all ids are quantised by."""
    pytest.importorskip("torch", reason="the graphs are exported here: pip install 'clipdeploy[export]'")
    pytest.importorskip("transformers")
    from onnxruntime.quantization import quantize_dynamic

    from tests.importing import folders

    onnx_folder = tmp_path / "given/onnx"
    folders.huggingface(tmp_path / "given")
    for name in ("vision_model", "text_model"):
        quantize_dynamic(onnx_folder / f"{name}.onnx", onnx_folder / f"{name}_quantized.onnx")
    outcome = import_bundle(
        ImportRequest(tmp_path / "given", tmp_path / "bundle", variant="quantized", logit_scale=100.0)
    )
    assert [f.check for f in outcome.findings if f.state == "bad"] == ["batch", "batch"]
    assert "fp32 graphs" in (next(f for f in outcome.findings if f.check == "batch").fix or "")


def test_an_old_opset_is_noted(tmp_path: Path) -> None:
    outcome = take(graphs.write(tmp_path / "given", graphs.image(opset=13)))
    assert "opset 13" in seen(outcome, "opset", "note").message


def test_operators_of_onnx_runtime_alone_are_noted(tmp_path: Path) -> None:
    fused = graphs.node("QuickGelu", ["flat"], "ready", domain="com.microsoft", alpha=1.702)
    outcome = take(graphs.write(tmp_path / "given", graphs.image(between=[fused], domains=["com.microsoft"])))
    finding = seen(outcome, "operators", "note")
    assert "1 QuickGelu" in finding.message and "TensorRT" in finding.message
    assert outcome.bundle is not None


def test_weights_quantised_at_run_time_are_noted_and_named(tmp_path: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    folder = graphs.write(tmp_path / "given")
    for name in ("visual", "textual"):
        quantize_dynamic(folder / f"{name}.onnx", folder / f"{name}_int8.onnx")
    outcome = take(folder, image_graph=Path("visual_int8.onnx"), text_graph=Path("textual_int8.onnx"))
    assert outcome.precision is Precision.INT8
    assert [f.state for f in outcome.findings if f.check == "quantised"] == ["note", "note"]
    assert "MatMulInteger" in next(f.message for f in outcome.findings if f.check == "quantised")


def test_a_squash_is_noted_where_a_softmax_was_trained(tmp_path: Path) -> None:
    folder = graphs.write(tmp_path / "given")
    stated = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    (folder / "preprocess_cfg.json").write_text(json.dumps(stated), encoding="utf-8")
    finding = seen(take(folder, preprocessing=None), "resize", "note")
    assert "--preprocessing openai" in (finding.fix or "")


# What cannot become a bundle at all: image graph, text graph, what is said, what mends it.
REFUSED: dict[str, tuple[Callable[[], Any] | None, Callable[[], Any] | None, str, str]] = {
    "no shared space": (
        lambda: graphs.image(weights=graphs.PIXELS[:, :4]),
        None,
        "gives 4 numbers, the text tower 6",
        "--image-output",
    ),
    "not finite": (overflowing, None, "NaN or infinity", "fp32 graphs"),
    "two formats": (lambda: graphs.image(kind=TensorProto.FLOAT16), None, "computes in fp16", "--variant"),
    "a batch of four": (lambda: graphs.image(batch=4), None, "batches of exactly 4", "dynamic_axes"),
    "foreign operators": (
        lambda: graphs.image(between=[graphs.node("Odd", ["flat"], "ready", domain="acme")], domains=["acme"]),
        None,
        "acme.Odd",
        "standard operators",
    ),
    "ids missing": (None, graphs.image, "the text tower must take ids", "--text-output"),
    "unknown input": (None, lambda: graphs.text(extra=("language",)), "language int64", "ids alone"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_a_bundle_is_refused(tmp_path: Path, name: str) -> None:
    image, text, message, fix = REFUSED[name]
    folder = graphs.write(tmp_path / "given", image and image(), text and text())
    error = refused(folder)
    assert message in error.message
    assert fix in (error.fix or "")


def test_several_outputs_are_listed_and_not_guessed(tmp_path: Path) -> None:
    given = graphs.image()
    given.graph.node.append(graphs.node("Neg", ["output"], "other"))
    given.graph.output.append(onnx.helper.make_tensor_value_info("other", TensorProto.FLOAT, ("n", graphs.WIDTH)))
    folder = graphs.write(tmp_path / "given", given)
    error = refused(folder)
    assert "output float32 (?, 6); other float32 (?, 6)" in error.message
    assert "--image-output" in (error.fix or "")
    assert take(folder, image_output="other").bundle is not None


def test_a_tower_that_stops_before_its_projection_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "given"
    graphs.write(folder, graphs.image(output="pooler_output"), graphs.text(output="text_embeds"))
    (folder / "visual.onnx").rename(folder / "vision_model.onnx")
    (folder / "textual.onnx").rename(folder / "text_model.onnx")
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", "projection_dim": graphs.WIDTH}))
    error = refused(folder)
    assert "stops before the projection" in error.message
    assert "CLIPVisionModelWithProjection" in (error.fix or "")
    (folder / "config.json").write_text(json.dumps({"model_type": "siglip"}))  # which has none
    assert take(folder, logit_bias=-10.0).bundle is not None


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    folder = graphs.write(tmp_path / "given")
    (folder / "visual.onnx").write_bytes(b"no graph at all")
    assert "is no graph that ONNX takes" in refused(folder).message


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    folder = graphs.write(tmp_path / "given")
    target = str(folder / "visual.onnx")
    onnx.save(graphs.image(), target, save_as_external_data=True, location="w.bin", size_threshold=0)
    (folder / "w.bin").unlink()
    assert "files of weights beside it" in (refused(folder).fix or "")


# What two plain graphs do not state, and the flag that says it.
@pytest.mark.parametrize(
    ("field", "flag"),
    [
        ("preprocessing", "--preprocessing"),
        ("cleaning", "--cleaning"),
        ("pad_id", "--pad-id"),
        ("logit_scale", "--logit-scale"),
    ],
)
def test_what_is_not_stated_is_asked_for(tmp_path: Path, field: str, flag: str) -> None:
    assert flag in (refused(graphs.write(tmp_path / "given"), **{field: None}).fix or "")


def test_a_missing_tokenizer_is_asked_for(tmp_path: Path) -> None:
    folder = graphs.write(tmp_path / "given", tokenizer=False)
    assert "--tokenizer FILE" in (refused(folder).fix or "")
    graphs.write_tokenizer(tmp_path / "elsewhere.json")
    assert take(folder, tokenizer=tmp_path / "elsewhere.json").bundle is not None


def test_a_sigmoid_needs_its_bias(tmp_path: Path) -> None:
    folder = graphs.write(tmp_path / "given")
    config = {"embed_dim": graphs.WIDTH, "init_logit_bias": -10, "vision_cfg": {}}
    config["text_cfg"] = {"context_length": graphs.LENGTH, "no_causal_mask": True}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}), encoding="utf-8")
    assert "--logit-bias" in (refused(folder).fix or "")


def test_a_length_that_the_graph_does_not_take_is_refused(tmp_path: Path) -> None:
    error = refused(graphs.write(tmp_path / "given"), context_length=77)
    assert "takes 10 ids a text, not 77" in error.message


def test_a_size_that_the_graph_does_not_take_is_refused(tmp_path: Path) -> None:
    error = refused(graphs.write(tmp_path / "given"), image_size=(16, 16))
    assert "--image-size 16x16, the image graph 8x8" in error.message


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    error = refused(graphs.write(tmp_path / "given", None, graphs.text(table=graphs.TABLE[:20])))
    assert "gives ids up to 29, the text tower takes 20" in error.message


def test_a_tokenizer_without_an_end_token_is_refused(tmp_path: Path) -> None:
    folder = graphs.write(tmp_path / "given")
    graphs.write_tokenizer(folder / "tokenizer.json", end=False)
    assert "puts no end token behind a text" in refused(folder).message
