from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="building engines needs the extra: pip install 'clipdeploy[quantize]'")

from clipdeploy.engine.builder.memory import MIB, MemoryPlan, plan_memory, show
from clipdeploy.engine.builder.outline import Outline
from clipdeploy.engine.product import Product
from clipdeploy.engine.records import BuildMachine, BuildOptions
from clipdeploy.errors import EngineError

FULL = Product("tensorrt", None, "10.3.0")
RTX = Product("tensorrt-rtx", None, "1.7.1")


def plan(
    machine: BuildMachine, *, product: Product = FULL, options: BuildOptions | None = None, graph_mib: int = 350
) -> MemoryPlan:
    outline = Outline(Path("visual.onnx"), 19, (), (), frozenset(), graph_mib * MIB)
    return plan_memory(outline, options or BuildOptions(), product, machine)


def jetson(free_mib: int) -> BuildMachine:
    return BuildMachine("8.7", free_mib * MIB, free_mib * MIB, jetson=True)


def test_a_jetson_caps_the_scratch_memory_at_half_of_what_is_left() -> None:
    made = plan(jetson(6650))
    assert made.needed_bytes == (1600 + 3 * 350) * MIB
    assert made.workspace_bytes == (6650 - 2650) // 2 * MIB
    assert made.warnings == ()


def test_a_full_jetson_is_warned_and_keeps_the_least() -> None:
    made = plan(jetson(1800))
    assert made.workspace_bytes == 256 * MIB
    (warning,) = made.warnings
    assert "takes about 2.6 GiB of memory, 1.8 GiB are free: it may fail" in warning
    assert "add swap" in warning


def test_what_cannot_fit_is_refused_before_building() -> None:
    with pytest.raises(
        EngineError, match=r"takes about 2\.6 GiB of memory, 600 MiB are free[\s\S]*close other programs"
    ):
        plan(jetson(600))


def test_a_gpu_of_its_own_gives_what_is_free() -> None:
    made = plan(BuildMachine("8.9", 64_000 * MIB, 10_000 * MIB))
    assert made.workspace_bytes == 8000 * MIB
    assert plan(BuildMachine("8.9", 64_000 * MIB)).workspace_bytes is None


def test_rtx_runs_nothing_while_it_builds() -> None:
    assert plan(BuildMachine("8.9", 64_000 * MIB, 10_000 * MIB), product=RTX).workspace_bytes is None


def test_what_the_user_asks_for_is_taken() -> None:
    options = BuildOptions(workspace_bytes=512 * MIB)
    for product in (FULL, RTX):
        made = plan(BuildMachine("8.9", 64_000 * MIB, 10_000 * MIB), product=product, options=options)
        assert (made.workspace_bytes, made.warnings) == (512 * MIB, ())
    small = plan(BuildMachine("8.9", 64_000 * MIB, 100 * MIB), options=options)
    assert small.workspace_bytes == 512 * MIB
    assert small.warnings == ("--workspace asks for 512 MiB, and 100 MiB of the GPU's are free",)


def test_nothing_known_is_no_reason_to_refuse() -> None:
    made = plan(BuildMachine())
    assert (made.workspace_bytes, made.free_bytes, made.warnings) == (None, None, ())


@pytest.mark.parametrize(("count", "text"), [(512 * MIB, "512 MiB"), (1536 * MIB, "1.5 GiB")])
def test_bytes_for_people(count: int, text: str) -> None:
    assert show(count) == text
