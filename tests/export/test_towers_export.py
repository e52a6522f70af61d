"""The export stage as a whole: a tower of a checkpoint to a checked graph in a folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxsim", reason="exporting needs the extra: pip install 'clipdeploy[export]'")
pytest.importorskip("onnxruntime", reason="running graphs needs the extra: pip install 'clipdeploy[cpu]'")

from clipdeploy.errors import ExportError, OutputError
from clipdeploy.export.checkpoint import Checkpoint
from clipdeploy.export.tower import ExportOptions, export_tower, sample_feeds
from clipdeploy.runtime.ort import OrtSession
from clipdeploy.spec import Tower
from tests.export import tiny


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return tiny.checkpoint("vit")


@pytest.mark.parametrize("tower", Tower)
def test_export_tower(checkpoint: Checkpoint, tower: Tower, tmp_path: Path) -> None:
    heard: list[str] = []
    options = ExportOptions(measure=True)
    result = export_tower(checkpoint, tower, tmp_path, options, lambda what, done, total: heard.append(what))
    assert [p.name for p in tmp_path.iterdir()] == [tower.graph_name()]
    assert (result.graph, result.weights, result.opset) == (tmp_path / tower.graph_name(), None, 19)
    assert [s.name for s in result.steps] == ["traced", "onnxsim", "gelu_order"]
    assert 0 < result.steps[0].max_abs <= 1e-5, "the first step is measured against the checkpoint"
    assert result.steps[0].latency_ms is not None
    assert result.seconds >= sum(s.seconds for s in result.steps) * 0.9
    assert heard[0] == f"tracing the {tower.value} encoder"
    (batch,) = sample_feeds(checkpoint, tower, seed=7).values()
    encode = checkpoint.reference_image_embeds if tower is Tower.IMAGE else checkpoint.reference_text_embeds
    assert np.abs(OrtSession(result.graph).run(batch) - encode(batch)).max() <= 1e-5


def test_without_simplifying_there_is_one_step(checkpoint: Checkpoint, tmp_path: Path) -> None:
    options = ExportOptions(opset=17, simplify=False, inline_limit_bytes=10_000)
    result = export_tower(checkpoint, Tower.IMAGE, tmp_path, options)
    assert [s.name for s in result.steps] == ["traced"]
    assert result.opset == 17
    assert result.weights == tmp_path / "visual.onnx.data"
    assert result.steps[0].size_bytes == result.graph.stat().st_size + result.weights.stat().st_size
    assert sorted(p.name for p in tmp_path.iterdir()) == ["visual.onnx", "visual.onnx.data"]


def test_a_graph_that_differs_from_the_checkpoint_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    class Other(Checkpoint):
        def reference_image_embeds(self, pixels: np.ndarray) -> np.ndarray:
            return super().reference_image_embeds(pixels) + np.float32(0.01)

    other = Other(**{f.name: getattr(checkpoint, f.name) for f in dataclasses.fields(checkpoint)})
    with pytest.raises(ExportError, match=r"image encoder of vit differs from the checkpoint by 0\.01"):
        export_tower(other, Tower.IMAGE, tmp_path, ExportOptions(simplify=False))
    assert not list(tmp_path.iterdir())


def test_an_unknown_opset_is_refused_before_any_work(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="opset 9 is not supported; expected 17 to 23") as caught:
        export_tower(checkpoint, Tower.IMAGE, tmp_path, ExportOptions(opset=9))
    assert caught.value.fix == "use --opset 19"


def test_a_folder_that_is_not_there_is_one_clear_error(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        export_tower(checkpoint, Tower.IMAGE, tmp_path / "missing", ExportOptions())


def test_random_texts_are_texts(checkpoint: Checkpoint) -> None:
    (ids,) = sample_feeds(checkpoint, Tower.TEXT).values()
    assert ids.shape == (3, tiny.LENGTH)
    assert ids.dtype == np.int64
    assert (ids[:, 0] == tiny.START).all()
    assert (ids == tiny.EOS).sum(axis=1).tolist() == [1, 1, 1]
    assert (ids == tiny.PAD).sum(axis=1).tolist() == [13, 7, 0]
