"""What doctor says of machines that we play to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from clipdeploy.doctor import Diagnosis, Imported, Probes, diagnose, this_machine
from tests.bundles import make_bundle

CPU = ("CPUExecutionProvider",)
CUDA = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
TEGRA = (
    "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025"
)
SMI = "NVIDIA GeForce RTX 4090, 8.9, 24564 MiB, 550.54.14\n"
# of the driver above, and of this Python 3.10
ORT_CUDA_12 = "'onnxruntime-gpu[cuda,cudnn]>=1.21,<1.27'"


def machine(
    *,
    distributions: Mapping[str, str] | None = None,
    modules: Mapping[str, Imported] | None = None,
    files: Mapping[str, str] | None = None,
    commands: Mapping[str, str] | None = None,
    arch: str = "x86_64",
    python: str = "3.10.12",
) -> Probes:
    modules = modules or {}
    known_files, known_commands = files or {}, commands or {}

    def run(command: Sequence[str]) -> str | None:
        return known_commands.get(command[0])

    return Probes(
        system="Linux",
        machine=arch,
        platform=f"Linux-{arch}",
        python=python,
        executable="/usr/bin/python3",
        cpus=6,
        distributions=lambda: distributions or {},
        has_module=lambda name: name in modules,
        try_import=lambda name: modules[name],
        read=known_files.get,
        run=run,
    )


EXPORT_MODULES = {name: Imported() for name in ("torch", "onnx", "onnxsim", "open_clip")}


def fact(diagnosis: Diagnosis, name: str) -> str:
    return next(fact.value for fact in diagnosis.facts if fact.name == name)


def commands(diagnosis: Diagnosis) -> list[str]:
    return [command for advice in diagnosis.advice for command in advice.commands]


def test_a_plain_machine_with_everything_is_healthy() -> None:
    modules = {"onnxruntime": Imported(version="1.22.0", providers=CPU), **EXPORT_MODULES}
    diagnosis = diagnose(machine(distributions={"onnxruntime": "1.22.0"}, modules=modules))
    assert diagnosis.healthy
    assert diagnosis.advice == ()
    assert fact(diagnosis, "onnxruntime") == "onnxruntime 1.22.0: CPUExecutionProvider"
    assert fact(diagnosis, "NVIDIA GPU") == "none found"


def test_no_engine_is_a_problem() -> None:
    diagnosis = diagnose(machine())
    assert [p.fix for p in diagnosis.problems] == ["pip install 'clipdeploy[cpu]'"]
    assert commands(diagnosis) == ["pip install 'clipdeploy[cpu]'", "pip install 'clipdeploy[export]'"]


@pytest.mark.parametrize(
    ("smi", "keep"),
    [(None, "pip install 'clipdeploy[cpu]'"), (SMI, f"pip install clipdeploy {ORT_CUDA_12}")],
)
def test_two_wheels_of_onnxruntime_overwrite_each_other(smi: str | None, keep: str) -> None:
    probes = machine(
        distributions={"onnxruntime": "1.22.0", "onnxruntime-gpu": "1.21.0"},
        modules={"onnxruntime": Imported(version="1.22.0", providers=CPU)},
        commands={"nvidia-smi": smi} if smi else {},
    )
    (problem,) = diagnose(probes).problems
    assert "onnxruntime and onnxruntime-gpu are both installed" in problem.message
    assert problem.fix == f"pip uninstall -y onnxruntime onnxruntime-gpu && {keep}"


def test_an_engine_that_does_not_import() -> None:
    broken = Imported(error="ImportError: libcudart.so.12: cannot open shared object file")
    probes = machine(distributions={"onnxruntime-gpu": "1.22.0"}, modules={"onnxruntime": broken, "openvino": broken})
    diagnosis = diagnose(probes)
    assert ["libcudart" in p.message for p in diagnosis.problems] == [True, True]
    assert diagnosis.problems[0].fix.startswith("pip uninstall -y onnxruntime-gpu && pip install")
    assert fact(diagnosis, "openvino") == "does not import"


def test_a_gpu_that_the_installed_wheel_cannot_use() -> None:
    probes = machine(
        distributions={"onnxruntime": "1.22.0"},
        modules={"onnxruntime": Imported(providers=CPU), **EXPORT_MODULES},
        commands={"nvidia-smi": SMI},
    )
    diagnosis = diagnose(probes)
    assert diagnosis.healthy
    assert "compute capability 8.9, 24564 MiB, driver 550.54.14" in fact(diagnosis, "NVIDIA GPU")
    assert commands(diagnosis) == [f"pip uninstall -y onnxruntime && pip install clipdeploy {ORT_CUDA_12}"]


def test_a_gpu_wheel_whose_cuda_provider_is_gone() -> None:
    probes = machine(
        distributions={"onnxruntime-gpu": "1.22.0"},
        modules={"onnxruntime": Imported(providers=CPU)},
        commands={"nvidia-smi": SMI},
    )
    (problem,) = diagnose(probes).problems
    assert "no CUDA provider" in problem.message


def test_a_cuda_provider_that_is_listed_and_does_not_load() -> None:
    missing = "libcublasLt.so.12: cannot open shared object file"
    broken = {"CUDAExecutionProvider": missing, "TensorrtExecutionProvider": missing}
    probes = machine(
        distributions={"onnxruntime-gpu": "1.23.2"},
        modules={"onnxruntime": Imported(providers=CUDA, broken=broken)},
        commands={"nvidia-smi": SMI},
    )
    diagnosis = diagnose(probes)
    (problem,) = diagnosis.problems
    assert "would run on the CPU instead" in problem.message
    assert missing in problem.message
    assert problem.fix == f"pip uninstall -y onnxruntime-gpu && pip install clipdeploy {ORT_CUDA_12}"
    assert fact(diagnosis, "onnxruntime:cuda") == f"not here: {problem.fix}"
    # without a GPU nobody could use it, and the same wheel is no problem
    assert diagnose(replace(probes, run=lambda command: None)).healthy


def test_it_tells_which_backends_run_here() -> None:
    modules = {
        "onnxruntime": Imported(providers=CUDA, broken={"TensorrtExecutionProvider": "libnvinfer.so.10: gone"}),
        "openvino": Imported(version="2026.4", providers=("CPU", "GPU.0")),
        "tensorrt": Imported(version="11.4.0"),
        "tensorrt_rtx": Imported(error="ImportError: gone"),
        "cuda": Imported(),
    }
    probes = machine(distributions={"onnxruntime-gpu": "1.23.2"}, modules=modules, commands={"nvidia-smi": SMI})
    diagnosis = diagnose(probes)
    told = {fact.name: fact.value for fact in diagnosis.facts if fact.section == "backends"}
    runs = {name for name, value in told.items() if value == "runs here"}
    assert runs == {"onnxruntime", "onnxruntime:cuda", "openvino", "openvino:gpu", "tensorrt"}
    assert "'tensorrt-cu12>=10,<11'" in told["onnxruntime:tensorrt"]
    assert set(told) - runs == {"onnxruntime:tensorrt", "onnxruntime:tensorrt-rtx", "tensorrt-rtx"}


def test_a_driver_that_does_not_answer() -> None:
    probes = machine(
        modules={"onnxruntime": Imported(providers=CPU)},
        files={"/proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14\nGCC\n"},
    )
    (problem,) = diagnose(probes).problems
    assert "nvidia-smi does not answer" in problem.message
    assert "550.54.14" in problem.message


def jetson(*, release: str = TEGRA, package: str | None = "6.2+b77", **modules: Imported) -> Probes:
    return machine(
        arch="aarch64",
        files={"/etc/nv_tegra_release": release, "/proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0"},
        commands={"dpkg-query": package} if package else {},
        modules=modules,
    )


def test_a_fresh_jetson_is_told_where_its_wheels_are() -> None:
    diagnosis = diagnose(jetson())
    assert fact(diagnosis, "Jetson") == "NVIDIA Jetson Orin Nano Developer Kit, Jetson Linux 36.4.3"
    assert fact(diagnosis, "JetPack") == "6.2"
    wheel = "pip install clipdeploy onnxruntime-gpu --extra-index-url https://pypi.jetson-ai-lab.io/jp6/cu126"
    assert [p.fix for p in diagnosis.problems] == [wheel]
    assert commands(diagnosis)[:3] == [
        "sudo apt-get install nvidia-jetpack",
        "python3 -m venv --system-site-packages .venv",
        wheel,
    ]


def test_a_jetson_with_everything() -> None:
    probes = jetson(onnxruntime=Imported(providers=CUDA), tensorrt=Imported(version="10.3.0"), **EXPORT_MODULES)
    probes = replace(probes, distributions=lambda: {"onnxruntime-gpu": "1.23.0"})
    diagnosis = diagnose(probes)
    assert diagnosis.healthy
    assert diagnosis.advice == ()
    assert fact(diagnosis, "tensorrt") == "10.3.0"


def test_a_jetson_on_jetpack_5_is_told_to_move_on() -> None:
    diagnosis = diagnose(jetson(release="# R35 (release), REVISION: 4.1, GCID: 1, BOARD: t186ref", package=None))
    assert fact(diagnosis, "JetPack") == "5.1.2"
    assert commands(diagnosis)[0].startswith("flash JetPack 6 or newer")
    assert [p.fix for p in diagnosis.problems] == ["pip install 'clipdeploy[cpu]'"]


def test_it_checks_a_bundle(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "tiny")
    probes = machine(modules={"onnxruntime": Imported(providers=CPU)})
    assert diagnose(probes, bundle=bundle).healthy
    with (bundle / "visual.onnx").open("ab") as stream:
        stream.write(b"x")
    (problem,) = diagnose(probes, bundle=bundle).problems
    assert "visual.onnx is altered" in problem.message


def test_this_machine_has_at_least_a_python() -> None:
    probes = this_machine()
    assert probes.distributions()["numpy"]
    assert probes.has_module("json")
    assert not probes.has_module("no_such_module")
    assert probes.try_import("json").error is None
    assert "no_such_module" in str(probes.try_import("no_such_module").error)
    assert probes.read("/no/such/file") is None
    assert probes.run(["no-such-command"]) is None
