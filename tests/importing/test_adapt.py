"""Graphs of every border are made to keep the contract, and answer as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the extra: pip install 'clipdeploy[import,cpu]'")
pytest.importorskip("onnxruntime")
pytest.importorskip("tokenizers")

import onnx
from onnx import TensorProto

import clipdeploy
from clipdeploy.bundle import Bundle
from clipdeploy.importing.job import import_bundle
from clipdeploy.importing.records import ImportOutcome, ImportRequest
from clipdeploy.spec import Precision
from tests.importing import graphs

TEXTS = ["a photo of a cat", "two dogs", "", "red circle on a blue square at sunset, running on the beach"]


def take(folder: Path, **said: Any) -> ImportOutcome:
    """Import `folder` with what it does not state."""
    return import_bundle(ImportRequest(folder, folder.parent / "bundle", **{**graphs.SAID, **said}))


def notes(outcome: ImportOutcome) -> set[str]:
    return {finding.check for finding in outcome.findings if finding.state == "note"}


def answers(outcome: ImportOutcome) -> tuple[Any, Any, Any, Any]:
    """Pixels, their embeddings, ids, their embeddings."""
    assert outcome.bundle is not None
    with clipdeploy.load(outcome.bundle, precision=outcome.precision) as clip:
        crops = np.random.default_rng(3).integers(0, 256, (4, graphs.SIZE, graphs.SIZE, 3), dtype=np.uint8)
        pixels, ids = clip.images.normalize(crops), clip.tokenizer(TEXTS)
        return pixels, clip.encode_pixels(pixels), ids, clip.encode_tokens(ids)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"length"}),
        ({"name": "pixel_values", "output": "image_embeds"}, {"length"}),
        ({"name": "image_embeds", "output": "pixel_values"}, {"length"}),
        ({"batch": 1}, {"length", "batch"}),
        ({"channels_last": True}, {"length", "channels"}),
        ({"kind": TensorProto.UINT8}, {"length", "input type"}),
        ({"kind": TensorProto.UINT8, "channels_last": True, "batch": 1}, {"length", "input type", "channels", "batch"}),
        ({"opset": 13}, {"length", "opset"}),
        ({"opset": 18}, {"length"}),
    ],
)
def test_pictures(tmp_path: Path, given: dict[str, Any], expected: set[str]) -> None:
    outcome = take(graphs.write(tmp_path / "given", graphs.image(**given)))
    pixels, embeds, _, _ = answers(outcome)
    np.testing.assert_allclose(embeds, graphs.expected_image(pixels), atol=1e-5)
    assert notes(outcome) == expected


def test_texts_of_int32(tmp_path: Path) -> None:
    outcome = take(graphs.write(tmp_path / "given", None, graphs.text(kind=TensorProto.INT32)))
    _, _, ids, embeds = answers(outcome)
    np.testing.assert_allclose(embeds, graphs.expected_text(ids, _until_end(ids)), atol=1e-5)
    assert "input type" in notes(outcome)


def test_a_mask_is_made_inside(tmp_path: Path) -> None:
    outcome = take(graphs.write(tmp_path / "given", None, graphs.text(mask=True)), causal_mask=False)
    _, _, ids, embeds = answers(outcome)
    np.testing.assert_allclose(embeds, graphs.expected_text(ids, ids != graphs.PAD), atol=1e-5)
    assert "attention mask" in notes(outcome)


def test_a_mask_counts_the_end_token_once_where_it_is_the_padding_too(tmp_path: Path) -> None:
    outcome = take(graphs.write(tmp_path / "given", None, graphs.text(mask=True)), pad_id=graphs.END)
    _, _, ids, embeds = answers(outcome)
    assert (ids[1, -3:] == graphs.END).all()
    np.testing.assert_allclose(embeds, graphs.expected_text(ids, _until_end(ids)), atol=1e-5)


def test_positions_and_token_types_are_made_inside(tmp_path: Path) -> None:
    folder = graphs.write(tmp_path / "given", None, graphs.text(extra=("position_ids", "token_type_ids")))
    _, _, ids, embeds = answers(take(folder))
    rows = (graphs.TABLE[ids] * _until_end(ids)[..., None]).sum(axis=1) + np.arange(graphs.LENGTH).sum()
    np.testing.assert_allclose(embeds, rows / np.linalg.norm(rows, axis=1, keepdims=True), atol=1e-5)


def test_half_precision_is_named_and_leaves_as_float32(tmp_path: Path) -> None:
    folder = graphs.write(tmp_path / "given", graphs.image(kind=TensorProto.FLOAT16), graphs.text(half=True))
    outcome = take(folder)
    pixels, embeds, _, _ = answers(outcome)
    assert outcome.precision is Precision.FP16
    assert outcome.bundle is not None and (outcome.bundle / "visual_fp16.onnx").is_file()
    assert embeds.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeds, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(embeds, graphs.expected_image(pixels), atol=5e-3)
    assert {"input type", "output type"} <= notes(outcome)


def test_weights_beside_a_graph_come_along(tmp_path: Path) -> None:
    folder = graphs.write(tmp_path / "given")
    onnx.save(
        graphs.image(), str(folder / "visual.onnx"), save_as_external_data=True, location="w.bin", size_threshold=0
    )
    assert (folder / "w.bin").is_file()
    pixels, embeds, _, _ = answers(take(folder))
    np.testing.assert_allclose(embeds, graphs.expected_image(pixels), atol=1e-5)


def test_weights_among_the_inputs_of_an_old_graph_are_no_inputs(tmp_path: Path) -> None:
    given = graphs.image()
    shape = list(graphs.PIXELS.shape)
    given.graph.input.append(onnx.helper.make_tensor_value_info("weights", TensorProto.FLOAT, shape))
    given.ir_version = 3
    pixels, embeds, _, _ = answers(take(graphs.write(tmp_path / "given", given)))
    np.testing.assert_allclose(embeds, graphs.expected_image(pixels), atol=1e-5)


def test_nodes_in_no_order_are_sorted(tmp_path: Path) -> None:
    given = graphs.text()
    backwards = list(given.graph.node)[::-1]
    del given.graph.node[:]
    given.graph.node.extend(backwards)
    outcome = take(graphs.write(tmp_path / "given", None, given))
    _, _, ids, embeds = answers(outcome)
    np.testing.assert_allclose(embeds, graphs.expected_text(ids, _until_end(ids)), atol=1e-5)


def test_the_licence_is_the_model_cards(tmp_path: Path) -> None:
    folder = graphs.write(tmp_path / "given")
    (folder / "README.md").write_text(
        "---\ntags:\n- clip\nlicense: apache-2.0\n---\n# license: none\n", encoding="utf-8"
    )
    outcome = take(folder)
    assert outcome.bundle is not None
    assert Bundle.open(outcome.bundle).manifest.provenance.licence == "apache-2.0"


def test_further_outputs_and_what_they_need_are_dropped(tmp_path: Path) -> None:
    given = graphs.image()
    given.graph.node.append(graphs.node("Exp", ["flat"], "last_hidden_state"))
    hidden = onnx.helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ("n", 1, 192))
    given.graph.output.append(hidden)
    outcome = take(graphs.write(tmp_path / "given", given))
    assert outcome.bundle is not None
    assert "Exp" not in {node.op_type for node in onnx.load(outcome.bundle / "visual.onnx").graph.node}


def test_normalised_embeddings_stay_as_they_are(tmp_path: Path) -> None:
    given = graphs.image(output="raw")
    given.graph.node.append(graphs.node("LpNormalization", ["raw"], "embedding", axis=-1, p=2))
    given.graph.output[0].name = "embedding"
    outcome = take(graphs.write(tmp_path / "given", given))
    assert outcome.bundle is not None
    assert "Max" not in {node.op_type for node in onnx.load(outcome.bundle / "visual.onnx").graph.node}


def _until_end(ids: Any) -> Any:
    return np.arange(ids.shape[1])[None] <= (ids == graphs.END).argmax(axis=1)[:, None]
