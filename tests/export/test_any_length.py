"""Text encoders whose answer depends on nothing behind the end token are exported for texts of any length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("onnxsim", reason="exporting needs the extra: pip install 'clipdeploy[export]'")
pytest.importorskip("onnxruntime", reason="running graphs needs the extra: pip install 'clipdeploy[cpu]'")

from clipdeploy.export.checkpoint import Checkpoint
from clipdeploy.export.tower import ExportOptions, export_tower
from clipdeploy.graphs.files import load_graph, save_graph
from clipdeploy.graphs.length import fix_length, longest
from clipdeploy.runtime.lengths import read_up_to
from clipdeploy.runtime.ort import OrtSession
from clipdeploy.spec import Tower
from tests import hf_checkpoints
from tests.checkpoints import CONTEXT_LENGTH, load, model_config, write_checkpoint

TEXTS = ["a", "a photo of a cat", "two dogs on the grass, one of them black", "word " * 100]
WHOLE: dict[str, dict[str, Any]] = {
    "sees what follows": {"no_causal_mask": True},
    "reads the last place": {"pool_type": "last"},
    "reads a token behind the text": {"embed_cls": True},
}


@pytest.fixture(
    scope="module", params=["open_clip", "a text tower of its own", "reads the end by its id", "transformers"]
)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("checkpoint")
    if request.param == "transformers":
        return load(hf_checkpoints.write(folder))
    changes: dict[str, Any] = {"custom_text": True} if request.param == "a text tower of its own" else {}
    if request.param == "reads the end by its id":
        changes = {"custom_text": True, "text_cfg": {"pool_type": "eos", "eos_id": 49407}}
    return load(write_checkpoint(folder, model_config(**changes)))


@pytest.fixture(scope="module")
def graph(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tower(checkpoint, Tower.TEXT, tmp_path_factory.mktemp("graph"), ExportOptions()).graph


def test_a_text_cut_behind_its_end_has_the_embedding_of_the_whole(checkpoint: Checkpoint, graph: Path) -> None:
    assert checkpoint.spec.text.any_length
    session = OrtSession(graph)
    assert (session.input, session.output) == (checkpoint.spec.text.input, checkpoint.spec.text.output)
    ids = checkpoint.reference_tokens(TEXTS)
    expected = checkpoint.reference_text_embeds(ids)
    needed = read_up_to(ids, checkpoint.spec.tokens)
    assert needed[0] < needed[1] < needed[2] < needed[3] == checkpoint.spec.tokens.context_length
    for row, length in enumerate(needed):
        for cut in {int(length), min(int(length) + 1, ids.shape[1]), ids.shape[1]}:
            found = session.run(ids[row : row + 1, :cut])
            np.testing.assert_allclose(found, expected[row : row + 1], atol=1e-5)
    np.testing.assert_allclose(session.run(ids[:2, : needed[1]]), expected[:2], atol=1e-5)
    too_short = session.run(ids[2:3, : needed[2] - 2])
    assert np.abs(too_short - expected[2:3]).max() > 1e-3, "what is read was cut off, and nothing changed"


def test_the_length_can_be_fixed(checkpoint: Checkpoint, graph: Path, tmp_path: Path) -> None:
    model = load_graph(graph)
    length = checkpoint.spec.tokens.context_length
    assert longest(model) == length
    assert fix_length(model)
    assert longest(model) is None
    save_graph(model, tmp_path / "fixed.onnx")
    onnx.checker.check_model(str(tmp_path / "fixed.onnx"), full_check=True)
    session = OrtSession(tmp_path / "fixed.onnx")
    assert session.input.shape == ("batch", length)
    ids = checkpoint.reference_tokens(TEXTS)
    np.testing.assert_allclose(session.run(ids), OrtSession(graph).run(ids), atol=1e-6)
    assert {"Shape", "Slice", "Concat"}.isdisjoint(node.op_type for node in model.graph), "arithmetic on a constant"
    names = set(model.graph.initializers)
    assert {"text.positional_embedding", "text.attn_mask"} <= names, "weights keep the names that refitting asks for"
    assert not fix_length(model)


@pytest.mark.parametrize("why", WHOLE)
def test_others_take_whole_texts(tmp_path: Path, why: str) -> None:
    checkpoint = load(write_checkpoint(tmp_path / "checkpoint", model_config(custom_text=True, text_cfg=WHOLE[why])))
    assert checkpoint.spec.text.input.shape == ("batch", CONTEXT_LENGTH)
    graph = export_tower(checkpoint, Tower.TEXT, tmp_path, ExportOptions(simplify=False)).graph
    model = load_graph(graph)
    assert OrtSession(graph).input == checkpoint.spec.text.input
    assert longest(model) is None
    assert not fix_length(model)


@pytest.mark.parametrize("family", ["siglip", "chinese_clip"])
def test_other_families_of_transformers_take_whole_texts(tmp_path: Path, family: str) -> None:
    assert not load(hf_checkpoints.write(tmp_path, family)).spec.text.any_length
