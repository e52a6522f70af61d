"""Graphs frozen at a batch of one, by both of torch's exporters, are freed and answer as before."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the graphs are exported here: pip install 'clipdeploy[export]'")
pytest.importorskip("onnxruntime")

import onnx
import torch

from clipdeploy.importing.batch import free_batch
from clipdeploy.importing.graphs import load_graph
from clipdeploy.runtime.ort import OrtSession
from tests import checkpoints
from tests.importing import folders


@pytest.mark.parametrize("vision", ["vit", "resnet"])
@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_frozen_graph_is_freed(tmp_path: Path, vision: str, tower: str) -> None:
    model: Any = checkpoints.make_model(checkpoints.model_config(vision))
    path = tmp_path / "frozen.onnx"
    folders.export(
        model,
        lambda m, x: getattr(m, f"encode_{tower}")(x),
        (_sample(tower, 1),),
        path,
        inputs=["x"],
        outputs=["y"],
        dynamic=False,
    )
    _check(path, tower)


@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_graph_of_the_new_exporter_is_freed(tmp_path: Path, tower: str) -> None:
    model: Any = checkpoints.make_model()
    path = tmp_path / "frozen.onnx"
    call = folders.Call(model, lambda m, x: getattr(m, f"encode_{tower}")(x)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            call, (_sample(tower, 1),), path, input_names=["x"], output_names=["y"], dynamo=True, verbose=False
        )
    _check(path, tower)


def _sample(tower: str, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    if tower == "image":
        return torch.randn(count, 3, checkpoints.IMAGE_SIZE, checkpoints.IMAGE_SIZE, generator=generator)
    return torch.randint(1, 49408, (count, checkpoints.CONTEXT_LENGTH), generator=generator)


def _check(path: Path, tower: str) -> None:
    samples = _sample(tower, 5).numpy()
    frozen = OrtSession(path)
    expected = np.concatenate([frozen.run(samples[i : i + 1]) for i in range(len(samples))])
    freed = path.with_name("freed.onnx")
    onnx.save(free_batch(load_graph(path), "graph"), str(freed))
    session = OrtSession(freed)
    assert session.input.shape[0] == "batch"
    np.testing.assert_allclose(session.run(samples), expected, atol=1e-5)
    np.testing.assert_allclose(session.run(samples[:1]), expected[:1], atol=1e-5)
