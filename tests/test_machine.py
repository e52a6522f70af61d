"""What a machine is, of machines that we play."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clipdeploy.machine import (
    Gpu,
    find_hardware,
    free_gpu_memory_bytes,
    free_memory_bytes,
    platform_tag,
    this_machine,
)
from clipdeploy.machine.jetson import parse_jetson
from tests.test_doctor import SMI, TEGRA, machine

ORIN_NANO = "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0"
ORIN_CHIP = "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0"
JETSON_SMI = "Orin (nvgpu), [N/A], [N/A], 540.4.0\n"


@pytest.mark.parametrize(
    ("release", "package", "l4t", "jetpack"),
    [
        ("# R36 (release), REVISION: 4.4, GCID: 1", None, "36.4.4", "6.2.1"),
        ("# R36 (release), REVISION: 9.9, GCID: 1", None, "36.9.9", "6"),
        ("# R36 (release), REVISION: 4.4, GCID: 1", "6.2.1+b38", "36.4.4", "6.2.1"),
        ("# R38 (release), REVISION: 2.0, GCID: 1", None, "38.2.0", "7.0"),
        ("# R38 (release), REVISION: 4, GCID: 1", None, "38.4", "7.1"),
        ("# R77 (release), REVISION: 1.0, GCID: 1", None, "77.1.0", None),
    ],
)
def test_jetpack_versions(release: str, package: str | None, l4t: str, jetpack: str | None) -> None:
    found = parse_jetson(release, jetpack_package=package, board=None)
    assert found is not None
    assert (found.l4t, found.jetpack) == (l4t, jetpack)


def test_an_unknown_release_file_is_no_jetson() -> None:
    assert parse_jetson("hello", jetpack_package=None, board=None) is None


@pytest.mark.parametrize(
    ("board", "module"),
    [
        (ORIN_NANO, "Jetson Orin Nano"),
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit\0", "Jetson Orin NX"),
        ("NVIDIA Jetson AGX Orin Developer Kit\0", "Jetson AGX Orin"),
        ("NVIDIA Jetson AGX Thor Developer Kit\0", "Jetson AGX Thor"),
        ("NVIDIA", None),
        (None, None),
    ],
)
def test_modules_go_by_their_own_names(board: str | None, module: str | None) -> None:
    found = parse_jetson(TEGRA, jetpack_package=None, board=board)
    assert found is not None
    assert found.module == module


@pytest.mark.parametrize(
    ("compatible", "capability"),
    [
        (ORIN_CHIP, "8.7"),
        ("nvidia,p3971-0089+p3834-0008\0nvidia,tegra264\0", "11.0"),
        ("nvidia,p2972-0000\0nvidia,tegra194\0", "7.2"),
        ("nvidia,tegra999\0", None),
        (None, None),
    ],
)
def test_the_chip_tells_the_compute_capability(compatible: str | None, capability: str | None) -> None:
    found = parse_jetson(TEGRA, jetpack_package=None, board=None, compatible=compatible)
    assert found is not None
    assert found.compute_capability == capability


def test_a_desktop_gpu() -> None:
    hardware = find_hardware(machine(commands={"nvidia-smi": SMI}))
    assert hardware.gpu == Gpu("NVIDIA GeForce RTX 4090", "8.9", "24564 MiB", "550.54.14")
    assert hardware.has_gpu
    assert hardware.jetson is None


@pytest.mark.parametrize("smi", [{"nvidia-smi": JETSON_SMI}, {}])  # JetPack 6 has one, JetPack 5 has none
def test_a_jetsons_gpu_is_its_module(smi: dict[str, str]) -> None:
    files = {
        "/etc/nv_tegra_release": TEGRA,
        "/proc/device-tree/model": ORIN_NANO,
        "/proc/device-tree/compatible": ORIN_CHIP,
    }
    hardware = find_hardware(machine(files=files, commands=smi, arch="aarch64"))
    assert hardware.gpu is not None
    assert (hardware.gpu.name, hardware.gpu.compute_capability) == ("Jetson Orin Nano", "8.7")
    assert len(hardware.gpus) == 1


def test_a_jetson_that_tells_little() -> None:
    files = {"/etc/nv_tegra_release": TEGRA}
    hardware = find_hardware(machine(files=files, commands={"nvidia-smi": JETSON_SMI}, arch="aarch64"))
    assert hardware.gpu == Gpu("Orin (nvgpu)", None, None, "540.4.0")


def test_no_gpu() -> None:
    hardware = find_hardware(machine())
    assert hardware.gpu is None
    assert not hardware.has_gpu


@pytest.mark.parametrize(
    ("arch", "tag"), [("x86_64", "linux-x86_64"), ("AMD64", "linux-x86_64"), ("arm64", "linux-aarch64")]
)
def test_platforms(arch: str, tag: str) -> None:
    assert platform_tag(machine(arch=arch)) == tag


MEMINFO = "MemTotal:        7802352 kB\nMemFree:          203456 kB\nMemAvailable:    4000000 kB\n"


def test_free_memory_is_what_is_available() -> None:
    assert free_memory_bytes(machine(files={"/proc/meminfo": MEMINFO})) == 4_000_000 * 1024
    assert free_memory_bytes(machine()) is None


@pytest.mark.parametrize(
    ("limit", "stat", "free"),
    [
        ("1000000000\n", "anon 1\ninactive_file 50000000\n", 450_000_000),
        ("1000000000\n", "", 400_000_000),
        ("500000000\n", "", 0),
        ("9000000000000\n", "", 4_000_000 * 1024),
        ("max\n", "", 4_000_000 * 1024),
    ],
)
def test_a_containers_limit_counts(limit: str, stat: str, free: int) -> None:
    group = {"max": limit, "current": "600000000\n", "stat": stat}
    files = {"/proc/meminfo": MEMINFO, **{f"/sys/fs/cgroup/memory.{name}": text for name, text in group.items()}}
    assert free_memory_bytes(machine(files=files)) == free


def test_free_memory_of_the_gpu() -> None:
    assert free_gpu_memory_bytes(machine(commands={"nvidia-smi": "20480\n1024\n"})) == 20480 * 1024 * 1024
    assert free_gpu_memory_bytes(machine(commands={"nvidia-smi": "[N/A]\n"})) is None
    assert free_gpu_memory_bytes(machine()) is None


def test_free_memory_is_that_of_the_gpu_that_cuda_uses() -> None:
    smi = "A, 8.6, 6138 MiB, 550.54, GPU-a, 00000000:01:00.0\nB, 8.9, 24564 MiB, 550.54, GPU-b, 00000000:02:00.0\n"
    probes = replace(machine(), run=lambda command: "1024\n20480\n" if "memory.free" in command[1] else smi)
    for first, free in (("GPU-a", 1024), ("GPU-b", 20480)):
        chosen = replace(probes, environment={"CUDA_VISIBLE_DEVICES": first})
        assert free_gpu_memory_bytes(chosen) == free * 1024 * 1024
    assert free_gpu_memory_bytes(replace(probes, environment={"CUDA_VISIBLE_DEVICES": ""})) is None


def test_a_jetsons_gpu_shares_the_memory() -> None:
    files = {"/etc/nv_tegra_release": TEGRA, "/proc/meminfo": MEMINFO}
    probes = machine(files=files, commands={"nvidia-smi": "[N/A]\n"}, arch="aarch64")
    assert free_gpu_memory_bytes(probes) == free_memory_bytes(probes) == 4_000_000 * 1024


def test_this_very_machine_answers() -> None:
    probes = this_machine()
    free = free_memory_bytes(probes)
    assert probes.system != "Linux" or (free is not None and free > 1 << 20)
    assert platform_tag().startswith(probes.system.lower())
    assert find_hardware().has_gpu == bool(find_hardware().gpus)
