from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx", reason="building engines needs the extra: pip install 'clipdeploy[quantize]'")
pytest.importorskip("onnxruntime", reason="the imagined TensorRT computes with it: pip install 'clipdeploy[cpu]'")

from clipdeploy.engine.builder.config import check_options, flags, make_config
from clipdeploy.engine.product import Product
from clipdeploy.engine.records import BuildMachine, BuildOptions
from clipdeploy.errors import EngineError, InputError
from tests.engine.fake_tensorrt import make
from tests.fake_gpu import FakeCuda

VERSIONS = ("tensorrt-10.3.0", "tensorrt-11.4.0", "tensorrt_rtx-1.7.1")
HERE = BuildMachine("8.9")


def product(name: str) -> Product:
    module = make(name, cuda=FakeCuda())
    return Product("tensorrt-rtx" if "rtx" in name else "tensorrt", module, module.__version__)


def configured(made: Product, options: BuildOptions, *, workspace_bytes: int | None = None) -> Any:
    builder = made.module.Builder(made.module.Logger())
    return make_config(builder, made, options, capabilities=("8.6", "8.9"), workspace_bytes=workspace_bytes)


def test_flags_name_what_changes_an_engine() -> None:
    assert flags(BuildOptions()) == ()
    assert flags(BuildOptions(timing_cache=Path("cache"), compute_capabilities=("8.6",))) == ()
    every = BuildOptions(
        version_compatible=True,
        hardware_compatible=True,
        strip_weights=True,
        optimization_level=0,
        workspace_bytes=1024**3,
        detailed=True,
    )
    assert flags(every) == (
        "detailed",
        "hardware-compatible",
        "optimization-level=0",
        "strip-weights",
        "version-compatible",
        "workspace=1024MiB",
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_float32_stays_float32(version: str) -> None:
    made = product(version)
    assert not configured(made, BuildOptions()).get_flag(made.module.BuilderFlag.TF32)


@pytest.mark.parametrize("version", VERSIONS)
def test_options_that_both_products_have(version: str) -> None:
    made = product(version)
    options = BuildOptions(optimization_level=5, strip_weights=True, detailed=True)
    check_options(options, made, HERE)
    config, flag = configured(made, options, workspace_bytes=123), made.module.BuilderFlag
    assert config.builder_optimization_level == 5
    assert config.get_flag(flag.STRIP_PLAN) and config.get_flag(flag.REFIT_IDENTICAL)
    assert not config.get_flag(flag.REFIT)
    assert config.profiling_verbosity is made.module.ProfilingVerbosity.DETAILED
    assert config._state["pools"] == {"WORKSPACE": 123}


@pytest.mark.parametrize(("version", "detailed"), list(zip(VERSIONS, (False, True, True), strict=True)))
def test_layers_are_logged_in_detail_where_nothing_else_tells_them(version: str, detailed: bool) -> None:
    made = product(version)
    verbosity = made.module.ProfilingVerbosity
    expected = verbosity.DETAILED if detailed else verbosity.LAYER_NAMES_ONLY
    config = configured(made, BuildOptions())
    assert config.profiling_verbosity is expected
    assert config._state["pools"] == {}


def test_tensorrt_alone_is_compatible_with_others() -> None:
    made = product("tensorrt-11.4.0")
    options = BuildOptions(version_compatible=True, hardware_compatible=True)
    check_options(options, made, HERE)
    config = configured(made, options)
    assert config.get_flag(made.module.BuilderFlag.VERSION_COMPATIBLE)
    assert config.hardware_compatibility_level is made.module.HardwareCompatibilityLevel.AMPERE_PLUS


def test_rtx_alone_takes_compute_capabilities() -> None:
    made = product("tensorrt_rtx-1.7.1")
    config, capability = configured(made, BuildOptions()), made.module.ComputeCapability
    assert config.num_compute_capabilities == 2
    assert config._state["capabilities"] == {0: capability.SM86, 1: capability.SM89}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (BuildOptions(version_compatible=True), "no lean runtime"),
        (BuildOptions(hardware_compatible=True), r"--compute-capability 8\.6,8\.9,12\.0"),
        (BuildOptions(timing_cache=Path("cache")), r"times no kernels[\s\S]*leave --timing-cache out"),
    ],
)
def test_what_rtx_does_not_have(options: BuildOptions, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        check_options(options, product("tensorrt_rtx-1.7.1"), HERE)


@pytest.mark.parametrize(
    ("capabilities", "here", "message"),
    [
        ((), None, "only where an NVIDIA GPU is"),
        (("8.6",), None, "only where an NVIDIA GPU is"),
        (("8.6", "8.9"), "8.9", r"for one compute capability, not for 8\.6, 8\.9"),
        ((), "8.9", None),
        (("8.6",), "8.9", None),
    ],
)
def test_where_rtx_leaves_weights_out(capabilities: tuple[str, ...], here: str | None, message: str | None) -> None:
    options = BuildOptions(strip_weights=True, compute_capabilities=capabilities)
    if message is None:
        check_options(options, product("tensorrt_rtx-1.7.1"), BuildMachine(here))
        return
    with pytest.raises(EngineError, match=message) as caught:
        check_options(options, product("tensorrt_rtx-1.7.1"), BuildMachine(here))
    assert "--strip-weights" in (caught.value.fix or "")


def test_what_a_jetson_does_not_have() -> None:
    made = product("tensorrt-10.3.0")
    with pytest.raises(EngineError, match="no hardware-compatible engines on a Jetson"):
        check_options(BuildOptions(hardware_compatible=True), made, BuildMachine("8.7", jetson=True))


def test_numbers_out_of_range() -> None:
    made = product("tensorrt-10.3.0")
    with pytest.raises(InputError, match="must be 0 to 5, got 6"):
        check_options(BuildOptions(optimization_level=6), made, HERE)
    with pytest.raises(InputError, match="must be positive"):
        check_options(BuildOptions(workspace_bytes=0), made, HERE)
