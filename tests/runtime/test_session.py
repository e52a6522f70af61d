"""Engines: what they run, what they refuse, and how they say so."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from clipdeploy.errors import BackendError, InputError, MissingExtraError
from clipdeploy.runtime.backends import choose_backend, open_session
from clipdeploy.runtime.ort import OrtSession
from clipdeploy.runtime.session import Session
from clipdeploy.spec import TensorSpec
from tests.bundles import EMBED_DIM, IMAGE_SIZE, image_weights, text_weights, write_image_graph, write_text_graph

pytest.importorskip("onnxruntime", reason="the engine is onnxruntime: pip install 'clipdeploy[cpu]'")
pytest.importorskip("onnx", reason="tiny graphs are written with onnx: pip install 'clipdeploy[export]'")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_graph(tmp_path_factory.mktemp("graphs") / "visual.onnx", image_weights())


def pixels(count: int = 3) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((count, 3, IMAGE_SIZE, IMAGE_SIZE)).astype(np.float32)


def test_it_computes_the_graph(graph: Path) -> None:
    session: Session = open_session(graph)
    expected = pixels().reshape(3, -1) @ image_weights()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    output = session.run(pixels())
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-5)


def test_it_knows_its_tensors(graph: Path, tmp_path: Path) -> None:
    session = open_session(graph, backend="onnxruntime", threads=1)
    assert session.name == "onnxruntime:CPUExecutionProvider"
    assert session.input == TensorSpec("pixel_values", "float32", ("batch", 3, IMAGE_SIZE, IMAGE_SIZE))
    assert session.output == TensorSpec("image_embeds", "float32", ("batch", EMBED_DIM))
    text = open_session(write_text_graph(tmp_path / "textual.onnx", text_weights(9)))
    assert text.input == TensorSpec("input_ids", "int64", ("batch", 77))


def test_it_takes_a_batch_that_is_not_contiguous(graph: Path) -> None:
    wide = np.repeat(pixels(), 2, axis=3)
    session = open_session(graph)
    assert np.array_equal(session.run(wide[..., ::2]), session.run(pixels()))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (pixels().astype(np.float64), "pixel_values must be float32, got float64"),
        (pixels()[0], r"shape \(N, 3, 32, 32\), got \(3, 32, 32\)"),
        (pixels()[:, :, :31], r"got \(3, 3, 31, 32\)"),
        (pixels()[:0], r"got \(0, 3, 32, 32\)"),
        (pixels().tolist(), "must be an ndarray, got list"),
    ],
)
def test_a_batch_of_another_kind(graph: Path, batch: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_session(graph).run(batch)


def test_a_failing_run_names_graph_and_shape(tmp_path: Path) -> None:
    path = write_text_graph(tmp_path / "textual.onnx", text_weights(9))
    with pytest.raises(BackendError, match=r"textual.onnx with input_ids int64 \(2, 77\)") as caught:
        open_session(path).run(np.full((2, 77), 9))
    assert caught.value.__cause__ is not None


def test_a_closed_session_does_not_run(graph: Path) -> None:
    session = open_session(graph)
    session.close()
    session.close()
    with pytest.raises(BackendError, match="closed"):
        session.run(pixels())


@pytest.mark.parametrize("content", [b"", b"not a graph", None])
def test_a_file_that_is_no_graph(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "visual.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BackendError, match=r"cannot load .*visual.onnx|must have one input"):
        open_session(path)


def test_a_graph_of_two_inputs(tmp_path: Path) -> None:
    import onnx

    path = write_image_graph(tmp_path / "visual.onnx", image_weights())
    model = onnx.load(path)
    model.graph.input.append(onnx.helper.make_tensor_value_info("other", onnx.TensorProto.FLOAT, [1]))
    onnx.save(model, path)
    with pytest.raises(BackendError, match="must have one input, it has: pixel_values, other"):
        open_session(path)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_a_number_of_threads_that_is_none(graph: Path, threads: Any) -> None:
    with pytest.raises(InputError, match="threads must be a positive whole number"):
        open_session(graph, threads=threads)


def test_the_likely_backend_is_named_with_a_reason() -> None:
    choice = choose_backend("auto")
    assert choice.name == "onnxruntime"
    assert "auto" in choice.reason
    assert choose_backend("onnxruntime").reason != choice.reason


@pytest.mark.parametrize("usual_batch", [0, -1, 1.5, True])
def test_a_usual_batch_that_is_none(graph: Path, usual_batch: Any) -> None:
    with pytest.raises(InputError, match="usual_batch must be a positive whole number"):
        open_session(graph, usual_batch=usual_batch)


def test_a_provider_that_this_build_lacks(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipdeploy.runtime.providers.available_providers", lambda: ("CPUExecutionProvider",))
    with pytest.raises(BackendError, match="has no CUDAExecutionProvider, only ") as caught:
        open_session(graph, backend="onnxruntime:cuda")
    assert caught.value.fix


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_a_backend_of_built_engines_takes_no_graph(graph: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipdeploy.runtime.trt.product.is_installed", lambda backend: True)
    with pytest.raises(BackendError, match=f"{backend} runs engines that were built from a graph") as caught:
        open_session(graph, backend=backend)
    assert f"clipdeploy build-engine BUNDLE --backend {backend}" in (caught.value.fix or "")


def test_an_unknown_backend() -> None:
    with pytest.raises(InputError, match="expected one of auto, onnxruntime, onnxruntime:cuda, ") as caught:
        choose_backend("onnxruntim")
    assert caught.value.fix == 'pass backend="onnxruntime"'


def test_a_missing_engine_names_the_extra(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'clipdeploy\[cpu\]'"):
        OrtSession(graph)
    monkeypatch.setattr("clipdeploy.runtime.backends.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'clipdeploy\[cpu\]'"):
        choose_backend("auto")


def test_a_hollow_engine_names_the_clash(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))
    with pytest.raises(BackendError, match="onnxruntime-gpu"):
        OrtSession(graph)
