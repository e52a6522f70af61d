"""Every engine on a real GPU, held against ONNX Runtime with the very graph that it was built from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx", reason="building engines needs the extra: pip install 'clipdeploy[engine]'")
pytest.importorskip("onnxruntime", reason="engines are held against it: pip install 'clipdeploy[cpu]'")

import clipdeploy
from clipdeploy.bundle import Bundle
from clipdeploy.engine.layers.read import read_inspector
from clipdeploy.engine.store import add_engine, read_record, remove_engines
from clipdeploy.engine_key import ENGINE_FILE, ENGINES, RECORD_FILE
from clipdeploy.errors import BackendError, BundleCorruptError, EngineError, InputError
from clipdeploy.pipeline import VerifyRequest, verify_bundle
from clipdeploy.runtime.engines import engines_of, find_here
from clipdeploy.runtime.ort import OrtSession
from clipdeploy.runtime.selftest.gates import ENGINE_COSINE
from clipdeploy.runtime.tensorrt import find_engines
from clipdeploy.runtime.trt.inspector import inspector_json
from clipdeploy.runtime.trt.session import TensorRtSession
from clipdeploy.spec import Precision, Tower
from clipdeploy.verify import read_golden, text_table
from tests.bundles import IMAGE_SIZE, image_weights, make_bundle
from tests.gpu.conftest import BANDS, Device, Workshop

LARGEST = max(band[2] for band in BANDS)
COSINE = {**ENGINE_COSINE, Precision.FP32: 0.99999, Precision.FP16: 0.999}
"""Smallest cosine to ONNX Runtime's answer."""


def inputs(bundle: Bundle, tower: Tower, count: int) -> NDArray[Any]:
    """The golden samples, over and over until there are `count`."""
    golden = read_golden(bundle)
    rows = golden.pixels if tower is Tower.IMAGE else golden.input_ids.astype(bundle.model.text.input.dtype)
    return rows[np.arange(count) % len(rows)]


def reference(bundle: Bundle, tower: Tower, precision: Precision, scratch: Path) -> OrtSession:
    """ONNX Runtime on the engine's own graph, rounding where the graph says so."""
    graph = bundle.graph(tower, precision, "tensorrt" if precision.quantised else None)
    if precision is Precision.BF16:
        from clipdeploy.calibration.half import emulated

        emulated(graph, scratch / graph.name)
        graph = scratch / graph.name
    return OrtSession(graph, fuse_qdq=False)


def open_engine(folder: Path, device: Device, tower: Tower, precision: Precision) -> TensorRtSession:
    return find_engines(Bundle.open(folder), device.backend, {tower: precision}).open(tower)


def least_cosine(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    return float((ours.astype(np.float64) * theirs).sum(axis=1).min())


@pytest.mark.parametrize("tower", list(Tower))
@pytest.mark.parametrize("precision", list(Precision))
def test_an_engine_answers_as_its_graph(
    workshop: Workshop, device: Device, tower: Tower, precision: Precision, tmp_path: Path
) -> None:
    workshop.build(precision.value, tower)
    bundle = Bundle.open(workshop.folder)
    session = open_engine(workshop.folder, device, tower, precision)
    rows = inputs(bundle, tower, LARGEST)
    expected = reference(bundle, tower, precision, tmp_path).run(rows)
    assert session.largest_batch == LARGEST
    for count in (1, 2, 7, 31, LARGEST, 1):  # both profiles, and back
        answer = session.run(rows[:count])
        assert answer.dtype == np.float32
        assert np.abs(np.linalg.norm(answer, axis=1) - 1).max() < 1e-5
        assert least_cosine(answer, expected[:count]) >= COSINE[precision]
    with pytest.raises(InputError, match=f"batches of 1 to 1 and 2 to {LARGEST}, got {LARGEST + 1}"):
        session.run(inputs(bundle, tower, LARGEST + 1))
    session.close()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8", "fp8"])
def test_a_bundle_holds_its_gates(workshop: Workshop, device: Device, precision: str) -> None:
    """The whole ladder against the checkpoint's golden samples, with the budget that quantising kept."""
    for tower in Tower:
        workshop.build(precision, tower)
    report = verify_bundle(VerifyRequest(workshop.folder, precision=precision, backend=device.backend))
    assert report.backend == device.backend
    assert report.passed, text_table(report)


def test_a_stripped_engine_answers_as_a_whole_one(device: Device, pictures: Path, tmp_path: Path) -> None:
    """On a graph that no version needs rewritten, whose weights can therefore come from the bundle."""
    rows = np.random.default_rng(0).standard_normal((8, 3, IMAGE_SIZE, IMAGE_SIZE)).astype(np.float32)
    answers, sizes = [], []
    for stripped in (False, True):
        folder = make_bundle(tmp_path / f"stripped-{stripped}")
        Workshop(device, folder, pictures).build("fp32", Tower.IMAGE, strip_weights=stripped)
        (entry,) = engines_of(Bundle.open(folder)).values()
        sizes.append(entry.size_bytes)
        session = open_engine(folder, device, Tower.IMAGE, Precision.FP32)
        answers.append(session.run(rows))
        session.close()
    assert sizes[1] <= sizes[0] - 0.75 * image_weights().nbytes
    assert least_cosine(*answers) >= COSINE[Precision.FP32]
    bundle = Bundle.open(folder)
    graph = bundle.path(entry.graph)
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    engines = find_engines(bundle, device.backend, {Tower.IMAGE: Precision.FP32})
    with pytest.raises(BundleCorruptError, match="is altered"):
        engines.open(Tower.IMAGE)


def test_an_engine_tells_its_layers(device: Device, pictures: Path, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "tiny")
    Workshop(device, folder, pictures).build("fp32", Tower.IMAGE, detailed=True)
    (entry,) = engines_of(Bundle.open(folder)).values()
    assert (entry.key.gpu or device.cuda.gpu.name) == find_here(device.backend, entry.key.version).gpu
    text = inspector_json(entry.path, device.module)
    assert text is not None
    layers = read_inspector(text)
    assert layers and all(tensor.dtype for layer in layers for tensor in layer.outputs)


@pytest.mark.parametrize("field", ["version", "compute_capabilities", "graph_sha256"])
def test_an_engine_under_another_key_is_refused(workshop: Workshop, device: Device, field: str, tmp_path: Path) -> None:
    workshop.build("fp32", Tower.IMAGE)
    folder = tmp_path / "bundle"
    shutil.copytree(workshop.folder, folder)
    bundle = Bundle.open(folder)
    name = next(
        name
        for name, entry in engines_of(bundle).items()
        if (entry.key.tower, entry.key.precision) == (Tower.IMAGE, Precision.FP32)
    )
    record = read_record(bundle.path(f"{ENGINES}/{name}/{RECORD_FILE}"))
    plan = tmp_path / ENGINE_FILE
    shutil.copy(bundle.path(f"{ENGINES}/{name}/{ENGINE_FILE}"), plan)
    remove_engines(bundle, list(engines_of(bundle)))
    if field == "graph_sha256":
        add_engine(bundle, record, plan)
        other = bundle.graph(Tower.TEXT)
        tower = Tower.IMAGE
        bundle.add("visual.onnx", other, kind="graph", origin="t", tower=tower, precision=Precision.FP32, opset=19)
    else:
        changed = {"version": "0.0.1", "compute_capabilities": ("5.0",)}[field]
        add_engine(bundle, replace(record, key=replace(record.key, **{field: changed})), plan)
    with pytest.raises(EngineError, match="built") as caught:
        clipdeploy.load(folder, backend=device.backend)
    assert "clipdeploy build-engine" in (caught.value.fix or "")


def test_a_file_that_is_no_engine_is_refused(workshop: Workshop, device: Device, tmp_path: Path) -> None:
    workshop.build("fp32", Tower.IMAGE)
    folder = tmp_path / "bundle"
    shutil.copytree(workshop.folder, folder)
    for plan in folder.glob(f"{ENGINES}/*/{ENGINE_FILE}"):
        plan.write_bytes(bytes(plan.stat().st_size))
    bundle = Bundle.open(folder, check_hashes=False)
    engines = find_engines(bundle, device.backend, {Tower.IMAGE: Precision.FP32})
    with pytest.raises(BackendError, match="cannot load"):
        engines.open(Tower.IMAGE)


def test_memory_that_does_not_suffice(workshop: Workshop, device: Device, hog: Callable[[int], None]) -> None:
    workshop.build("fp32", Tower.IMAGE)
    engines = find_engines(Bundle.open(workshop.folder), device.backend, {Tower.IMAGE: Precision.FP32})
    hog(1 << 20)
    with pytest.raises(BackendError, match=r"[\d.]+ MiB of [\d.]+ MiB are free") as caught:
        engines.open(Tower.IMAGE)
    assert caught.value.fix


def test_what_is_taken_is_given_back(workshop: Workshop, device: Device) -> None:
    workshop.build("fp32", Tower.IMAGE)
    rows = inputs(Bundle.open(workshop.folder), Tower.IMAGE, 4)

    def once() -> int:
        with clipdeploy.load(workshop.folder, backend=device.backend, check_hashes=False) as clip:
            clip.encode_pixels(rows)
        return device.cuda.memory()[0]

    once()  # what the product itself keeps
    first = once()
    assert all(first - once() < 1 << 20 for _ in range(5))


def test_threads_share_an_engine(workshop: Workshop, device: Device) -> None:
    workshop.build("fp32", Tower.IMAGE)
    session = open_engine(workshop.folder, device, Tower.IMAGE, Precision.FP32)
    rows = inputs(Bundle.open(workshop.folder), Tower.IMAGE, 8)
    jobs = [rows[: 1 + number % 8] for number in range(64)]
    expected = session.run(rows)
    with ThreadPoolExecutor(8) as pool:
        for batch, answer in zip(jobs, pool.map(session.run, jobs), strict=True):
            assert least_cosine(answer, expected[: len(batch)]) >= COSINE[Precision.FP32]
