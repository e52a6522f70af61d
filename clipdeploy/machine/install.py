"""What gives this very machine a backend: one line to type, or what stands in the way.

Which wheel goes with which CUDA: onnxruntime-gpu up to 1.26 is made for CUDA 12, from 1.27 on for CUDA 13, and asks for
Python 3.11 from 1.24 on (https://pypi.org/project/onnxruntime-gpu/); its extras name CUDA's libraries rightly from 1.28
on. Its TensorRT provider is linked with TensorRT 10. `tensorrt` and `tensorrt-rtx` bring their CUDA 13 builds, the same
names with `-cu12` the others. CUDA 13 needs a driver of 580 or later, CUDA 12 one of 525
(https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/).
"""

from __future__ import annotations

from collections.abc import Callable

from clipdeploy.machine.hardware import Hardware, find_hardware, platform_tag
from clipdeploy.machine.jetson import SBSA_WHEELS
from clipdeploy.machine.probes import Probes, this_machine

ONNXRUNTIME_WHEELS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "onnxruntime-rocm",
    "onnxruntime-migraphx",
    "onnxruntime-qnn",
    "onnxruntime-training",
    "ort-nightly",
    "ort-nightly-gpu",
)
"""All of these bring the module `onnxruntime`; of two, whichever was installed last wins, file by file."""

_CPU_WHEEL = "pip install 'clipdeploy[cpu]'"
_DRIVERS = {13: 580, 12: 525}
# Of CUDA's own major version: one made for a later CUDA does not start on an earlier driver.
_CUDA_PYTHON = {13: "'cuda-python>=13'", 12: "'cuda-python>=12.6,<13'"}
_ORT_CUDA = {13: "'onnxruntime-gpu[cuda,cudnn]>=1.28'", 12: "'onnxruntime-gpu[cuda,cudnn]>=1.21,<1.27'"}
_JETPACK_TENSORRT = (
    "sudo apt-get install -y nvidia-jetpack && python3 -m venv --system-site-packages .venv && "
    ".venv/bin/pip install clipdeploy {}"
)
_TAKE = 'take backend="{}" instead'


def install_line(backend: str, hardware: Hardware | None = None, probes: Probes | None = None) -> str:
    """The command that installs a backend on this machine; where none can, what to do instead.

    Args:
        backend: such as `onnxruntime:cuda`, as `clipdeploy.load` takes it.
        hardware: of the machine; None looks.
        probes: how to look at the machine; None looks at this one.
    """
    probes = probes or this_machine()
    hardware = hardware or find_hardware(probes)
    if backend in _WRITERS:
        return _WRITERS[backend](probes)
    if backend in _NVIDIA:
        return _on_nvidia(probes, hardware, _NVIDIA[backend])
    raise ValueError(f"no backend {backend!r}; expected one of {', '.join([*_WRITERS, *_NVIDIA])}")


def cuda_major(hardware: Hardware) -> int | None:
    """The latest major version of CUDA that wheels are made for and that the driver takes; None where it takes none."""
    if hardware.jetson is not None:
        return None if hardware.jetson.jetpack_major is None else 12 if hardware.jetson.jetpack_major == 6 else 13
    driver = (hardware.gpu.driver if hardware.gpu else None) or ""
    branch = driver.split(".")[0]
    if not branch.isdigit():
        return 13
    return next((major for major, needs in _DRIVERS.items() if int(branch) >= needs), None)


def _onnxruntime(probes: Probes) -> str:
    others = [name for name in _wheels(probes) if name != "onnxruntime"]
    # two wheels in one folder: what is taken out of it takes files of the other with it
    return f"pip uninstall -y {' '.join(_wheels(probes))} && {_CPU_WHEEL}" if others else _CPU_WHEEL


def _openvino(probes: Probes) -> str:
    return "pip install 'clipdeploy[openvino]'"


def _openvino_gpu(probes: Probes) -> str:
    if not platform_tag(probes).endswith("-x86_64"):
        return "Intel GPUs are found in x86 machines only: " + _TAKE.format("openvino")
    library = "" if probes.has_module("openvino") else "pip install 'clipdeploy[openvino]' && "
    # the driver is Intel's own package, and its device belongs to the group `render`
    return f"{library}sudo apt-get install -y intel-opencl-icd && sudo usermod -aG render $USER, then log in again"


def _on_nvidia(probes: Probes, hardware: Hardware, write: Callable[[Probes, Hardware, int], str]) -> str:
    """What `write` says for the machine's CUDA, or why no NVIDIA GPU can be used here."""
    if hardware.silent_driver is not None:
        return "restart the machine after a driver update; in a container, start it with --gpus all"
    if not hardware.has_gpu:
        return f"no NVIDIA GPU answers here: install its driver, or {_TAKE.format('onnxruntime')}"
    jetson = hardware.jetson
    if jetson is not None and (jetson.jetpack_major or 6) < 6:
        return "flash JetPack 6 or newer: JetPack 5 has Python 3.8, and clipdeploy needs 3.10"
    cuda = cuda_major(hardware)
    if cuda is None and jetson is None:
        driver = hardware.gpu.driver if hardware.gpu else None
        return f"update the NVIDIA driver ({driver}): CUDA 12 needs {_DRIVERS[12]} or later, CUDA 13 {_DRIVERS[13]}"
    return write(probes, hardware, cuda or 12)


def _ort_cuda(probes: Probes, hardware: Hardware, cuda: int) -> str:
    return _ort_gpu(probes, hardware, cuda, tensorrt=False)


def _ort_tensorrt(probes: Probes, hardware: Hardware, cuda: int) -> str:
    return _ort_gpu(probes, hardware, cuda, tensorrt=True)


def _ort_gpu(probes: Probes, hardware: Hardware, cuda: int, *, tensorrt: bool) -> str:
    wheels = _wheels(probes)
    clear = f"pip uninstall -y {' '.join(wheels)} && " if wheels else ""
    jetson = hardware.jetson
    if jetson is not None and jetson.jetpack_major == 6:
        return f"{clear}pip install clipdeploy onnxruntime-gpu --extra-index-url {jetson.wheels}"
    if not platform_tag(probes).endswith("-x86_64"):
        return f"{clear}pip install clipdeploy onnxruntime-gpu --extra-index-url {SBSA_WHEELS}"
    if _python(probes) < (3, 11):
        cuda = 12  # the last wheels for this Python
    more = f" 'tensorrt-cu{cuda}>=10,<11'" if tensorrt else ""
    return f"{clear}pip install clipdeploy {_ORT_CUDA[cuda]}{more}"


def _ort_rtx(probes: Probes, hardware: Hardware, cuda: int) -> str:
    if hardware.jetson is not None or not platform_tag(probes).endswith("-x86_64"):
        return "TensorRT for RTX is made for x86 machines: " + _TAKE.format("tensorrt")
    others = [name for name in _wheels(probes) if name != "onnxruntime"]
    clear = f"pip uninstall -y {' '.join(_wheels(probes))} && " if others else ""
    plugin = "onnxruntime-ep-nv-tensorrt-rtx" + ("-cu12" if cuda == 12 else "")
    return f"{clear}pip install clipdeploy 'onnxruntime>=1.24' {plugin}"


def _tensorrt(probes: Probes, hardware: Hardware, cuda: int) -> str:
    if hardware.jetson is not None:
        return _JETPACK_TENSORRT.format(_CUDA_PYTHON[cuda])
    if cuda == 13:
        return "pip install 'clipdeploy[tensorrt]'"
    return f"pip install clipdeploy 'tensorrt-cu12>=10.3' {_CUDA_PYTHON[12]}"


def _tensorrt_rtx(probes: Probes, hardware: Hardware, cuda: int) -> str:
    if hardware.jetson is not None or not platform_tag(probes).endswith("-x86_64"):
        return "TensorRT for RTX is made for x86 machines: " + _TAKE.format("tensorrt")
    if cuda == 13:
        return "pip install 'clipdeploy[tensorrt-rtx]'"
    return f"pip install clipdeploy 'tensorrt-rtx-cu12>=1.4' {_CUDA_PYTHON[12]}"


def _wheels(probes: Probes) -> list[str]:
    """The wheels that are installed and bring the module `onnxruntime`."""
    return sorted(name for name in probes.distributions() if name in ONNXRUNTIME_WHEELS)


def _python(probes: Probes) -> tuple[int, ...]:
    return tuple(int(part) for part in probes.python.split(".")[:2] if part.isdigit())


_WRITERS: dict[str, Callable[[Probes], str]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "openvino:gpu": _openvino_gpu,
}
_NVIDIA: dict[str, Callable[[Probes, Hardware, int], str]] = {
    "onnxruntime:cuda": _ort_cuda,
    "onnxruntime:tensorrt": _ort_tensorrt,
    "onnxruntime:tensorrt-rtx": _ort_rtx,
    "tensorrt": _tensorrt,
    "tensorrt-rtx": _tensorrt_rtx,
}
