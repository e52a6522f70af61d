"""The line for NVIDIA's own tool says what the builder is told."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("onnx", reason="the tiny bundles are written with onnx")

import onnx

from clipdeploy.engine.product import Product
from clipdeploy.engine.records import BuildOptions
from clipdeploy.engine.trtexec import trtexec_line
from clipdeploy.engine_key import EngineBackend, Profile
from clipdeploy.errors import EngineError
from tests.bundles import IMAGE_SIZE, make_bundle

ROW = f"3x{IMAGE_SIZE}x{IMAGE_SIZE}"


def product(version: str, backend: EngineBackend = "tensorrt") -> Product:
    return Product(backend, ModuleType("tensorrt"), version)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny") / "visual.onnx"


def words(graph: Path, made: Product, plan: str = "e.plan", **options: object) -> list[str]:
    line = trtexec_line(graph, Path(plan), BuildOptions(**options), made)  # type: ignore[arg-type]
    return shlex.split(line, comments=True)


def test_tensorrt_10_is_told_to_take_types_from_the_graph(graph: Path) -> None:
    assert words(graph, product("10.3.0"), profiles=(Profile(1, 8, 32),)) == [
        "trtexec",
        f"--onnx={graph}",
        "--saveEngine=e.plan",
        "--stronglyTyped",
        f"--minShapes=pixel_values:1x{ROW}",
        f"--optShapes=pixel_values:8x{ROW}",
        f"--maxShapes=pixel_values:32x{ROW}",
        "--noTF32",
        "--skipInference",
    ]


def test_tensorrt_11_knows_nothing_else(graph: Path) -> None:
    assert "--stronglyTyped" not in words(graph, product("11.4.0.106"))
    assert "--stronglyTyped" in words(graph, product("10.16.1"))


def test_several_profiles_are_numbered(graph: Path) -> None:
    line = words(graph, product("10.3.0"), profiles=(Profile(1, 1, 1), Profile(2, 16, 32)))
    shapes = [word.split("=")[0] for word in line if "Shapes" in word or "profile" in word]
    assert shapes == ["--profile", "--minShapes", "--optShapes", "--maxShapes"] * 2
    assert [word for word in line if word.startswith("--profile")] == ["--profile=0", "--profile=1"]


def test_every_option_of_tensorrt(graph: Path) -> None:
    line = words(
        graph,
        product("10.3.0"),
        workspace_bytes=512 * 1024**2,
        timing_cache=Path("cache.timing"),
        version_compatible=True,
        hardware_compatible=True,
        strip_weights=True,
        optimization_level=4,
        detailed=True,
    )
    assert {
        "--memPoolSize=workspace:512M",
        "--timingCacheFile=cache.timing",
        "--versionCompatible",
        "--hardwareCompatibilityLevel=ampere+",
        "--stripWeights",
        "--builderOptimizationLevel=4",
        "--profilingVerbosity=detailed",
    } <= set(line)


def test_the_tool_of_rtx(graph: Path) -> None:
    options = BuildOptions(compute_capabilities=("8.6", "12.0"), strip_weights=True, workspace_bytes=1024**2)
    line = trtexec_line(graph, Path("e.plan"), options, product("1.7.1.116", "tensorrt-rtx"))
    told = shlex.split(line, comments=True)
    assert told[0] == "tensorrt_rtx"
    assert {"--computeCapabilities=86,120", "--stripWeights", "--skipInference"} <= set(told)
    assert not any(word.startswith(("--stronglyTyped", "--memPoolSize")) for word in told)
    assert line.endswith("  # without TF32 switched off and a workspace of 1 MiB: no flag is documented")


def test_a_fixed_batch_takes_no_shapes(graph: Path, tmp_path: Path) -> None:
    model = onnx.load(graph)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    fixed = tmp_path / "fixed.onnx"
    onnx.save(model, fixed)
    assert not any("Shapes" in word for word in words(fixed, product("10.3.0"), profiles=(Profile(4, 4, 4),)))


def test_a_path_with_a_space_is_one_word(graph: Path) -> None:
    assert "--saveEngine=my engines/e.plan" in words(graph, product("10.3.0"), plan="my engines/e.plan")


def test_a_graph_that_is_not_there_yet(graph: Path, tmp_path: Path) -> None:
    later = tmp_path / "visual_int8.onnx"
    line = trtexec_line(later, Path("e.plan"), BuildOptions(), product("10.3.0"), like=graph)
    assert f"--onnx={later}" in line
    assert f"pixel_values:1x{ROW}" in line
    with pytest.raises(EngineError):
        trtexec_line(later, Path("e.plan"), BuildOptions(), product("10.3.0"))
