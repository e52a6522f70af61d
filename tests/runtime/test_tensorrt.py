"""Engines at work, on a GPU of the imagination; tests/gpu does the same on a real one."""

from __future__ import annotations

import gc
import importlib
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the tiny bundles are written with onnx")
pytest.importorskip("onnxruntime", reason="the GPU of the imagination computes with it: pip install 'clipdeploy[cpu]'")

import clipdeploy
from clipdeploy.bundle import Bundle, NewFile
from clipdeploy.engine_key import Profile
from clipdeploy.errors import BackendError, BundleCorruptError, EngineError, InputError, MissingExtraError
from clipdeploy.machine import Gpu, Hardware, Jetson
from clipdeploy.runtime.engines import find_here
from clipdeploy.runtime.tensorrt import find_engines
from clipdeploy.runtime.trt.cuda import Cuda
from clipdeploy.runtime.trt.product import import_cuda, import_product
from clipdeploy.runtime.trt.session import choose_profile
from clipdeploy.spec import Precision, Tower
from tests.bundles import IMAGE_SIZE, image_weights, make_bundle, write_image_graph
from tests.fake_gpu import CudaError, FakeCuda, fake_product, install, put_engine

BOTH = dict.fromkeys(Tower, Precision.FP32)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.open(make_bundle(tmp_path / "tiny"))


def pixels(count: int, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, IMAGE_SIZE, IMAGE_SIZE)).astype(np.float32)


def expected(batch: np.ndarray) -> np.ndarray:
    rows = batch.reshape(len(batch), -1).astype(np.float64) @ image_weights()
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize(("backend", "version"), [("tensorrt", "10.3.0"), ("tensorrt-rtx", "1.7.1.116")])
def test_a_bundle_of_engines(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: Any, version: str
) -> None:
    cuda, _ = install(monkeypatch, backend=backend, version=version)
    for tower in Tower:
        put_engine(bundle, tower, tmp_path, backend=backend, version=version)
    texts = ["a dog", "", "zebra " * 50]
    with clipdeploy.load(bundle) as plain, clipdeploy.load(bundle, backend=backend) as clip:
        assert clip.backend.name == backend
        assert f"{version} on Fake GPU, compute capability 8.9" in clip.backend.reason
        np.testing.assert_allclose(clip.encode_pixels(pixels(3)), expected(pixels(3)), rtol=0, atol=1e-5)
        np.testing.assert_allclose(clip.encode_text(texts), plain.encode_text(texts), rtol=0, atol=1e-6)
        picture = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        labels = ["a dog", "a cat"]
        assert clip.classify(picture, labels).label == plain.classify(picture, labels).label
        assert cuda.used > 0
    assert cuda.used == 0
    assert not cuda.queue
    with pytest.raises(BackendError, match="closed"):
        clip.encode_pixels(pixels(1))


def test_batches_of_every_size(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, product = install(monkeypatch)
    put_engine(bundle, Tower.IMAGE, tmp_path, bands=[[1, 1, 1], [2, 4, 8], [12, 12, 12]])
    session = find_engines(bundle, "tensorrt", BOTH).open(Tower.IMAGE)
    assert session.largest_batch == 12
    for count in (1, 2, 5, 8, 9, 12, 3, 1):  # 9 has no profile of its own and is filled up to 12
        batch = pixels(count, seed=count)
        product.notes.clear()
        np.testing.assert_allclose(session.run(batch), expected(batch), rtol=0, atol=1e-5)
        assert ("rows", 12 if count == 9 else count) in product.notes
    with pytest.raises(InputError, match="takes batches of 1 to 1 and 2 to 8 and 12 to 12, got 13") as caught:
        session.run(pixels(13))
    assert "build-engine --batch 1,8,13" in (caught.value.fix or "")
    with pytest.raises(InputError, match="pixel_values must be float32"):
        session.run(pixels(1).astype(np.float64))
    session.close()
    session.close()
    with pytest.raises(BackendError, match="closed"):
        session.run(pixels(1))


def test_a_small_batch_never_meets_what_memory_held_before(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id of 0xCDCDCDCD would be read far outside of the embedding table."""
    install(monkeypatch)
    put_engine(bundle, Tower.TEXT, tmp_path, bands=[[4, 4, 4]])
    with clipdeploy.load(bundle) as plain, clipdeploy.load(bundle, backend="tensorrt") as clip:
        np.testing.assert_allclose(clip.encode_text("a dog"), plain.encode_text("a dog"), rtol=0, atol=1e-6)


def test_a_clip_cuts_its_batches_to_the_engine(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, product = install(monkeypatch)
    put_engine(bundle, Tower.IMAGE, tmp_path, bands=[[1, 2, 4]])
    with clipdeploy.load(bundle, backend="tensorrt") as clip:
        np.testing.assert_allclose(clip.encode_pixels(pixels(11)), expected(pixels(11)), rtol=0, atol=1e-5)
    assert [note for note in product.notes if note[0] == "rows"] == [("rows", 4), ("rows", 4), ("rows", 3)]


@pytest.mark.parametrize(
    ("bands", "rows", "index"),
    [
        ([(1, 8, 32)], 32, 0),
        ([(1, 1, 1), (1, 8, 32)], 1, 0),
        ([(1, 8, 32), (1, 1, 1)], 1, 1),
        ([(1, 8, 32), (4, 4, 4)], 2, 0),
        ([(8, 8, 8), (16, 16, 16)], 3, 0),
        ([(8, 8, 8), (16, 16, 16)], 9, 1),
    ],
)
def test_which_profile(bands: list[tuple[int, int, int]], rows: int, index: int) -> None:
    assert choose_profile([Profile(*band) for band in bands], rows) == index


def test_one_encoder_is_enough(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    with pytest.raises(EngineError, match="holds no tensorrt engine of the image tower in fp32") as caught:
        clipdeploy.load(bundle, backend="tensorrt")
    assert "clipdeploy build-engine" in (caught.value.fix or "")
    put_engine(bundle, Tower.IMAGE, tmp_path)
    with clipdeploy.load(bundle, backend="tensorrt") as clip:
        assert "text encoder: no engine" in clip.backend.reason
        assert clip.encode_pixels(pixels(1)).shape == (1, 16)
        with pytest.raises(EngineError, match="no tensorrt engine of the text tower in fp32") as caught:
            clip.encode_text("a dog")
    assert "--tower text --precision fp32 --backend tensorrt" in (caught.value.fix or "")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"version": "10.13.0"}, "version: built for 10.13.0, here 10.3.0"),
        ({"gpu": "Other GPU"}, "gpu: built for Other GPU, here Fake GPU"),
        ({"compute_capabilities": ("8.6",)}, "compute capabilit.*: built for 8.6, here 8.9"),
        ({"platform": "linux-aarch64"}, "platform: built for linux-aarch64"),
        ({"jetpack": "6.1"}, "jetpack: built for 6.1, here none"),
    ],
)
def test_an_engine_of_another_key_is_refused(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], told: str
) -> None:
    install(monkeypatch)
    put_engine(bundle, Tower.IMAGE, tmp_path, **changes)
    with pytest.raises(EngineError, match=told) as caught:
        clipdeploy.load(bundle, backend="tensorrt")
    assert "clipdeploy build-engine" in (caught.value.fix or "")


def test_an_engine_of_another_graph_is_refused(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    put_engine(bundle, Tower.IMAGE, tmp_path)
    other = write_image_graph(tmp_path / "other.onnx", image_weights(seed=9))
    bundle.add("visual.onnx", other, kind="graph", origin="t", tower=Tower.IMAGE, precision=Precision.FP32, opset=19)
    with pytest.raises(EngineError, match="graph: built from"):
        clipdeploy.load(bundle, backend="tensorrt")


def test_a_jetson_goes_by_the_name_of_its_module(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, jetpack="6.1")
    put_engine(bundle, Tower.IMAGE, tmp_path, gpu="Module", jetpack="6.1")
    with clipdeploy.load(bundle, backend="tensorrt") as clip:
        assert "on Module, compute capability 8.9" in clip.backend.reason


def test_a_stripped_engine_gets_its_weights_back(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, product = install(monkeypatch)
    put_engine(bundle, Tower.IMAGE, tmp_path, flags=("strip-weights",))
    with clipdeploy.load(bundle, backend="tensorrt") as clip:
        np.testing.assert_allclose(clip.encode_pixels(pixels(2)), expected(pixels(2)), rtol=0, atol=1e-5)
    assert ("refit", "visual.onnx") in product.notes
    graph = bundle.path("visual.onnx")
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    product.notes.clear()
    with pytest.raises(BundleCorruptError, match=r"visual.onnx is altered"):
        find_engines(bundle, "tensorrt", BOTH).open(Tower.IMAGE)
    assert ("refit", "visual.onnx") not in product.notes


def test_a_stripped_engine_that_takes_no_weights(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, product = install(monkeypatch)
    put_engine(bundle, Tower.IMAGE, tmp_path, flags=("strip-weights",))
    monkeypatch.setattr(product.OnnxParserRefitter, "refit_from_file", lambda self, model: False)
    with pytest.raises(BackendError, match=r"weights of visual.onnx back.*1 weights are missing, such as weights"):
        find_engines(bundle, "tensorrt", BOTH).open(Tower.IMAGE)


def test_code_in_an_engine_runs_only_where_it_is_the_one_that_was_built(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, product = install(monkeypatch, version="10.4.0")
    put_engine(bundle, Tower.TEXT, tmp_path, version="10.4.0")
    key = put_engine(bundle, Tower.IMAGE, tmp_path, flags=("version-compatible",))
    engines = find_engines(bundle, "tensorrt", BOTH)
    engines.open(Tower.TEXT).close()
    assert product.notes == [("host code", False)]
    engines.open(Tower.IMAGE).close()
    assert product.notes[1:] == [("host code", True)]
    plan = bundle.path(f"engines/{key.name}/engine.plan")
    plan.write_bytes(plan.read_bytes()[:-1] + b" ")
    with pytest.raises(BundleCorruptError, match=r"engine.plan is altered"):
        engines.open(Tower.IMAGE)


@pytest.mark.parametrize("content", [b"", b"not an engine"])
def test_a_file_that_is_no_engine(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    install(monkeypatch)
    key = put_engine(bundle, Tower.IMAGE, tmp_path)
    engines = find_engines(bundle, "tensorrt", BOTH)
    bundle.path(f"engines/{key.name}/engine.plan").write_bytes(content)
    with pytest.raises(BackendError, match=r"Magic tag does not match|cannot read the engine") as caught:
        engines.open(Tower.IMAGE)
    assert "clipdeploy build-engine" in (caught.value.fix or "")
    assert "--overwrite" in (caught.value.fix or "")


@pytest.mark.parametrize(
    ("total", "told"),
    [
        (1 << 19, r"memory of Fake GPU does not suffice for its 0.0 MiB; 0.5 MiB of 0.5 MiB are free"),
        (1 << 20, r"intermediate results need 4.0 MiB of memory on Fake GPU; 1.0 MiB of 1.0 MiB are free"),
        (5 << 20, r"512 rows of pixel_values need 6.0 MiB of memory on Fake GPU; 1.0 MiB of 5.0 MiB are free"),
    ],
)
def test_memory_that_does_not_suffice(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: int, told: str
) -> None:
    cuda, _ = install(monkeypatch, total=total)
    put_engine(bundle, Tower.IMAGE, tmp_path, bands=[[1, 8, 512]], scratch=4 << 20)
    with clipdeploy.load(bundle, backend="tensorrt") as clip, pytest.raises(BackendError, match=told) as caught:
        clip.encode_pixels(pixels(1))
    assert caught.value.fix
    assert cuda.left == (0, 0, 0, 0, 0)


def test_memory_of_the_machine_that_does_not_suffice(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda, _ = install(monkeypatch)
    cuda.most_pinned = 4096
    put_engine(bundle, Tower.IMAGE, tmp_path, bands=[[1, 8, 512]])
    told = r"512 rows of pixel_values need 6.0 MiB of memory of the machine that stays in place"
    with pytest.raises(BackendError, match=told):
        find_engines(bundle, "tensorrt", BOTH).open(Tower.IMAGE)
    assert cuda.left == (0, 0, 0, 0, 0)


def test_a_failure_of_the_gpu_is_told(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, product = install(monkeypatch)
    put_engine(bundle, Tower.IMAGE, tmp_path)
    session = find_engines(bundle, "tensorrt", BOTH).open(Tower.IMAGE)
    cuda.failing = CudaError.cudaErrorInvalidResourceHandle
    with pytest.raises(BackendError, match="CUDA failed in computing: cudaErrorInvalidResourceHandle: in words"):
        session.run(pixels(1))
    cuda.failing = None
    monkeypatch.setattr(product.IExecutionContext, "execute_async_v3", lambda self, stream_handle: False)
    with pytest.raises(BackendError, match=r"tensorrt:Fake GPU failed on .*engine.plan with pixel_values float32 \(2,"):
        session.run(pixels(2))
    session.close()
    assert cuda.left == (0, 0, 0, 0, 0)


@pytest.mark.parametrize("by", ["CUDA", "TensorRT"])
def test_a_broken_gpu_says_that_the_process_is_to_start_again(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    cuda, _ = install(monkeypatch)
    put_engine(bundle, Tower.IMAGE, tmp_path)
    session = find_engines(bundle, "tensorrt", BOTH).open(Tower.IMAGE)
    session.run(pixels(1))
    cuda.sticky = CudaError.cudaErrorIllegalAddress
    if by == "TensorRT":  # which meets it first, and says nothing of it
        monkeypatch.setattr(Cuda, "upload", lambda *given: None)
    for _ in range(2):
        with pytest.raises(BackendError, match=r"IllegalAddress.*nothing runs on Fake GPU in this process") as caught:
            session.run(pixels(1))
        assert "start the process again" in (caught.value.fix or "")
    session.close()


def test_a_session_that_is_forgotten_gives_its_memory_back(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda, _ = install(monkeypatch)
    put_engine(bundle, Tower.IMAGE, tmp_path)
    session = find_engines(bundle, "tensorrt", BOTH).open(Tower.IMAGE)
    assert cuda.used == 4 * (3 * IMAGE_SIZE * IMAGE_SIZE + 16) * 4
    for _ in range(5):
        session.run(pixels(1))
    assert cuda.graphs
    del session
    gc.collect()
    assert cuda.left == (0, 0, 0, 0, 0)


def test_threads_take_turns(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    put_engine(bundle, Tower.IMAGE, tmp_path, bands=[[1, 1, 1], [2, 3, 4]])
    session = find_engines(bundle, "tensorrt", BOTH).open(Tower.IMAGE)
    jobs = [pixels(1 + number % 4, seed=number) for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for batch, answer in zip(jobs, pool.map(session.run, jobs), strict=True):
            np.testing.assert_allclose(answer, expected(batch), rtol=0, atol=1e-5)


def test_it_stays_on_the_gpu_that_it_was_loaded_on(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda, _ = install(monkeypatch)
    put_engine(bundle, Tower.IMAGE, tmp_path)
    cuda.device = 1
    session = find_engines(bundle, "tensorrt", BOTH).open(Tower.IMAGE)
    cuda.device = 0
    session.run(pixels(1))
    assert cuda.seen_devices == [1, 0]


@pytest.mark.parametrize(("index", "name", "capability"), [(0, "Fake GPU", "8.9"), (1, "Second GPU", "8.6")])
def test_built_and_loaded_for_the_gpu_that_cuda_uses(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: int, name: str, capability: str
) -> None:
    """nvidia-smi's first GPU is another one than CUDA's."""
    cuda, _ = install(monkeypatch)
    cuda.devices, cuda.device = 2, index
    here = find_here("tensorrt", "10.3.0")  # what building keys the engine by
    assert (here.gpu, here.compute_capability) == (name, capability)
    put_engine(bundle, Tower.IMAGE, tmp_path, gpu=here.gpu, compute_capabilities=(here.compute_capability,))
    with clipdeploy.load(bundle, backend="tensorrt") as clip:
        assert f"on {name}, compute capability {capability}" in clip.backend.reason
        assert clip.encode_pixels(pixels(1)).shape == (1, 16)
    cuda.device = 1 - index
    with pytest.raises(EngineError, match=f"gpu: built for {name}, here "):
        clipdeploy.load(bundle, backend="tensorrt")


@pytest.mark.parametrize("without", ["cuda-python", "a CUDA that starts"])
def test_without_cuda_the_gpu_is_what_nvidia_smi_tells(monkeypatch: pytest.MonkeyPatch, without: str) -> None:
    cuda, _ = install(monkeypatch)
    cuda.start = CudaError.cudaErrorInsufficientDriver
    if without == "cuda-python":
        for module in ("cuda.bindings.runtime", "cuda.cudart"):
            monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    here = find_here("tensorrt", "10.3.0")
    assert (here.gpu, here.compute_capability) == ("Other GPU", "8.6")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert find_here("tensorrt", "10.3.0").gpu is None


@pytest.mark.parametrize(
    ("start", "driver", "told", "fix"),
    [
        ("cudaErrorInsufficientDriver", 0, "no NVIDIA driver is loaded", 'backend="onnxruntime"'),
        (
            "cudaErrorInsufficientDriver",
            12060,
            "made for CUDA 13.0, .* takes up to CUDA 12.6",
            "cuda-python>=12.6,<13'",
        ),
        ("cudaErrorNoDevice", 12060, "cudaErrorNoDevice: in words", "clipdeploy doctor"),
    ],
)
def test_no_gpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, start: str, driver: int, told: str, fix: str) -> None:
    cuda, _ = install(monkeypatch)
    cuda.start, cuda.driver, cuda.library = CudaError[start], driver, 13000
    with pytest.raises(BackendError, match=told) as caught:
        clipdeploy.load(bundle, backend="tensorrt")
    assert fix in (caught.value.fix or "")


def on_a_jetson(monkeypatch: pytest.MonkeyPatch, jetpack: str | None) -> None:
    jetson = None if jetpack is None else Jetson(board=None, l4t="36.4.3", jetpack=jetpack)
    hardware = Hardware(jetson=jetson, gpus=(), silent_driver=None)
    monkeypatch.setattr("clipdeploy.runtime.trt.product.find_hardware", lambda: hardware)


@pytest.mark.parametrize(
    ("backend", "jetpack", "fix"),
    [
        ("tensorrt", None, "pip install 'clipdeploy[tensorrt]'"),
        ("tensorrt-rtx", None, "pip install 'clipdeploy[tensorrt-rtx]'"),
        ("tensorrt", "6.2", "sudo apt install python3-libnvinfer, and make virtual environments with --system-site-"),
    ],
)
def test_a_missing_product(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, backend: Any, jetpack: str | None, fix: str
) -> None:
    on_a_jetson(monkeypatch, jetpack)
    monkeypatch.setattr("clipdeploy.runtime.trt.product.is_installed", lambda backend: False)
    with pytest.raises(BackendError if jetpack else MissingExtraError) as caught:
        clipdeploy.load(bundle, backend=backend)
    assert fix in (caught.value.fix or "")


@pytest.mark.parametrize(("driver", "fix"), [("580.65", "clipdeploy[tensorrt-rtx]"), ("535.1", "'tensorrt-rtx-cu12")])
def test_a_missing_product_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch, driver: str, fix: str) -> None:
    hardware = Hardware(None, (Gpu("RTX", "8.9", "24564 MiB", driver),), None)
    monkeypatch.setattr("clipdeploy.runtime.trt.product.find_hardware", lambda: hardware)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(MissingExtraError, match="tensorrt-rtx") as caught:
        import_product("tensorrt-rtx")
    assert fix in (caught.value.fix or "")


def test_a_product_whose_libraries_do_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_jetson(monkeypatch, None)
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(BackendError, match=r"installed but does not load: libnvinfer.so.10"):
        import_product("tensorrt")


@pytest.mark.parametrize(
    ("jetpack", "fix"),
    [(None, "clipdeploy[tensorrt]"), ("6.1", "cuda-python>=12.6,<13"), ("7.1", "cuda-python>=13")],
)
def test_missing_cuda_python(monkeypatch: pytest.MonkeyPatch, jetpack: str | None, fix: str) -> None:
    on_a_jetson(monkeypatch, jetpack)
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError if jetpack else MissingExtraError, match="needs cuda-python") as caught:
        import_cuda("tensorrt")
    assert fix in (caught.value.fix or "")


def test_an_older_cuda_python(monkeypatch: pytest.MonkeyPatch) -> None:
    older = FakeCuda()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    monkeypatch.setitem(sys.modules, "cuda.cudart", older)
    assert import_cuda("tensorrt") is older


def test_graphs_that_engines_stand_for(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    for precision, target in ((Precision.BF16, None), (Precision.INT8, "tensorrt"), (Precision.INT8, "cpu")):
        name, source = Tower.IMAGE.graph_name(precision, target), bundle.graph(Tower.IMAGE)
        new = NewFile(name, source, "graph", "t", tower=Tower.IMAGE, precision=precision, opset=19, target=target)
        bundle.add_all([new])
        if target != "cpu":
            put_engine(bundle, Tower.IMAGE, tmp_path, precision=precision)
    with clipdeploy.load(bundle, precision="bf16", backend="tensorrt") as clip:
        assert clip.precisions[Tower.IMAGE] is Precision.BF16
    with clipdeploy.load(bundle, precision="int8", backend="tensorrt") as clip:
        assert clip.graph(Tower.IMAGE).name == "visual_int8.onnx"
        assert "made for TensorRT" not in clip.backend.reason
        assert clip.encode_pixels(pixels(2)).shape == (2, 16)
    with pytest.raises(InputError, match="runs no 8-bit graphs of target cpu"):
        clipdeploy.load(bundle, precision="int8", backend="tensorrt", target="cpu")


def test_the_fakes_know_no_name_that_the_real_ones_lack() -> None:
    real = pytest.importorskip("cuda.bindings.runtime", reason="needs cuda-python")
    ours = [name for name in dir(FakeCuda) if name.startswith("cuda")]
    assert [name for name in ours if not hasattr(real, name)] == []
    assert all(hasattr(real.cudaError_t, error.name) for error in CudaError)
    assert real.cudaError_t.cudaErrorInsufficientDriver == CudaError.cudaErrorInsufficientDriver.value
    Cuda(FakeCuda())


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_the_fake_product_knows_no_name_that_the_real_one_lacks(name: str) -> None:
    try:
        real = importlib.import_module(name)
    except ImportError:
        pytest.skip(f"needs {name}")
    fake = fake_product(FakeCuda())
    for kind in ("ICudaEngine", "IExecutionContext", "Runtime", "Refitter", "OnnxParserRefitter", "DataType"):
        names = [n for n in vars(getattr(fake, kind)) if not n.startswith("_")]
        assert [n for n in names if not hasattr(getattr(real, kind), n)] == []
