"""OpenVINO: the same answers, what is refused, threads, and what the graph is rewritten into."""

from __future__ import annotations

import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from clipdeploy.errors import BackendError, InputError, MissingExtraError
from clipdeploy.runtime import openvino as session_module
from clipdeploy.runtime.openvino import OpenVinoSession, available_devices, compiled_size
from clipdeploy.runtime.ort import OrtSession
from clipdeploy.runtime.ov import product
from clipdeploy.runtime.ov.rewrite import rewrite
from clipdeploy.spec import Precision, TensorSpec
from tests.bundles import EMBED_DIM, IMAGE_SIZE, image_weights, text_weights, write_image_graph, write_text_graph

pytest.importorskip("openvino", reason="the engine is openvino: pip install 'clipdeploy[openvino]'")
pytest.importorskip("onnx", reason="tiny graphs are written with onnx: pip install 'clipdeploy[import]'")

PATCH, WIDTH = 8, 32


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_graph(tmp_path_factory.mktemp("graphs") / "visual.onnx", image_weights())


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_patches(tmp_path_factory.mktemp("graphs") / "visual_int8.onnx")


def pixels(count: int = 3) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((count, 3, IMAGE_SIZE, IMAGE_SIZE)).astype(np.float32)


def expected(batch: np.ndarray) -> np.ndarray:
    rows = batch.reshape(len(batch), -1) @ image_weights()
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def write_patches(path: Path) -> Path:
    """Patches -> rows of 32 -> layer norm -> Q/DQ -> matrix with Q/DQ -> (N, 16), as the exporter lays it out."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(7)
    tokens = (IMAGE_SIZE // PATCH) ** 2
    constants = {
        "kernel": rng.standard_normal((WIDTH, 3, PATCH, PATCH)).astype(np.float32),
        "planes": np.array([0, WIDTH, tokens], np.int64),
        "rows": np.array([-1, WIDTH], np.int64),
        "gamma": rng.uniform(0.5, 1.5, WIDTH).astype(np.float32),
        "beta": rng.standard_normal(WIDTH).astype(np.float32),
        "scale": np.array(0.04, np.float32),
        "zero": np.array(0, np.int8),
        "matrix": rng.integers(-127, 128, (WIDTH, EMBED_DIM)).astype(np.int8),
        "matrix_scale": np.array(0.01, np.float32),
        "grid": np.array([-1, tokens, EMBED_DIM], np.int64),
        "axis": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["pixel_values", "kernel"], ["patches"], strides=[PATCH, PATCH]),
        helper.make_node("Reshape", ["patches", "planes"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["tokens"], perm=[0, 2, 1]),
        helper.make_node("Reshape", ["tokens", "rows"], ["rows_in"]),
        helper.make_node("LayerNormalization", ["rows_in", "gamma", "beta"], ["normed"], axis=-1, epsilon=1e-5),
        helper.make_node("QuantizeLinear", ["normed", "scale", "zero"], ["normed_q"]),
        helper.make_node("DequantizeLinear", ["normed_q", "scale", "zero"], ["normed_dq"]),
        helper.make_node("DequantizeLinear", ["matrix", "matrix_scale", "zero"], ["matrix_dq"]),
        helper.make_node("MatMul", ["normed_dq", "matrix_dq"], ["features"]),
        helper.make_node("Reshape", ["features", "grid"], ["features_3d"]),
        helper.make_node("ReduceMean", ["features_3d", "axis"], ["image_embeds"], keepdims=0),
    ]
    made = helper.make_graph(
        nodes,
        "patches",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, IMAGE_SIZE, IMAGE_SIZE])],
        [helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["batch", EMBED_DIM])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    return path


def run_by_onnx(path: Path, batch: np.ndarray) -> np.ndarray:
    from onnx.reference import ReferenceEvaluator

    answer: np.ndarray = ReferenceEvaluator(str(path)).run(None, {"pixel_values": batch})[0]
    return answer


@pytest.mark.parametrize("rows", [1, 2, 7, 8, 33])
def test_it_computes_the_graph_at_any_batch(graph: Path, rows: int) -> None:
    session = OpenVinoSession(graph, usual_batch=8)
    answer = session.run(pixels(rows))
    assert answer.dtype == np.float32
    assert answer.flags.owndata
    np.testing.assert_allclose(answer, expected(pixels(rows)), rtol=0, atol=1e-5)


def test_it_knows_its_tensors(graph: Path, tmp_path: Path) -> None:
    session = OpenVinoSession(graph, threads=1)
    assert session.name == "openvino:CPU"
    assert session.largest_batch is None
    assert session.input == TensorSpec("pixel_values", "float32", ("batch", 3, IMAGE_SIZE, IMAGE_SIZE))
    assert session.output == TensorSpec("image_embeds", "float32", ("batch", EMBED_DIM))
    text = OpenVinoSession(write_text_graph(tmp_path / "textual.onnx", text_weights(9)))
    assert text.input == TensorSpec("input_ids", "int64", ("batch", 77))
    ids = np.arange(2 * 77).reshape(2, 77) % 9
    rows = text_weights(9)[ids].mean(axis=1)
    np.testing.assert_allclose(text.run(ids), rows / np.linalg.norm(rows, axis=1, keepdims=True), rtol=0, atol=1e-6)


def test_texts_of_any_length(tmp_path: Path) -> None:
    graph = write_text_graph(tmp_path / "textual.onnx", text_weights(100), any_length=True)
    session, other = OpenVinoSession(graph), OrtSession(graph)
    assert session.input == other.input == TensorSpec("input_ids", "int64", ("batch", "length"))
    ids = np.random.default_rng(0).integers(1, 100, (5, 77))
    for length in (1, 8, 77, 16, 8):
        cut = ids[:, :length]  # no contiguous array
        np.testing.assert_allclose(session.run(cut), other.run(cut), atol=1e-6)


def test_on_a_gpu_texts_have_the_longest_length(tmp_path: Path) -> None:
    for name, any_length in (("free", True), ("fixed", False)):
        graph = write_text_graph(tmp_path / f"{name}.onnx", text_weights(100), any_length=any_length)
        model = product.core().read_model(str(graph))
        session_module._fix_length(model)
        batch, length = model.input(0).get_partial_shape()
        assert batch.is_dynamic
        assert length.get_length() == 77


def test_it_takes_arrays_as_they_come(graph: Path) -> None:
    session = OpenVinoSession(graph)
    plain = session.run(pixels())
    assert np.array_equal(session.run(np.repeat(pixels(), 2, axis=3)[..., ::2]), plain)
    frozen = pixels()
    frozen.flags.writeable = False
    assert np.array_equal(session.run(frozen), plain)
    shifted = np.frombuffer(b"?" + pixels().tobytes(), np.uint8)[1:].view(np.float32).reshape(pixels().shape)
    assert not shifted.flags.aligned
    assert np.array_equal(session.run(shifted), plain)


def test_an_answer_stays_what_it_is(graph: Path) -> None:
    session = OpenVinoSession(graph)
    first = session.run(pixels())
    kept = first.copy()
    for _ in range(4):
        session.run(-pixels())
    assert np.array_equal(first, kept)


def test_a_batch_is_not_changed(graph: Path) -> None:
    batch = pixels(7)
    OpenVinoSession(graph, usual_batch=8).run(batch)
    assert np.array_equal(batch, pixels(7))


@pytest.mark.parametrize("batch", [pixels().astype(np.float64), pixels()[0], pixels(0), pixels()[:, :2]])
def test_it_refuses_what_it_does_not_take(graph: Path, batch: np.ndarray) -> None:
    with pytest.raises(InputError, match="pixel_values must"):
        OpenVinoSession(graph).run(batch)


def test_which_batches_are_filled_up() -> None:
    assert [compiled_size(rows, 1) for rows in (1, 2, 100)] == [1, 0, 0]
    assert [compiled_size(rows, 8) for rows in (1, 6, 7, 8, 9)] == [0, 0, 8, 8, 0]
    assert [compiled_size(rows, 32) for rows in (27, 28, 32, 33)] == [0, 32, 32, 0]


def test_a_text_encoder_is_compiled_once(tmp_path: Path, graph: Path) -> None:
    texts, pixels = (
        OpenVinoSession(write_text_graph(tmp_path / "textual.onnx", text_weights(99))),
        OpenVinoSession(graph),
    )
    for rows in (1, 3):
        texts.run(np.full((rows, 77), 3, np.int64))
        pixels.run(np.zeros((rows, 3, IMAGE_SIZE, IMAGE_SIZE), np.float32))
    assert list(texts._compiled) == [0]
    assert list(pixels._compiled) == [1, 0]


def test_what_others_left_in_the_room_changes_nothing(graph: Path) -> None:
    session = OpenVinoSession(graph, usual_batch=8)
    before = session.run(pixels(7))
    session.run(1e3 * pixels(8)[1:])
    session.run(pixels(8))
    assert np.array_equal(session.run(pixels(7)), before)


def test_24_threads_get_what_one_gets(quantised: Path) -> None:
    batches = [pixels(rows) + np.float32(rows) for rows in (1, 2, 7, 8, 9, 33)]
    with_one = OpenVinoSession(quantised, precision=Precision.INT8, usual_batch=8)
    alone = [with_one.run(batch) for batch in batches]
    shared, start = OpenVinoSession(quantised, precision=Precision.INT8, usual_batch=8), Barrier(24)

    def work(seed: int) -> bool:
        start.wait()
        order = np.random.default_rng(seed).integers(0, len(batches), 40)
        return all(np.array_equal(shared.run(batches[index]), alone[index]) for index in order)

    with ThreadPoolExecutor(24) as pool:
        assert all(pool.map(work, range(24)))


def test_a_closed_session_says_so(graph: Path) -> None:
    session = OpenVinoSession(graph)
    session.run(pixels(1))
    session.close()
    session.close()
    for rows in (1, 3):
        with pytest.raises(BackendError, match=r"the session of visual\.onnx is closed"):
            session.run(pixels(rows))


def test_closing_waits_for_those_that_run(graph: Path) -> None:
    session, start = OpenVinoSession(graph), Barrier(5)

    def work() -> str:
        start.wait()
        try:
            while True:
                np.testing.assert_allclose(session.run(pixels(1)), expected(pixels(1)), rtol=0, atol=1e-5)
        except BackendError as error:
            return error.message

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(work) for _ in range(4)]
        start.wait()
        session.close()
        assert {future.result(timeout=60) for future in running} == {"the session of visual.onnx is closed"}


def test_nothing_is_kept_of_calls_and_threads(graph: Path) -> None:
    # In a process of its own: what other tests leave behind is not counted.
    script = f"""
import sys, threading
from pathlib import Path
import numpy as np
from clipdeploy.runtime.openvino import OpenVinoSession
session = OpenVinoSession(Path({str(graph)!r}))
batch = np.zeros((1, 3, {IMAGE_SIZE}, {IMAGE_SIZE}), np.float32)
def calls(n):
    for _ in range(n): session.run(batch.copy())
def threads(n):
    for _ in range(n):
        thread = threading.Thread(target=calls, args=(5,)); thread.start(); thread.join()
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])
calls(500); threads(50)
before = resident()
calls(3000); threads(200)
sys.exit(f"{{before}} -> {{resident()}} pages" if resident() > 1.02 * before else 0)
"""
    if not Path("/proc/self/statm").exists():
        pytest.skip("memory is read from /proc, which this system does not have")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
def test_a_rewritten_graph_computes_the_same(quantised: Path, rows: int, precision: Precision) -> None:
    # one step of the 8 bits, 0.04, through the matrix, spread over 16 tokens; bf16 keeps 8 bits too
    session = OpenVinoSession(quantised, precision=precision, usual_batch=rows)
    np.testing.assert_allclose(session.run(pixels(rows)), run_by_onnx(quantised, pixels(rows)), rtol=0, atol=0.05)


def test_what_is_rewritten(quantised: Path) -> None:
    model = product.core().read_model(str(quantised))

    def kinds() -> list[str]:
        return [node.get_type_name() for node in model.get_ordered_ops()]

    def norms() -> list[Any]:
        return [node.get_input_partial_shape(0) for node in model.get_ordered_ops() if node.get_type_name() == "MVN"]

    assert "Convolution" in kinds()
    assert [shape.rank.get_length() for shape in norms()] == [2]
    rewrite(model)
    assert "Convolution" not in kinds()
    assert [shape.rank.get_length() for shape in norms()] == [3]
    model.reshape([2, 3, IMAGE_SIZE, IMAGE_SIZE])
    compiled = product.core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    computed = compiled(pixels(2))[0]
    np.testing.assert_allclose(computed, run_by_onnx(quantised, pixels(2)), rtol=0, atol=0.02)


def test_a_convolution_that_overlaps_stays(tmp_path: Path, quantised: Path) -> None:
    import onnx

    made = onnx.load(str(quantised))
    convolution = made.graph.node[0]
    del convolution.attribute[:]
    # one pixel around the picture; as many patches as before
    convolution.attribute.extend(
        [onnx.helper.make_attribute("strides", [PATCH, PATCH]), onnx.helper.make_attribute("pads", [1, 1, 1, 1])]
    )
    onnx.save(made, str(tmp_path / "padded.onnx"))
    model = product.core().read_model(str(tmp_path / "padded.onnx"))
    rewrite(model)
    assert "Convolution" in [node.get_type_name() for node in model.get_ordered_ops()]


# --- what a device is told ---


class FakeCore:
    """A machine with the devices and the number formats that a test asks for."""

    def __init__(self, devices: dict[str, list[str]]) -> None:
        self._devices = devices
        self.available_devices = list(devices)

    def get_property(self, device: str, name: str) -> Any:
        return {
            "FULL_DEVICE_NAME": f"a {device}",
            "OPTIMIZATION_CAPABILITIES": self._devices[device],
            "SUPPORTED_PROPERTIES": {"PERFORMANCE_HINT": "RW", "INFERENCE_PRECISION_HINT": "RW"},
        }[name]


PLAIN, AMX, GPU = ["FP32", "FP16", "INT8"], ["FP32", "FP16", "BF16", "INT8"], ["FP32", "FP16", "INT8"]


@pytest.mark.parametrize(
    ("device", "can", "precision", "computes_in"),
    [
        ("CPU", AMX, "fp32", "f32"),
        ("CPU", AMX, "fp16", "f32"),
        ("CPU", AMX, "bf16", "bf16"),
        ("CPU", AMX, "int8", "bf16"),
        ("CPU", PLAIN, "int8", "f32"),
        ("CPU", PLAIN, "fp16", "f32"),
        ("GPU", GPU, "fp32", "f32"),
        ("GPU", GPU, "fp16", "f16"),
        ("GPU", GPU, "int8", "f16"),
    ],
)
def test_what_is_computed_in(
    monkeypatch: pytest.MonkeyPatch, device: str, can: list[str], precision: str, computes_in: str
) -> None:
    monkeypatch.setattr(product, "core", lambda: FakeCore({device: can}))
    assert product.settings(device, Precision(precision), None)["INFERENCE_PRECISION_HINT"] == computes_in


def test_this_machine_computes_fp32_in_fp32(graph: Path) -> None:
    """It would take bf16 by itself where it has it."""
    compiled = product.core().compile_model(str(graph), "CPU", product.settings("CPU", Precision.FP32, 2))
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    assert compiled.get_property("INFERENCE_NUM_THREADS") <= 2


def test_bf16_needs_a_processor_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product, "core", lambda: FakeCore({"CPU": PLAIN}))
    with pytest.raises(BackendError, match=r"CPU does not compute in bf16; it has FP16, FP32, INT8"):
        product.settings("CPU", Precision.BF16, None)


def test_fp8_is_refused(graph: Path) -> None:
    with pytest.raises(BackendError, match="does not compute in fp8"):
        OpenVinoSession(graph, precision=Precision.FP8)


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch, graph: Path) -> None:
    monkeypatch.setattr(product, "core", lambda: FakeCore({"CPU": PLAIN}))
    with pytest.raises(BackendError, match=r"finds no Intel GPU here; it finds: CPU \(a CPU\)") as caught:
        OpenVinoSession(graph, device="gpu")
    assert "intel-opencl-icd" in str(caught.value.fix) or "x86" in str(caught.value.fix)


def test_a_gpu_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product, "core", lambda: FakeCore({"CPU": PLAIN, "GPU.0": GPU, "GPU.1": GPU}))
    assert product.require_device("gpu") == "GPU"


def test_the_devices_of_this_machine() -> None:
    assert "CPU" in available_devices()


# --- what goes wrong ---


def test_not_installed(monkeypatch: pytest.MonkeyPatch, graph: Path) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError) as caught:
        OpenVinoSession(graph)
    assert "clipdeploy[openvino]" in str(caught.value)


def raises(error: Exception) -> Any:
    def function(*_: object, **__: object) -> Any:
        raise error

    return function


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libopenvino.so.2620: cannot open shared object file"),
        OSError("libtbb.so.12: wrong ELF class"),
        ModuleNotFoundError("No module named 'openvino._pyopenvino'", name="openvino._pyopenvino"),
    ],
)
def test_installed_but_broken(monkeypatch: pytest.MonkeyPatch, graph: Path, error: Exception) -> None:
    monkeypatch.setattr(product, "import_module", raises(error))
    with pytest.raises(BackendError, match="openvino is installed but does not load: ") as caught:
        OpenVinoSession(graph)
    assert str(error) in caught.value.message
    assert caught.value.__cause__ is error


def test_too_old(monkeypatch: pytest.MonkeyPatch, graph: Path) -> None:
    old = ModuleType("openvino")
    old.Core, old.__version__ = object, "2025.2.0-19140-c01cd93e24d-releases/2025/2"  # type: ignore[attr-defined]
    monkeypatch.setattr(product, "import_module", lambda name: old)
    with pytest.raises(BackendError, match=r"openvino 2025\.2\.0.* is too old; 2025\.3 or later"):
        OpenVinoSession(graph)


def test_the_extra_asks_for_the_oldest_that_will_do() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    year, number = product._OLDEST
    assert f'openvino = ["openvino>={year}.{number}"]' in project


def test_a_file_that_is_no_graph(tmp_path: Path, graph: Path) -> None:
    with pytest.raises(BackendError, match=r"openvino \d+\S* cannot load .*none\.onnx on CPU: there is no such file"):
        OpenVinoSession(tmp_path / "none.onnx")
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(graph.read_bytes()[:1000])
    with pytest.raises(BackendError, match=r"cannot load .*cut\.onnx on CPU: ") as caught:
        OpenVinoSession(cut)
    assert "src/" not in caught.value.message


def test_what_openvino_says_is_made_short() -> None:
    error = RuntimeError(
        "Exception from src/inference/src/cpp/core.cpp:117:\nException from src/inference/src/dev/plugin.cpp:54:\n"
        "Check 'ptr' failed at src/plugins/intel_cpu/src/cpu_memory.cpp:257:\nFailed to allocate 9437184 bytes\n\n\n"
    )
    assert product.said(error) == "Failed to allocate 9437184 bytes"
    error = RuntimeError("Model wasn't converted:\nSummary:\n-- No conversion rule found for: Foo\n-- Failed for: \n")
    assert product.said(error) == "No conversion rule found for: Foo"
    assert product.said(MemoryError()) == "MemoryError"


def test_a_graph_of_onnx_runtime_only(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("QAttention", ["pixel_values"], ["image_embeds"], domain="com.microsoft")],
        "one",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["batch", 4])],
    )
    domains = [helper.make_opsetid("", 19), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=domains, ir_version=9), str(tmp_path / "cpu.onnx"))
    with pytest.raises(BackendError, match="operators of ONNX Runtime's own") as caught:
        OpenVinoSession(tmp_path / "cpu.onnx", precision=Precision.INT8)
    assert 'backend="onnxruntime"' in str(caught.value.fix)


def test_memory_that_does_not_suffice(monkeypatch: pytest.MonkeyPatch, graph: Path) -> None:
    session = OpenVinoSession(graph)
    monkeypatch.setattr(session, "_library", ModuleType("openvino"))
    session._library.__version__ = "2026.4.1"

    class Full(FakeCore):
        compile_model = staticmethod(raises(MemoryError("std::bad_alloc")))

    monkeypatch.setattr(session_module, "core", lambda: Full({"CPU": PLAIN}))
    with pytest.raises(BackendError, match=r"cannot compile .* on CPU: std::bad_alloc") as caught:
        session.run(pixels(5))
    assert "smaller" in str(caught.value.fix)
    assert len(session.run(pixels(1))) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process are set as on Linux")
@pytest.mark.parametrize("limited", [True, False])
def test_memory_that_does_not_even_hold_the_graph(monkeypatch: pytest.MonkeyPatch, graph: Path, limited: bool) -> None:
    less = 2 * graph.stat().st_size - 1
    monkeypatch.setattr(session_module, "_left_of_addresses" if limited else "free_memory_bytes", lambda: less)
    with pytest.raises(BackendError, match=r"cannot load .*: reading it takes 0 MiB of memory, 0 MiB are free"):
        OpenVinoSession(graph)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process are set as on Linux")
def test_a_limit_on_the_process_is_seen() -> None:
    script = """
import resource
from clipdeploy.runtime.openvino import _left_of_addresses
assert _left_of_addresses() is None
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
assert 1 << 30 < _left_of_addresses() < 8 << 30
"""
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        pytest.skip("this process has a limit already")
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_run_that_fails_says_with_what(monkeypatch: pytest.MonkeyPatch, graph: Path) -> None:
    session = OpenVinoSession(graph)
    compiled = session._for(1)
    monkeypatch.setattr(compiled, "_tensor", raises(MemoryError("std::bad_alloc")))
    with pytest.raises(BackendError, match=r"openvino:CPU failed on .* with pixel_values float32 \(1, 3, 32, 32\): "):
        session.run(pixels(1))
    monkeypatch.undo()
    np.testing.assert_allclose(session.run(pixels(1)), expected(pixels(1)), rtol=0, atol=1e-5)


def test_nobody_is_told_that_it_was_imported() -> None:
    """The wheel brings a reporter of its own, which sends at each import unless the user has declined."""
    pytest.importorskip("openvino_telemetry")
    program = (
        "import sys; from clipdeploy.runtime.ov.product import import_openvino; import_openvino()\n"
        "from openvino.tools import ovc\n"
        "print(type(ovc.telemetry).__module__, 'openvino_telemetry' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["openvino.tools.ovc.telemetry_stub", "False"]
