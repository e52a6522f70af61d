"""The line that installs a backend, on machines that we play."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clipdeploy.machine import Probes, granted_cores, install_line, usable_cores
from clipdeploy.runtime.backends import BACKENDS
from tests.test_doctor import SMI, TEGRA, jetson, machine

NEW_SMI = SMI.replace("550.54.14", "580.65.06")
OLD_SMI = SMI.replace("550.54.14", "470.57.02")
SBSA = "https://aiinfra.pkgs.visualstudio.com/PublicPackages/_packaging/onnxruntime-cuda-13/pypi/simple/"
JETPACK_6 = "https://pypi.jetson-ai-lab.io/jp6/cu126"
THOR = TEGRA.replace("R36", "R38").replace("4.3", "2.0")


def x86(smi: str | None = None, **more: object) -> Probes:
    return machine(commands={"nvidia-smi": smi} if smi else {}, python="3.12.3", **more)  # type: ignore[arg-type]


PLAIN, CUDA_12, CUDA_13 = x86(), x86(SMI), x86(NEW_SMI)
ORIN, JETSON_5 = jetson(), jetson(release="# R35 (release), REVISION: 4.1, GCID: 1", package=None)
JETSON_7 = jetson(release=THOR, package="7.0+b1")
GRACE = machine(arch="aarch64", python="3.12.3", commands={"nvidia-smi": "NVIDIA GH200, 9.0, 97871 MiB, 580.65.06\n"})
RASPBERRY = machine(arch="aarch64")

NO_GPU = 'no NVIDIA GPU answers here: install its driver, or take backend="onnxruntime" instead'
X86_ONLY = 'TensorRT for RTX is made for x86 machines: take backend="tensorrt" instead'


@pytest.mark.parametrize(
    ("probes", "backend", "line"),
    [
        (PLAIN, "onnxruntime", "pip install 'clipdeploy[cpu]'"),
        (RASPBERRY, "onnxruntime", "pip install 'clipdeploy[cpu]'"),
        (PLAIN, "onnxruntime:cuda", NO_GPU),
        (PLAIN, "tensorrt-rtx", NO_GPU),
        (CUDA_13, "onnxruntime:cuda", "pip install clipdeploy 'onnxruntime-gpu[cuda,cudnn]>=1.28'"),
        (CUDA_12, "onnxruntime:cuda", "pip install clipdeploy 'onnxruntime-gpu[cuda,cudnn]>=1.21,<1.27'"),
        (
            CUDA_13,
            "onnxruntime:tensorrt",
            "pip install clipdeploy 'onnxruntime-gpu[cuda,cudnn]>=1.28' 'tensorrt-cu13>=10,<11'",
        ),
        (
            CUDA_12,
            "onnxruntime:tensorrt",
            "pip install clipdeploy 'onnxruntime-gpu[cuda,cudnn]>=1.21,<1.27' 'tensorrt-cu12>=10,<11'",
        ),
        (
            CUDA_13,
            "onnxruntime:tensorrt-rtx",
            "pip install clipdeploy 'onnxruntime>=1.24' onnxruntime-ep-nv-tensorrt-rtx",
        ),
        (
            CUDA_12,
            "onnxruntime:tensorrt-rtx",
            "pip install clipdeploy 'onnxruntime>=1.24' onnxruntime-ep-nv-tensorrt-rtx-cu12",
        ),
        (CUDA_13, "tensorrt", "pip install 'clipdeploy[tensorrt]'"),
        (CUDA_12, "tensorrt", "pip install clipdeploy 'tensorrt-cu12>=10.3' 'cuda-python>=12.6,<13'"),
        (CUDA_13, "tensorrt-rtx", "pip install 'clipdeploy[tensorrt-rtx]'"),
        (CUDA_12, "tensorrt-rtx", "pip install clipdeploy 'tensorrt-rtx-cu12>=1.4' 'cuda-python>=12.6,<13'"),
        (x86(OLD_SMI), "tensorrt", "update the NVIDIA driver (470.57.02): CUDA 12 needs 525 or later, CUDA 13 580"),
        (ORIN, "onnxruntime:cuda", f"pip install clipdeploy onnxruntime-gpu --extra-index-url {JETPACK_6}"),
        (ORIN, "onnxruntime:tensorrt", f"pip install clipdeploy onnxruntime-gpu --extra-index-url {JETPACK_6}"),
        (ORIN, "onnxruntime:tensorrt-rtx", X86_ONLY),
        (ORIN, "tensorrt-rtx", X86_ONLY),
        (
            ORIN,
            "tensorrt",
            "sudo apt-get install -y nvidia-jetpack && python3 -m venv --system-site-packages .venv && "
            ".venv/bin/pip install clipdeploy 'cuda-python>=12.6,<13'",
        ),
        (JETSON_7, "onnxruntime:cuda", f"pip install clipdeploy onnxruntime-gpu --extra-index-url {SBSA}"),
        (
            JETSON_7,
            "tensorrt",
            "sudo apt-get install -y nvidia-jetpack && python3 -m venv --system-site-packages .venv && "
            ".venv/bin/pip install clipdeploy 'cuda-python>=13'",
        ),
        (
            JETSON_5,
            "tensorrt",
            "flash JetPack 6 or newer: JetPack 5 has Python 3.8, and clipdeploy needs 3.10",
        ),
        (GRACE, "onnxruntime:cuda", f"pip install clipdeploy onnxruntime-gpu --extra-index-url {SBSA}"),
        (GRACE, "tensorrt", "pip install 'clipdeploy[tensorrt]'"),
        (RASPBERRY, "openvino", "pip install 'clipdeploy[openvino]'"),
        (RASPBERRY, "openvino:gpu", 'Intel GPUs are found in x86 machines only: take backend="openvino" instead'),
        (
            PLAIN,
            "openvino:gpu",
            "pip install 'clipdeploy[openvino]' && sudo apt-get install -y intel-opencl-icd && "
            "sudo usermod -aG render $USER, then log in again",
        ),
    ],
)
def test_the_line_for_a_machine(probes: Probes, backend: str, line: str) -> None:
    assert install_line(backend, probes=probes) == line


def test_an_earlier_python_has_the_wheels_of_cuda_12() -> None:
    probes = machine(commands={"nvidia-smi": NEW_SMI}, python="3.10.12")
    assert "<1.27" in install_line("onnxruntime:cuda", probes=probes)


def test_what_lies_in_the_same_folder_is_taken_out_first() -> None:
    both = {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1", "numpy": "2.3"}
    for backend in ("onnxruntime", "onnxruntime:cuda", "onnxruntime:tensorrt-rtx"):
        line = install_line(backend, probes=x86(NEW_SMI, distributions=both))
        assert line.startswith("pip uninstall -y onnxruntime onnxruntime-gpu && pip install")
    plain = {"onnxruntime": "1.31.1"}
    assert install_line("onnxruntime", probes=x86(distributions=plain)) == "pip install 'clipdeploy[cpu]'"
    assert "uninstall" not in install_line("onnxruntime:tensorrt-rtx", probes=x86(NEW_SMI, distributions=plain))


def test_a_driver_that_does_not_answer_comes_first() -> None:
    probes = machine(files={"/proc/driver/nvidia/version": "NVRM version: 580.65.06\n"})
    assert "--gpus all" in install_line("tensorrt", probes=probes)


@pytest.mark.parametrize("probes", [PLAIN, CUDA_12, CUDA_13, ORIN, JETSON_5, JETSON_7, GRACE, RASPBERRY])
def test_every_backend_has_one(probes: Probes) -> None:
    for backend in BACKENDS:
        if backend != "auto":
            assert install_line(backend, probes=probes)


def test_an_unknown_backend_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="no backend 'cuda'"):
        install_line("cuda", probes=PLAIN)


SIBLINGS = {f"/sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list": f"{n % 4},{n % 4 + 4}\n" for n in range(8)}


@pytest.mark.parametrize(
    ("processors", "files", "cores"),
    [
        ((), {}, 6),
        ((0, 1, 2), {}, 3),
        (tuple(range(8)), SIBLINGS, 4),
        ((0, 4, 1), SIBLINGS, 2),
        (tuple(range(8)), SIBLINGS | {"/sys/fs/cgroup/cpu.max": "max 100000\n"}, 4),
        (tuple(range(8)), SIBLINGS | {"/sys/fs/cgroup/cpu.max": "250000 100000\n"}, 2),
        (tuple(range(8)), SIBLINGS | {"/sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        (
            tuple(range(8)),
            {"/proc/self/cgroup": "0::/system.slice/app\n", "/sys/fs/cgroup/system.slice/cpu.max": "300000 100000\n"},
            3,
        ),
        (
            tuple(range(8)),
            {
                "/proc/self/cgroup": "4:cpu,cpuacct:/docker/1\n3:memory:/docker/1\n",
                "/sys/fs/cgroup/cpu/docker/1/cpu.cfs_quota_us": "200000\n",
                "/sys/fs/cgroup/cpu/docker/1/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        ((0, 1), {"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 2),
    ],
)
def test_cores_that_a_process_may_use(processors: tuple[int, ...], files: dict[str, str], cores: int) -> None:
    assert usable_cores(replace(machine(files=files), processors=processors)) == cores


def test_only_a_limit_grants_cores() -> None:
    assert granted_cores(machine(files=SIBLINGS)) is None
    assert granted_cores(machine(files=SIBLINGS | {"/sys/fs/cgroup/cpu.max": "max 100000\n"})) is None
    assert granted_cores(machine(files=SIBLINGS | {"/sys/fs/cgroup/cpu.max": "250000 100000\n"})) == 2
