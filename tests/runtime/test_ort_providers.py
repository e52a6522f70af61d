"""ONNX Runtime's other providers: asked for with the right options, and proven to have loaded."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clipdeploy.errors import BackendError, InputError, MissingExtraError
from clipdeploy.machine import provider_libraries
from clipdeploy.runtime import ort as ort_room
from clipdeploy.runtime import placement, providers
from clipdeploy.runtime.ort import OrtSession
from clipdeploy.runtime.providers import CPU, CUDA, TENSORRT, TENSORRT_RTX
from tests.bundles import image_weights, text_weights, write_image_graph, write_text_graph

real = pytest.importorskip("onnxruntime", reason="the engine is onnxruntime: pip install 'clipdeploy[cpu]'")
pytest.importorskip("onnx", reason="tiny graphs are written with onnx: pip install 'clipdeploy[export]'")

NO_CUDA = "libcublasLt.so.13: cannot open shared object file: No such file or directory"


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_graph(tmp_path_factory.mktemp("graphs") / "visual.onnx", image_weights())


def node(name: str) -> SimpleNamespace:
    return SimpleNamespace(op_type=name)


class Fake:
    """An onnxruntime that lists providers of GPUs and computes on the CPU.

    Attributes:
        loads: whether a provider loads; if not, the session goes on without it, as the real one does.
        raises: what opening a session on it raises.
        left: operators that such a session leaves to the CPU.
        tells: whether a session tells its placement, as from 1.24 on.
        asked: provider and options of each session on another provider than the CPU's.
    """

    def __init__(self, built_in: tuple[str, ...] = (TENSORRT, CUDA)) -> None:
        self.built_in, self.loads, self.tells = built_in, True, True
        self.raises: Exception | None = None
        self.left: tuple[str, ...] = ("Shape", "Gather", "Concat")
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.entries: dict[str, str] = {}
        self.module = self._module()

    def _module(self) -> ModuleType:
        fake = self
        module = ModuleType("onnxruntime")
        module.__dict__.update(vars(real))
        module.__version__ = "1.99.0"
        module.get_available_providers = lambda: [*fake.built_in, CPU]

        class Options(real.SessionOptions):  # type: ignore[misc]
            device: Any = None

            def add_session_config_entry(self, name: str, value: str) -> None:
                fake.entries[name] = value
                real.SessionOptions.add_session_config_entry(self, name, value)

            def add_provider_for_devices(self, devices: list[Any], options: dict[str, str]) -> None:
                self.device = (devices[0].ep_name, options)

        class Session:
            def __init__(self, path: str, options: Any, *, enable_fallback: bool = True, **more: Any) -> None:
                ((name, settings),) = [p if isinstance(p, tuple) else (p, {}) for p in more.pop("providers", [])] or [
                    options.device
                ]
                if name != CPU:
                    assert not enable_fallback
                    fake.asked.append((name, settings))
                    if fake.raises is not None:
                        raise fake.raises
                self._name = name if fake.loads else CPU
                self._session = real.InferenceSession(path, options, providers=[CPU], **more)

            def get_providers(self) -> list[str]:
                return list(dict.fromkeys([self._name, CPU]))

            def __getattr__(self, name: str) -> Any:
                return getattr(self._session, name)

        if self.tells:
            Session.get_provider_graph_assignment_info = lambda self: [  # type: ignore[attr-defined]
                SimpleNamespace(ep_name=self._name, get_nodes=lambda: [node("MatMul"), node("ReduceL2")]),
                SimpleNamespace(ep_name=CPU, get_nodes=lambda: [node(name) for name in fake.left]),
            ]
        module.SessionOptions, module.InferenceSession = Options, Session
        return module


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fake:
    fake = Fake()
    monkeypatch.setenv("CLIPDEPLOY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "onnxruntime", fake.module)
    monkeypatch.setattr(providers, "preload", lambda ort, provider: None)
    monkeypatch.setattr(providers, "does_not_link", lambda ort, provider: None)
    monkeypatch.setattr(providers, "install_line", lambda backend: f"the line for {backend}")
    return fake


def pixels(count: int = 2) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((count, 3, 32, 32)).astype(np.float32)


def test_cuda_computes_float32_in_float32_and_never_falls_back(fake: Fake, graph: Path) -> None:
    session = OrtSession(graph, provider=CUDA)
    ((name, options),) = fake.asked
    assert name == CUDA
    assert options["use_tf32"] == "0"
    assert options["arena_extend_strategy"] == "kSameAsRequested"
    assert session.name == "onnxruntime:CUDAExecutionProvider"
    assert session.largest_batch is None
    assert np.array_equal(session.run(pixels()), OrtSession(graph).run(pixels()))


def test_tensorrt_is_told_its_batches_and_keeps_what_it_builds(fake: Fake, graph: Path, tmp_path: Path) -> None:
    session = OrtSession(graph, provider=TENSORRT, usual_batch=8)
    ((_, options),) = fake.asked
    assert options["trt_profile_min_shapes"] == "pixel_values:1x3x32x32"
    assert options["trt_profile_opt_shapes"] == "pixel_values:8x3x32x32"
    assert options["trt_profile_max_shapes"] == "pixel_values:32x3x32x32"
    assert session.largest_batch == 32
    assert not {"trt_fp16_enable", "trt_int8_enable", "trt_bf16_enable"} & set(options)  # the graph's own types hold
    folder = Path(options["trt_engine_cache_path"])
    assert folder.is_dir()
    assert folder.is_relative_to(tmp_path / "cache")
    assert options["trt_timing_cache_path"] == str(folder)


@pytest.mark.parametrize("provider", [CUDA, TENSORRT])
def test_what_builds_for_sizes_is_told_the_longest_text(fake: Fake, tmp_path: Path, provider: str) -> None:
    graph = write_text_graph(tmp_path / "textual.onnx", text_weights(100), any_length=True)
    session = OrtSession(graph, provider=provider, usual_batch=8)
    assert session.input.shape == ("batch", 77)
    ((_, options),) = fake.asked
    if provider == TENSORRT:
        assert options["trt_profile_opt_shapes"] == "input_ids:8x77"
    ids = np.random.default_rng(0).integers(1, 100, (3, 77))
    on_cpu = OrtSession(graph)
    assert on_cpu.input.shape == ("batch", "length")
    np.testing.assert_array_equal(session.run(ids), on_cpu.run(ids))
    with pytest.raises(InputError, match=r"must have shape \(N, 77\), got \(3, 10\)"):
        session.run(ids[:, :10])


def test_engines_of_other_weights_and_batches_lie_elsewhere(fake: Fake, graph: Path, tmp_path: Path) -> None:
    other = write_image_graph(tmp_path / "visual.onnx", image_weights() + 1)
    for path, usual in ((graph, 1), (other, 1), (graph, 64), (graph, 1)):
        OrtSession(path, provider=TENSORRT, usual_batch=usual)
    folders = [options["trt_engine_cache_path"] for _, options in fake.asked]
    assert folders[0] == folders[3]
    assert len(set(folders)) == 3
    assert fake.asked[2][1]["trt_profile_max_shapes"] == "pixel_values:64x3x32x32"


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(
    fake: Fake, graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CLIPDEPLOY_CACHE", str(tmp_path / "file"))
    assert OrtSession(graph, provider=TENSORRT).run(pixels()).shape == (2, 16)


@pytest.mark.parametrize("provider", [CUDA, TENSORRT])
def test_a_provider_that_drops_out_in_silence_is_an_error(
    fake: Fake, graph: Path, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.loads = False
    monkeypatch.setattr(providers, "does_not_link", lambda ort, provider: NO_CUDA)
    with pytest.raises(
        BackendError, match=f"{provider} of onnxruntime 1.99.0 is installed but does not load"
    ) as caught:
        OrtSession(graph, provider=provider)
    assert "CUDA 13, which it was made for, is missing" in caught.value.message
    assert NO_CUDA in caught.value.message
    assert caught.value.fix == f"the line for {providers.PROVIDERS[provider]}"


def test_one_that_gives_no_reason_is_an_error_too(fake: Fake, graph: Path) -> None:
    fake.loads = False
    with pytest.raises(BackendError, match=r"does not load \(it gave no reason"):
        OrtSession(graph, provider=CUDA)


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version", "driver is older than"),
        ("CUDA failure 100: no CUDA-capable device is detected", "no GPU is visible to this process"),
        ("CUDA error 209: no kernel image is available for execution on the device", "compute capability"),
        ("Please install TensorRT libraries as mentioned in the GPU requirements page", "TensorRT that it was made"),
        ("libcudnn.so.9: cannot open shared object file", "the cuDNN that it was made for is missing"),
        ("libcudart.so.12: cannot open shared object file", "CUDA 12, which it was made for, is missing"),
        ("libcuda.so.1: cannot open shared object file", "the NVIDIA driver is not installed"),
    ],
)
def test_what_the_engine_says_is_kept_and_its_cause_named(fake: Fake, graph: Path, said: str, cause: str) -> None:
    fake.raises = RuntimeError(said)
    with pytest.raises(BackendError, match=cause) as caught:
        OrtSession(graph, provider=CUDA)
    assert said in caught.value.message
    assert caught.value.fix == "the line for onnxruntime:cuda"
    assert caught.value.__cause__ is fake.raises


def test_a_bad_graph_is_not_blamed_on_the_provider(fake: Fake, tmp_path: Path) -> None:
    path = tmp_path / "visual.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(BackendError, match=r"cannot load .*visual.onnx"):
        OrtSession(path, provider=CUDA)
    assert fake.asked == []


def test_a_gpu_without_memory_is_not_a_broken_provider(fake: Fake, graph: Path) -> None:
    fake.raises = RuntimeError("CUDA failure 2: out of memory ; GPU=0")
    with pytest.raises(BackendError, match=r"memory does not suffice to load .*visual\.onnx") as caught:
        OrtSession(graph, provider=CUDA)
    assert "smaller precision" in (caught.value.fix or "")


def test_work_that_is_left_to_the_cpu_is_an_error(fake: Fake, graph: Path) -> None:
    fake.left = ("Shape", "MatMul", "MatMul", "Softmax")
    with pytest.raises(BackendError, match=r"3 operators that do the work were left to the CPU: 2 MatMul, 1 Softmax"):
        OrtSession(graph, provider=CUDA)
    assert fake.entries["session.record_ep_graph_assignment_info"] == "1"


def test_an_engine_that_cannot_tell_is_watched(fake: Fake, graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The profile is the real engine's, and the real engine computed on the CPU."""
    monkeypatch.setattr(placement, "can_tell", lambda session_class: False)
    with pytest.raises(BackendError, match=r"operators that do the work were left to the CPU: .*(MatMul|Gemm)"):
        OrtSession(graph, provider=CUDA)
    monkeypatch.setattr(placement, "_WORK", ())
    assert OrtSession(graph, provider=CUDA).run(pixels()).shape == (2, 16)


def test_the_real_engine_tells_its_placement(graph: Path) -> None:
    if not placement.can_tell(real.InferenceSession):
        pytest.skip("this onnxruntime is older than 1.24")
    options = real.SessionOptions()
    options.add_session_config_entry(*placement.RECORD)
    session = real.InferenceSession(str(graph), options, providers=[CPU])
    with pytest.raises(BackendError, match="operators that do the work were left to the CPU"):
        placement.check_placement(session, CUDA, graph, lambda: None)


@pytest.mark.parametrize("provider", [CUDA, TENSORRT, TENSORRT_RTX])
def test_a_build_without_the_provider_names_the_line(
    graph: Path, provider: str, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.built_in = ()
    with pytest.raises(BackendError, match=f"has no {provider}, only CPUExecutionProvider") as caught:
        OrtSession(graph, provider=provider)
    assert caught.value.fix == f"the line for {providers.PROVIDERS[provider]}"


def test_an_unknown_provider(graph: Path) -> None:
    with pytest.raises(InputError, match="unknown provider 'cuda'; expected one of CPUExecutionProvider"):
        OrtSession(graph, provider="cuda")


def test_what_this_build_has(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    assert providers.available_providers() == (CPU, CUDA, TENSORRT)
    monkeypatch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))
    assert providers.available_providers() == ()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert providers.available_providers() == ()


@pytest.fixture
def plugin(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Installs NVIDIA's plugin for TensorRT for RTX, and counts its registrations."""
    registered: list[str] = []

    def install(devices: tuple[str, ...] = (TENSORRT_RTX,), error: Exception | None = None) -> list[str]:
        def register(name: str, path: str) -> None:
            if error is not None:
                raise error
            registered.append(f"{name} {path}")

        module = SimpleNamespace(get_ep_name=lambda: TENSORRT_RTX, get_library_path=lambda: "plugin.so")
        monkeypatch.setattr(providers, "find_spec", lambda name: name == "onnxruntime_ep_nv_tensorrt_rtx" or None)
        monkeypatch.setattr(providers, "import_module", lambda name: module)
        fake.module.register_execution_provider_library = register  # type: ignore[attr-defined]
        fake.module.get_ep_devices = lambda: [SimpleNamespace(ep_name=name) for name in (CPU, *devices)]  # type: ignore[attr-defined]
        return registered

    return install


def test_the_plugin_for_rtx_is_registered_once(fake: Fake, graph: Path, plugin: Callable[..., list[str]]) -> None:
    registered = plugin()
    assert providers.available_providers() == (CPU, CUDA, TENSORRT, TENSORRT_RTX)
    sessions = [OrtSession(graph, provider=TENSORRT_RTX, usual_batch=4) for _ in range(2)]
    assert registered == [f"{TENSORRT_RTX} plugin.so"]
    name, options = fake.asked[0]
    assert name == TENSORRT_RTX
    assert options["nv_profile_opt_shapes"] == "pixel_values:4x3x32x32"
    assert Path(options["nv_runtime_cache_path"]).is_dir()
    assert [session.largest_batch for session in sessions] == [32, 32]


def test_a_plugin_that_does_not_load(fake: Fake, graph: Path, plugin: Callable[..., list[str]]) -> None:
    plugin(error=RuntimeError("Failed to load library with error: libcuda.so.1: cannot open shared object file"))
    with pytest.raises(BackendError, match="the NVIDIA driver is not installed"):
        OrtSession(graph, provider=TENSORRT_RTX)


def test_a_plugin_without_a_gpu(fake: Fake, graph: Path, plugin: Callable[..., list[str]]) -> None:
    plugin(devices=())
    with pytest.raises(BackendError, match="finds no GPU that it runs on"):
        OrtSession(graph, provider=TENSORRT_RTX)


def test_a_provider_that_is_built_in_needs_no_plugin(fake: Fake, graph: Path) -> None:
    fake.built_in = (TENSORRT_RTX,)
    OrtSession(graph, provider=TENSORRT_RTX)
    ((_, options),) = fake.asked
    assert "nv_profile_min_shapes" in options


def test_the_linker_is_asked_why(tmp_path: Path) -> None:
    ort = SimpleNamespace(__file__=str(tmp_path / "__init__.py"), get_available_providers=lambda: [TENSORRT, CUDA, CPU])
    assert provider_libraries.does_not_link(ort, CUDA) is None
    (tmp_path / "capi").mkdir()
    for name in ("shared", "cuda"):
        (tmp_path / "capi" / f"libonnxruntime_providers_{name}.so").write_bytes(b"no library" * 100)
    assert "libonnxruntime_providers_shared.so" in (provider_libraries.does_not_link(ort, CUDA) or "")
    assert set(provider_libraries.broken_providers(ort)) == {CUDA}


def test_libraries_from_python_packages_are_loaded_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called: Counter[str] = Counter()

    def preload_dlls() -> None:
        called["preload_dlls"] += 1
        print("Failed to load libcublas.so.13")  # noqa: T201

    def broken_import(name: str) -> None:
        called[name] += 1
        raise ImportError("libnvinfer.so.10")

    monkeypatch.setattr(provider_libraries, "find_spec", lambda name: name)
    monkeypatch.setattr(provider_libraries, "import_module", broken_import)
    provider_libraries.preload(SimpleNamespace(preload_dlls=preload_dlls), CUDA)
    provider_libraries.preload(SimpleNamespace(), TENSORRT)
    assert called == {"preload_dlls": 1, "tensorrt": 1}
    assert capsys.readouterr().out == ""


def test_an_engine_whose_own_parts_are_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libonnxruntime.so: undefined symbol')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "onnxruntime")
    with pytest.raises(BackendError, match="installed but does not import: libonnxruntime"):
        providers.import_onnxruntime()
    (tmp_path / "onnxruntime.py").write_text("import flatbuffers_that_are_gone")
    with pytest.raises(BackendError, match="flatbuffers_that_are_gone"):
        providers.import_onnxruntime()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError):
        providers.import_onnxruntime()


def test_it_takes_the_cores_that_the_process_may_use(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort_room, "usable_cores", lambda: 3)
    for threads, taken in ((None, 3), (1, 1)):
        options = OrtSession(graph, threads=threads)._session.get_session_options()
        assert (options.intra_op_num_threads, options.inter_op_num_threads) == (taken, 1)


@pytest.mark.parametrize(("cores", "threads", "expected"), [(2, None, 1), (2, 1, 2), (16, None, 4), (16, 8, 4)])
def test_no_more_runs_at_once_than_the_cores_have_work_for(
    graph: Path, monkeypatch: pytest.MonkeyPatch, cores: int, threads: int | None, expected: int
) -> None:
    monkeypatch.setattr(ort_room, "usable_cores", lambda: cores)
    session, running, most = OrtSession(graph, threads=threads), 0, 0
    counting = threading.Lock()

    class Slow:
        def run(self, *_: object) -> tuple[np.ndarray]:
            nonlocal running, most
            with counting:
                running += 1
                most = max(most, running)
            time.sleep(0.01)
            with counting:
                running -= 1
            return (np.zeros((1, 1), np.float32),)

    session._session = Slow()
    batch = np.zeros([1 if isinstance(axis, str) else axis for axis in session.input.shape], session.input.dtype)
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(session.run, [batch] * 24))
    assert most == expected


# ---- memory

WIDE = """
import resource, sys
from pathlib import Path
import numpy as np, onnx
from onnx import TensorProto, helper
from clipdeploy.errors import BackendError
from clipdeploy.runtime.ort import OrtSession

folder = Path(sys.argv[1])
x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1024])
y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])
wide = helper.make_node("Concat", ["x"] * 256, ["wide"], axis=1)
mean = helper.make_node("ReduceMean", ["wide"], ["y"], axes=[1])
graph = helper.make_graph([wide, mean], "wide", [x], [y])
path = folder / "wide.onnx"
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)

session = OrtSession(path, threads=1)
rows = np.ones((1024, 1024), np.float32)  # 4 MB, which the graph makes 1 GB of
session.run(rows[:8])
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (300 << 20), held + (300 << 20)))
try:
    session.run(rows)
except BackendError as error:
    print(error)
print(session.run(rows[:8]).mean())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits a process's memory as Linux does")
def test_memory_that_does_not_suffice_names_the_need_and_the_way_out(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WIDE, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "memory does not suffice to run" in done.stdout
    assert "1024 rows at a time" in done.stdout
    assert "fix: pass a smaller batch_size, such as 256" in done.stdout
    assert done.stdout.splitlines()[-1] == "1.0"  # and the session lives on
