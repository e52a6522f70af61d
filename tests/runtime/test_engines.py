"""An engine is taken where its key fits, and refused with all that differs where it does not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clipdeploy.bundle import Bundle, NewFile, create_bundle
from clipdeploy.engine_key import EngineKey, Profile
from clipdeploy.errors import BundleCorruptError, EngineError, InputError
from clipdeploy.runtime.engines import (
    Here,
    build_command,
    choose_engine,
    differences,
    engines_of,
    find_here,
    graph_now,
    graph_sha256,
    stale_engines,
)
from clipdeploy.spec import Precision, Tower, to_dict
from tests.test_bundle import manifest
from tests.test_doctor import SMI, TEGRA, machine
from tests.test_machine import ORIN_CHIP, ORIN_NANO

ORIN = Here("tensorrt", "10.3.0.30", "linux-aarch64", "Jetson Orin Nano", "8.7", "6.2")
RTX = Here("tensorrt-rtx", "1.7.1.116", "linux-x86_64", "NVIDIA GeForce RTX 4090", "8.9", None)
GRAPH = "a" * 64


def key(here: Here = ORIN, graph: str = GRAPH, **changes: Any) -> EngineKey:
    """The key of an engine built on `here`."""
    on_gpu = here.backend == "tensorrt"
    made = EngineKey(
        backend=here.backend,
        version=here.version,
        platform=here.platform,
        gpu=here.gpu if on_gpu else None,
        compute_capabilities=(here.compute_capability or "",),
        jetpack=here.jetpack if on_gpu else None,
        tower=Tower.IMAGE,
        precision=Precision.FP16,
        graph_sha256=graph,
        profiles=(Profile(1, 8, 32),),
    )
    return replace(made, **changes)


def fp16_bundle(tmp_path: Path) -> Bundle:
    """One with an fp16 image graph, which has weights beside it."""
    folder = tmp_path / "bundle"
    (tmp_path / "graph").write_bytes(b"graph")
    told = {"tower": Tower.IMAGE, "precision": Precision.FP16}
    with create_bundle(folder, manifest()) as made:
        made.add("visual_fp16.onnx", tmp_path / "graph", kind="graph", origin="test", **told)  # type: ignore[arg-type]
        made.add("visual_fp16.onnx.data", tmp_path / "graph", kind="weights", origin="test", tower=Tower.IMAGE)
    return Bundle.open(folder)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return fp16_bundle(tmp_path)


def put(bundle: Bundle, engine: EngineKey, *, created: str = "2026-01-01T00:00:00+00:00") -> str:
    """An engine in the bundle; gives its name."""
    work = bundle.folder.parent
    record = {"key": to_dict(engine), "graph": "visual_fp16.onnx", "created": created, "novelty": 1}
    (work / "engine.json").write_text(json.dumps(record))
    (work / "engine.plan").write_bytes(b"plan")
    names = {name: f"engines/{engine.name}/{name}" for name in ("engine.plan", "engine.json")}
    bundle.add_all([NewFile(inside, work / name, "engine", "test") for name, inside in names.items()])
    return engine.name


def own(bundle: Bundle, here: Here = ORIN, **changes: Any) -> EngineKey:
    return key(here, graph_sha256(bundle, "visual_fp16.onnx"), **changes)


def test_an_engine_built_here_runs_here(bundle: Bundle) -> None:
    name = put(bundle, own(bundle))
    entry = choose_engine(Bundle.open(bundle.folder), Tower.IMAGE, Precision.FP16, ORIN)
    assert entry.name == name
    assert entry.key == own(bundle)
    assert entry.path == bundle.folder / "engines" / name / "engine.plan"
    assert (entry.size_bytes, entry.graph) == (4, "visual_fp16.onnx")
    assert list(engines_of(bundle)) == [name]


@pytest.mark.parametrize(
    ("built", "here", "parted"),
    [
        (key(), ORIN, []),
        (key(), replace(ORIN, version="10.3.0.31"), ["version: built for 10.3.0.30, here 10.3.0.31"]),
        (key(), replace(ORIN, version="11.4.1.9"), ["version: built for 10.3.0.30, here 11.4.1.9"]),
        (key(flags=("version-compatible",)), replace(ORIN, version="10.13.2.1"), []),
        (key(flags=("version-compatible",)), replace(ORIN, version="11.4.1.9"), []),
        (key(flags=("version-compatible",)), replace(ORIN, version="12.0.0.1"), ["version"]),
        (key(flags=("version-compatible",)), replace(ORIN, version="10.2.9.9"), ["version"]),
        (key(flags=("version-compatible",), version="11.0.0.1"), ORIN, ["version"]),
        (key(), replace(ORIN, gpu="Jetson AGX Orin"), ["gpu: built for Jetson Orin Nano, here Jetson AGX Orin"]),
        (key(), replace(ORIN, jetpack="6.1"), ["jetpack: built for 6.2, here 6.1"]),
        (key(), replace(ORIN, compute_capability="11.0", gpu="Jetson AGX Thor"), ["compute capability", "gpu"]),
        (key(), replace(ORIN, platform="linux-x86_64"), ["platform: built for linux-aarch64, here linux-x86_64"]),
        (
            key(),
            replace(ORIN, gpu=None, compute_capability=None),
            ["compute capability: built for 8.7, here none", "gpu"],
        ),
        (key(), RTX, ["backend", "platform", "compute capability", "gpu", "jetpack"]),
        (key(flags=("hardware-compatible",)), replace(ORIN, gpu="NVIDIA A10", compute_capability="8.6"), []),
        (key(flags=("hardware-compatible",)), replace(ORIN, compute_capability="12.0"), []),
        (key(flags=("hardware-compatible",)), replace(ORIN, compute_capability="7.5"), ["compute capability"]),
        (key(graph="b" * 64), ORIN, ["graph: built from bbbbbbbbbbbb..., the bundle's is aaaaaaaaaaaa... now"]),
        (key(RTX), RTX, []),
        (key(RTX), replace(RTX, gpu="NVIDIA GeForce RTX 4060"), []),
        (key(RTX, compute_capabilities=("8.6", "8.9")), replace(RTX, compute_capability="8.6"), []),
        (key(RTX), replace(RTX, compute_capability="12.0"), ["compute capability: built for 8.9, here 12.0"]),
        (key(RTX), replace(RTX, version="1.7.2.1"), ["version"]),
    ],
)
def test_what_keeps_an_engine_from_running(built: EngineKey, here: Here, parted: list[str]) -> None:
    found = [str(difference) for difference in differences(built, here, GRAPH)]
    assert len(found) == len(parted)
    assert all(one.startswith(start) for one, start in zip(found, parted, strict=True)), found


def test_a_graph_that_is_gone() -> None:
    (difference,) = differences(key(), ORIN, None)
    assert str(difference) == "graph: built from aaaaaaaaaaaa..., the bundle has none now"


def test_another_machines_engine_is_refused_with_everything_that_differs(bundle: Bundle) -> None:
    thor = replace(ORIN, version="10.13.2.6", gpu="Jetson AGX Thor", compute_capability="11.0", jetpack="7.0")
    far = put(bundle, own(bundle, thor))
    near = put(bundle, own(bundle, profiles=(Profile(1, 1, 4), Profile(5, 32, 64)), flags=("optimization-level=5",)))
    here = replace(ORIN, version="10.3.0.31")
    with pytest.raises(EngineError) as caught:
        choose_engine(bundle, Tower.IMAGE, Precision.FP16, here)
    first, second, third = caught.value.message.splitlines()
    assert first == f"no tensorrt engine of the image tower in fp16 in bundle {bundle.folder} runs here:"
    assert second == f"  {near}: version: built for 10.3.0.30, here 10.3.0.31"
    assert third.startswith(f"  {far}: ")
    for difference in ("version", "compute capability", "gpu", "jetpack"):
        assert f"{difference}: built for " in third
    assert caught.value.fix == (
        f"build it anew on this machine: clipdeploy build-engine {bundle.folder} --tower image --precision fp16 "
        "--backend tensorrt --batch 1,1,4 --batch 5,32,64 --optimization-level 5"
    )


def test_only_the_nearest_are_told(bundle: Bundle) -> None:
    for patch in range(6):
        put(bundle, own(bundle, replace(ORIN, version=f"10.3.1.{patch}")))
    with pytest.raises(EngineError) as caught:
        choose_engine(bundle, Tower.IMAGE, Precision.FP16, ORIN)
    assert len(caught.value.message.splitlines()) == 6
    assert caught.value.message.endswith("  and 2 more")


def test_a_bundle_without_such_an_engine(bundle: Bundle) -> None:
    name = put(bundle, own(bundle))
    told = f"holds no tensorrt-rtx engine of the image tower in fp16; engines it holds: {name}"
    with pytest.raises(EngineError, match=told) as caught:
        choose_engine(bundle, Tower.IMAGE, Precision.FP16, RTX, batch=4)
    command = f"clipdeploy build-engine {bundle.folder} --tower image --precision fp16 --backend tensorrt-rtx"
    assert caught.value.fix == f"build it on this machine: {command} --batch 4,4,4 --compute-capability 8.9"
    with pytest.raises(EngineError, match="no tensorrt engine of the text tower in fp16"):
        choose_engine(bundle, Tower.TEXT, Precision.FP16, ORIN)
    with pytest.raises(EngineError, match="no tensorrt engine of the image tower in fp32"):
        choose_engine(bundle, Tower.IMAGE, Precision.FP32, ORIN)


def test_the_command_quotes_the_folder() -> None:
    command = build_command(
        Path("my bundle"), Tower.TEXT, Precision.FP32, ORIN, like=key(flags=("version-compatible",))
    )
    assert command == (
        "clipdeploy build-engine 'my bundle' --tower text --precision fp32 --backend tensorrt --batch 1,8,32 "
        "--version-compatible"
    )


def test_the_command_has_no_option_for_what_the_build_finds_itself() -> None:
    flags = ("allow=fallback", "rewritten=single-row-as-sums", "strip-weights", "workspace=64MiB")
    command = build_command(Path("b"), Tower.TEXT, Precision.FP32, ORIN, like=key(flags=flags))
    assert command.endswith("--batch 1,8,32 --allow fallback --strip-weights --workspace 64MiB")


def test_the_profile_that_suits_the_batch(bundle: Bundle) -> None:
    one = put(bundle, own(bundle, profiles=(Profile(1, 1, 8),)))
    many = put(bundle, own(bundle, profiles=(Profile(1, 32, 64),)))

    def chosen(batch: int | None) -> str:
        return choose_engine(bundle, Tower.IMAGE, Precision.FP16, ORIN, batch=batch).name

    assert [chosen(batch) for batch in (1, 8, 9, 64)] == [one, one, many, many]
    assert chosen(None) in (one, many)
    with pytest.raises(EngineError, match=r"takes a batch of 65; they take 1\.\.8 and 1\.\.64") as caught:
        chosen(65)
    assert "--batch 65,65,65" in (caught.value.fix or "")


def test_one_for_this_machine_comes_before_a_portable_one_and_the_newest_first(bundle: Bundle) -> None:
    loose = put(bundle, own(bundle, flags=("hardware-compatible", "version-compatible")), created="2026-03-01")
    assert choose_engine(bundle, Tower.IMAGE, Precision.FP16, ORIN).name == loose
    old = put(bundle, own(bundle, flags=("detailed",)), created="2026-01-01")
    assert choose_engine(bundle, Tower.IMAGE, Precision.FP16, ORIN).name == old
    new = put(bundle, own(bundle), created="2026-02-01")
    assert choose_engine(bundle, Tower.IMAGE, Precision.FP16, ORIN).name == new


@pytest.mark.parametrize("changed", ["visual_fp16.onnx", "visual_fp16.onnx.data"])
def test_an_engine_of_another_graph_is_stale(bundle: Bundle, changed: str) -> None:
    name = put(bundle, own(bundle))
    assert stale_engines(bundle) == {}
    other = bundle.folder.parent / "other"
    other.write_bytes(b"other graph")
    entry = bundle.manifest.files[changed]
    bundle.add_all([NewFile(changed, other, entry.kind, "test", tower=entry.tower, precision=entry.precision)])
    assert list(stale_engines(bundle)) == [name]
    with pytest.raises(EngineError, match=rf"{name}: graph: built from \w{{12}}\.\.\., the bundle's is") as caught:
        choose_engine(bundle, Tower.IMAGE, Precision.FP16, ORIN)
    assert "clipdeploy build-engine" in (caught.value.fix or "")


def test_an_engine_without_its_graph_is_stale(bundle: Bundle) -> None:
    name = put(bundle, own(bundle))
    bundle.add_all([], without=["visual_fp16.onnx"])
    assert list(stale_engines(bundle)) == [name]
    assert graph_now(bundle, Tower.IMAGE, Precision.FP16) is None


def test_the_hash_covers_the_weights_beside_the_graph(bundle: Bundle) -> None:
    both = graph_sha256(bundle, "visual_fp16.onnx")
    assert both != bundle.manifest.files["visual_fp16.onnx"].sha256
    bundle.add_all([], without=["visual_fp16.onnx.data"])
    assert graph_sha256(bundle, "visual_fp16.onnx") == bundle.manifest.files["visual_fp16.onnx"].sha256
    with pytest.raises(InputError, match=r"no graph 'visual\.onnx'"):
        graph_sha256(bundle, "visual.onnx")


def test_half_an_engine_is_none(bundle: Bundle) -> None:
    name = put(bundle, own(bundle))
    bundle.add_all([], without=[f"engines/{name}/engine.plan"])
    assert engines_of(bundle) == {}
    # and what lies in the folder without being in the manifest is not of the bundle
    (bundle.folder / "engines" / name / "engine.plan").write_bytes(b"plan")
    assert engines_of(Bundle.open(bundle.folder)) == {}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"key": {"backend": "tensorrt"}, "graph": "", "created": ""}'])
def test_a_record_that_is_none(bundle: Bundle, text: str) -> None:
    name = put(bundle, own(bundle))
    path = bundle.folder.parent / "record"
    path.write_text(text)
    bundle.add(f"engines/{name}/engine.json", path, kind="report", origin="test")
    with pytest.raises(BundleCorruptError, match=r"engine\.json is no record of an engine"):
        engines_of(bundle)


def test_here_is_what_the_machine_says() -> None:
    desktop = find_here("tensorrt-rtx", "1.7.1.116", machine(commands={"nvidia-smi": SMI}))
    assert desktop == RTX
    files = {"/etc/nv_tegra_release": TEGRA, "/proc/device-tree/model": ORIN_NANO}
    files["/proc/device-tree/compatible"] = ORIN_CHIP
    assert find_here("tensorrt", "10.3.0.30", machine(files=files, arch="aarch64")) == ORIN
    bare = find_here("tensorrt", "10.3.0.30", machine())
    assert bare == Here("tensorrt", "10.3.0.30", "linux-x86_64", None, None, None)


TWO = (
    "NVIDIA RTX A2000, 8.6, 6138 MiB, 550.54.14, GPU-aaaa-1, 00000000:01:00.0\n"
    "NVIDIA GeForce RTX 4090, 8.9, 24564 MiB, 550.54.14, GPU-bbbb-2, 00000000:02:00.0\n"
)


@pytest.mark.parametrize(
    ("environment", "gpu"),
    [
        ({"CUDA_VISIBLE_DEVICES": "GPU-bbbb-2"}, "NVIDIA GeForce RTX 4090"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-aaaa,GPU-bbbb"}, "NVIDIA RTX A2000"),
        ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, "NVIDIA RTX A2000"),
        ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "1"}, "NVIDIA GeForce RTX 4090"),
        ({"CUDA_VISIBLE_DEVICES": "2"}, None),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, None),
        ({"CUDA_VISIBLE_DEVICES": ""}, None),
    ],
)
def test_of_several_gpus_the_environment_tells_which(environment: dict[str, str], gpu: str | None) -> None:
    probes = replace(machine(commands={"nvidia-smi": TWO}), environment=environment)
    assert find_here("tensorrt", "10.3.0.30", probes).gpu == gpu


@pytest.mark.parametrize("environment", [{}, {"CUDA_VISIBLE_DEVICES": "1"}, {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}])
def test_gpus_that_differ_are_not_guessed_between(environment: dict[str, str]) -> None:
    probes = replace(machine(commands={"nvidia-smi": TWO}), environment=environment)
    with pytest.raises(EngineError, match=r"it cannot be told which of them CUDA uses: NVIDIA RTX A2000") as caught:
        find_here("tensorrt", "10.3.0.30", probes)
    assert "CUDA_VISIBLE_DEVICES=GPU-aaaa-1" in (caught.value.fix or "")
    alike = replace(probes, run=lambda command: SMI * 2)
    assert find_here("tensorrt-rtx", "1.7.1.116", alike) == RTX


def test_names_tell_keys_apart() -> None:
    assert key().name.startswith("visual_fp16_tensorrt-10.3.0.30_sm87_")
    assert key().name != key(profiles=(Profile(1, 1, 1),)).name
    assert len(key().digest) == 8
    with pytest.raises(InputError, match="1 <= MIN <= OPT <= MAX, got 4,2,8"):
        Profile(4, 2, 8)
