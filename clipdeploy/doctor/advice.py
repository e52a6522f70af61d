"""What to install on this very machine."""

from __future__ import annotations

from clipdeploy.doctor.records import Advice
from clipdeploy.machine.hardware import Hardware
from clipdeploy.machine.install import install_line
from clipdeploy.machine.jetson import Jetson
from clipdeploy.machine.probes import Imported, Probes

EXPORT = {"torch": "torch", "onnx": "onnx", "onnxsim": "onnxsim", "open_clip": "open-clip-torch"}
"""Module -> distribution of the main libraries of the extra `export`."""

CUDA = "CUDAExecutionProvider"
_WITH_CUDA = "run bundles on the NVIDIA GPU through ONNX Runtime"


def install_runtime(probes: Probes, hardware: Hardware) -> str:
    """The command that installs the onnxruntime that suits this machine best."""
    line = install_line("onnxruntime:cuda", hardware, probes)
    return line if "pip install" in line else install_line("onnxruntime", hardware, probes)


def advise(probes: Probes, hardware: Hardware, runtime: Imported | None) -> list[Advice]:
    """What is worth installing and is not there yet.

    Args:
        runtime: what came of importing onnxruntime, None when it is not installed.
    """
    advice = []
    if hardware.jetson is not None:
        advice += _for_jetson(probes, hardware.jetson)
    command = install_runtime(probes, hardware)
    if runtime is None or runtime.error is not None:
        advice.append(Advice("run bundles", (command,)))
    elif hardware.has_gpu and "gpu" in command and CUDA not in runtime.providers:
        advice.append(Advice(_WITH_CUDA, (command,)))
    if not all(probes.has_module(module) for module in EXPORT):
        advice.append(Advice("export checkpoints", ("pip install 'clipdeploy[export]'",)))
    return advice


def _for_jetson(probes: Probes, jetson: Jetson) -> list[Advice]:
    advice = []
    if jetson.jetpack_major is not None and jetson.jetpack_major < 6:
        newer = "flash JetPack 6 or newer: JetPack 5 has Python 3.8, and clipdeploy needs 3.10"
        advice.append(Advice("a Python that the Jetson's wheels are made for", (newer,)))
    if not probes.has_module("tensorrt"):
        commands = ("sudo apt-get install nvidia-jetpack", "python3 -m venv --system-site-packages .venv")
        advice.append(Advice("TensorRT, which comes with JetPack and not from PyPI", commands))
    return advice
