"""Every call that we make on a TensorRT, against the recorded API of each version: see `tests/engine/api`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engine.api import NAMES, load, parse, read
from tests.engine.api.record import dumps, recorded, signatures
from tests.engine.api.usage import examine
from tests.engine.fake_tensorrt import make

ROOT = Path(__file__).parents[2]
FOLDERS = ("clipdeploy/engine", "clipdeploy/building", "clipdeploy/runtime/trt")
FILES = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
FILES += [ROOT / "clipdeploy/runtime/tensorrt.py"]

MISSING_ON_10_3 = """
from typing import Any

def build(product: Any, logger: Any) -> Any:
    module = product.module
    builder = module.Builder(logger)
    network = builder.create_network(1, 2)
    config = builder.create_builder_config()
    config.max_num_tactics = 4
    config.set_flag(module.BuilderFlag.FP16)
    if hasattr(config, "tiling_optimization_level"):
        config.tiling_optimization_level = module.TilingOptimizationLevel.FAST
    if product.rtx:
        config.num_compute_capabilities = 1
    builder.num_DLA_cores = 3
    return helper(builder, network, config)

def helper(first: Any, second: Any, third: Any) -> Any:
    first.build_serialized_network(second, configs=third)
    return first.build_serialized_network_to_stream(second, third, None)

class Monitors:
    def attach(self, product: Any) -> Any:
        class Monitor(product.module.IProgressMonitor):
            def phase_finish(self, phase_name: str, steps: int) -> None:
                pass

        return Monitor()
"""


@pytest.mark.parametrize("name", NAMES)
def test_every_call_exists(name: str) -> None:
    usage = examine(FILES, load(name), root=ROOT)
    assert not usage.problems, "\n".join(map(str, sorted(usage.problems)))
    assert not usage.blind, f"not followed; name the variable as others do: {sorted(usage.blind)}"


def test_calls_are_followed() -> None:
    """The builder, the runtime and the refitter are seen, each through several functions."""
    uses = examine(FILES, load("tensorrt-10.3.0"), root=ROOT).uses
    assert {
        ("module", "OnnxParser"),
        ("Builder", "build_serialized_network"),
        ("IBuilderConfig", "set_timing_cache"),
        ("IOptimizationProfile", "set_shape"),
        ("IProgressMonitor", "step_complete"),
        ("ParserError", "node_operator"),
        ("ITimingCache", "serialize"),
        ("Runtime", "deserialize_cuda_engine"),
        ("OnnxParserRefitter", "refit_from_file"),
        ("IExecutionContext", "execute_async_v3"),
    } <= uses


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "tensorrt-10.3.0",
            {
                7: "Builder.create_network: takes 1 arguments, given 2",
                9: "IBuilderConfig has no max_num_tactics",
                15: "Builder.num_DLA_cores cannot be set",
                19: "Builder.build_serialized_network: takes no keyword configs",
                20: "Builder has no build_serialized_network_to_stream",
                25: "IProgressMonitor.phase_finish is called with",
            },
        ),
        ("tensorrt-11.4.0", {7: "takes 1", 10: "BuilderFlag has no FP16", 15: "set", 19: "configs", 25: "called with"}),
        (
            "tensorrt_rtx-1.7.1",
            {7: "takes 1", 10: "BuilderFlag has no FP16", 15: "set", 19: "configs", 25: "called with"},
        ),
    ],
)
def test_a_call_that_a_version_lacks_is_found(tmp_path: Path, name: str, lines: dict[int, str]) -> None:
    (tmp_path / "wrong.py").write_text(MISSING_ON_10_3)
    problems = sorted(examine([tmp_path / "wrong.py"], load(name)).problems, key=lambda p: int(p.place.split(":")[1]))
    assert [problem.place for problem in problems] == [f"wrong.py:{line}" for line in lines]
    for problem, text in zip(problems, lines.values(), strict=True):
        assert text in problem.text
        assert problem.api == name


def test_what_cannot_be_followed_is_told(tmp_path: Path) -> None:
    (tmp_path / "dim.py").write_text("def run(thing):\n    return thing.execute_async_v3(0)\n")
    assert examine([tmp_path / "dim.py"], load(NAMES[0])).blind == {"dim.py:2: thing.execute_async_v3"}


@pytest.mark.parametrize("module_name", ["tensorrt", "tensorrt_rtx"])
def test_the_installed_product(module_name: str) -> None:
    """Whichever version is installed has all we call; and it is as recorded where that version is."""
    module = pytest.importorskip(module_name, reason=f"{module_name} is not installed", exc_type=ImportError)
    record = json.loads(dumps(recorded(module, "installed")))
    name = f"{module_name}-{module.__version__}"
    usage = examine(FILES, read(name, record), root=ROOT)
    assert not usage.problems, "\n".join(map(str, sorted(usage.problems)))
    known = next((n for n in NAMES if load(n).version == module.__version__ and n.startswith(f"{module_name}-")), None)
    if known is not None:
        told = json.loads((Path(__file__).parent / "api" / f"{known}.json").read_text())
        assert {**record, "source": ""} == {**told, "source": ""}


@pytest.mark.parametrize("name", NAMES)
def test_records_say_where_they_are_from(name: str) -> None:
    api = load(name)
    assert api.version.startswith(name.rpartition("-")[2])
    assert api.source
    assert len(api.kinds) > 50


def test_what_is_known_of_the_versions() -> None:
    """A few facts of NVIDIA's migration guides, so that a record of the wrong file is noticed."""
    old, _, new, rtx = (load(name) for name in NAMES)
    assert old.member("BuilderFlag", "FP16")
    assert not new.member("BuilderFlag", "FP16")
    assert old.kinds["NetworkDefinitionCreationFlag"].members == {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}
    assert new.kinds["NetworkDefinitionCreationFlag"].members["STRONGLY_TYPED"] == 0
    assert old.member("ICudaEngine", "device_memory_size")
    assert not new.member("ICudaEngine", "device_memory_size")
    assert rtx.top("ComputeCapability")
    assert not new.top("ComputeCapability")
    assert rtx.rtx
    assert not new.rtx


def test_signatures_of_the_bindings() -> None:
    def overloaded() -> None:
        pass

    overloaded.__doc__ = (
        "f(*args, **kwargs)\nOverloaded function.\n\n1. f(self: tensorrt.A, name: str, n: typing.SupportsInt = 3) -> "
        "List[tensorrt.Dims]\n\n  text\n\n2. f(self: tensorrt.A, arg0: Tuple[int, str], "
        "how: tensorrt.B.C = <C.WARNING: 2>) -> None\n"
    )
    texts = signatures(overloaded, bound=True)
    assert texts == [
        "(name: str, n: int = 3) -> list[Dims]",
        "(arg0: tuple[int, str], how: B.C = C.WARNING) -> None",
    ]
    first, second = map(parse, texts)
    assert first.problem(1) is None
    assert first.problem(1, ("n",)) is None
    assert first.problem(0) == "misses name"
    assert first.problem(3) == "takes 2 arguments, given 3"
    assert second.problem(0, ("arg0",)) == "takes no keyword arg0"


class TestTheImaginedProduct:
    """It refuses what the real bindings refuse."""

    @pytest.fixture(params=NAMES)
    def module(self, request: pytest.FixtureRequest) -> Any:
        from tests.fake_gpu import FakeCuda

        return make(request.param, cuda=FakeCuda())

    def test_names(self, module: Any) -> None:
        builder = module.Builder(module.Logger())
        with pytest.raises(AttributeError):
            _ = builder.build_cuda_engine
        with pytest.raises(AttributeError):
            builder.max_batch_size = 3
        with pytest.raises(AttributeError):
            builder.num_DLA_cores = 3
        with pytest.raises(AttributeError):
            _ = module.BuilderFlag.NO_SUCH_FLAG
        with pytest.raises(AttributeError):
            _ = module.IInt8Calibrator

    def test_arguments(self, module: Any) -> None:
        with pytest.raises(TypeError):
            module.Builder()
        builder = module.Builder(module.Logger())
        config = builder.create_builder_config()
        for wrong in (
            lambda: builder.create_network(1, 2),
            lambda: builder.create_network(flag=1),
            lambda: builder.create_network("1"),
            lambda: config.set_flag(3),
            lambda: config.set_flag(module.ProfilingVerbosity.DETAILED),
            lambda: config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE),
            lambda: config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, 1.5),
            lambda: config.create_timing_cache("text"),
            lambda: module.OnnxParser(config, module.Logger()),
            lambda: module.ICudaEngine(),
        ):
            with pytest.raises(TypeError):
                wrong()
        with pytest.raises(TypeError):
            config.builder_optimization_level = "high"
        with pytest.raises(TypeError):
            _ = 1 << module.BuilderFlag.REFIT

    def test_a_subclass_must_begin_with_its_base(self, module: Any) -> None:
        class Silent(module.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                self.lines: list[str] = []

        with pytest.raises(TypeError, match="must be called"):
            module.Builder(Silent())

    def test_what_it_does_not_act_out_is_told(self, module: Any) -> None:
        config = module.Builder(module.Logger()).create_builder_config()
        with pytest.raises(NotImplementedError, match="get_tactic_sources"):
            config.get_tactic_sources()
