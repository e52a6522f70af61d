"""Every layout end to end: a folder as others write it becomes a bundle that answers as the model does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the graphs are exported here: pip install 'clipdeploy[export]'")
pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")

import clipdeploy
from clipdeploy.bundle import Bundle
from clipdeploy.errors import CheckpointError
from clipdeploy.importing.job import import_bundle
from clipdeploy.importing.layouts import read_layout
from clipdeploy.importing.original import NOT_PYTORCH
from clipdeploy.importing.records import ImportOutcome, ImportRequest
from clipdeploy.spec import Precision, Tower
from clipdeploy.verify.golden import read_golden
from tests.importing import folders

TEXTS = ["a photo of a cat", "TWO dogs, running on a beach", "", "7", "a very long caption " * 30]
TOLERANCE = 1e-5

# name: (how the folder is made, what the user has to say)
LAYOUTS: dict[str, tuple[Callable[[Path], Any], dict[str, Any]]] = {
    "transformers.js": (lambda p: folders.huggingface(p, masked=True), {"logit_scale": 100.0}),
    "transformers.js siglip": (
        lambda p: folders.huggingface(p, "siglip2"),
        {"logit_scale": 100.0, "logit_bias": -10.0},
    ),
    "optimum": (folders.combined, {}),
    "immich, frozen": (folders.immich, {"logit_scale": 100.0}),
    "plain": (folders.plain, folders.PLAIN),
}


@pytest.fixture(scope="module", params=list(LAYOUTS))
def imported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Any, ImportOutcome]:
    """Name of the layout, the model, and what came of the import."""
    make, said = LAYOUTS[request.param]
    folder = tmp_path_factory.mktemp("folders")
    model = make(folder / "given")
    return request.param, model, import_bundle(ImportRequest(folder / "given", folder / "bundle", **said))


def test_it_answers_as_the_model_does(imported: tuple[str, Any, ImportOutcome]) -> None:
    _, model, outcome = imported
    assert outcome.bundle is not None
    with clipdeploy.load(outcome.bundle) as clip:
        pixels = np.random.default_rng(0).standard_normal((5, 3, 32, 32)).astype(np.float32)
        ids = clip.tokenizer(TEXTS)
        assert np.abs(clip.encode_pixels(pixels) - folders.image_embeds(model, pixels)).max() < TOLERANCE
        assert np.abs(clip.encode_tokens(ids) - folders.text_embeds(model, ids)).max() < TOLERANCE


def test_nothing_is_found_to_be_bad(imported: tuple[str, Any, ImportOutcome]) -> None:
    _, _, outcome = imported
    assert [finding for finding in outcome.findings if finding.state == "bad"] == []
    assert outcome.precision is Precision.FP32


def test_the_bundle_keeps_the_contract(imported: tuple[str, Any, ImportOutcome]) -> None:
    onnx = pytest.importorskip("onnx")
    _, _, outcome = imported
    assert outcome.bundle is not None
    bundle = Bundle.open(outcome.bundle)
    for tower in Tower:
        record, graph = bundle.model.tower(tower), onnx.load(bundle.graph(tower)).graph
        for spec, values in ((record.input, graph.input), (record.output, graph.output)):
            assert [value.name for value in values] == [spec.name]
            dims = values[0].type.tensor_type.shape.dim
            assert tuple(dim.dim_param or dim.dim_value for dim in dims) == spec.shape


def test_the_bundle_tells_what_it_was_compared_with(imported: tuple[str, Any, ImportOutcome]) -> None:
    name, _, outcome = imported
    assert outcome.bundle is not None
    bundle = Bundle.open(outcome.bundle)
    tools = read_golden(bundle).tools
    assert tools["reference"] == NOT_PYTORCH
    assert "torch" not in tools
    report = json.loads(bundle.path("report/parity.json").read_text(encoding="utf-8"))
    assert report["passed"] is True
    assert name and len(json.loads(bundle.path("report/preflight.json").read_text())) == len(outcome.findings)


def test_scale_and_bias_are_measured_where_a_graph_gives_logits(tmp_path: Path) -> None:
    model = folders.combined(tmp_path / "given", "siglip2")
    outcome = import_bundle(ImportRequest(tmp_path / "given", tmp_path / "bundle"))
    spec = Bundle.open(outcome.bundle or "").model
    assert spec.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()), rel=1e-5)
    assert spec.logit_bias == pytest.approx(float(model.logit_bias.detach()), rel=1e-5)
    assert spec.probability == "sigmoid"


def test_a_folder_of_two_layouts_is_not_guessed(tmp_path: Path) -> None:
    for name in ("onnx/vision_model.onnx", "onnx/text_model.onnx", "visual.onnx", "textual.onnx"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match="several layouts: huggingface, plain") as caught:
        read_layout(ImportRequest(tmp_path, tmp_path / "out"))
    assert "--layout plain" in str(caught.value)
    assert read_layout(ImportRequest(tmp_path, tmp_path / "out", layout="plain")).layout == "plain"


def test_a_folder_of_no_layout_names_the_flags(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").touch()
    with pytest.raises(CheckpointError, match=r"a\.onnx") as caught:
        read_layout(ImportRequest(tmp_path, tmp_path / "out"))
    assert "--image-graph FILE --text-graph FILE" in str(caught.value)


def test_a_variant_is_named(tmp_path: Path) -> None:
    for name in ("vision_model_fp16.onnx", "text_model_fp16.onnx", "text_model_int8.onnx"):
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match="it has: fp16") as caught:
        read_layout(ImportRequest(tmp_path, tmp_path / "out"))
    assert "--variant fp16" in str(caught.value)
    chosen = read_layout(ImportRequest(tmp_path, tmp_path / "out", variant="fp16"))
    assert (chosen.image_graph.name, chosen.text_graph.name) == ("vision_model_fp16.onnx", "text_model_fp16.onnx")


def test_immich_cleans_as_its_configuration_says(tmp_path: Path) -> None:
    for name in ("visual/model.onnx", "textual/model.onnx"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    for words, cleaning, causal in (
        ({}, "lower", True),
        ({"hf_tokenizer_name": "x", "no_causal_mask": True}, "whitespace", False),
        ({"hf_tokenizer_name": "x", "tokenizer_kwargs": {"clean": "canonicalize"}}, "canonicalize", True),
    ):
        config = {"embed_dim": 8, "vision_cfg": {}, "text_cfg": {"width": 8, **words}}
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        stated = read_layout(ImportRequest(tmp_path, tmp_path / "out"))
        assert (stated.cleaning, stated.causal) == (cleaning, causal)
