"""What the machine is and how it stands, for whoever reads the figures later. No paths, no names of hosts."""

from __future__ import annotations

import os
import re
from typing import Any

from clipdeploy import __version__
from clipdeploy.machine import Probes, find_hardware, platform_tag, this_machine, usable_cores
from clipdeploy.versions import installed

_LIBRARIES = (
    *("numpy", "pillow", "onnxruntime", "onnxruntime-gpu", "openvino", "tokenizers"),
    *("tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx", "tensorrt-rtx-cu12", "cuda-python"),
)
_FEATURES = (
    *("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve"),
)
"""What the speed of matrix products in few bits hangs on, x86 and ARM."""
_FREQUENCY = "/sys/devices/system/cpu/cpu{}/cpufreq/{}"


def environment(probes: Probes | None = None) -> dict[str, Any]:
    """The machine and the libraries; what the system does not tell is None.

    Args:
        probes: a machine; None stands for this one.
    """
    probes = probes or this_machine()
    hardware = find_hardware(probes)
    jetson = hardware.jetson
    return {
        "system": probes.platform,
        "platform": platform_tag(probes),
        "python": probes.python,
        "libraries": {"clipdeploy": __version__, **installed(_LIBRARIES)},
        "processor": _processor(probes),
        "gpus": _gpus(probes, [str(gpu) for gpu in hardware.gpus]),
        "jetson": None if jetson is None else {"board": jetson.board, "jetpack": jetson.jetpack, "l4t": jetson.l4t},
    }


def load_1min() -> float | None:
    """Processes that ran or waited for a processor, over the last minute; None where the system does not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _processor(probes: Probes) -> dict[str, Any]:
    """The processor and its memory: what it is, and what it is allowed to."""
    about = probes.read("/proc/cpuinfo") or ""
    flags = set((_line(about, "flags") or _line(about, "Features") or "").split())
    memory = re.search(r"^MemTotal:\s*(\d+) kB", probes.read("/proc/meminfo") or "", re.MULTILINE)
    numbers = probes.processors or (0,)
    return {
        "name": _line(about, "model name") or probes.machine,
        "features": [feature for feature in _FEATURES if feature in flags],
        "cores": usable_cores(probes),
        "processors": probes.cpus,
        "virtual": "hypervisor" in flags if flags else None,
        "memory_bytes": int(memory[1]) * 1024 if memory else None,
        "governor": _told(probes, numbers[0], "scaling_governor"),
        "least_mhz": _mhz(_told(probes, numbers[0], "scaling_min_freq")),
        "most_mhz": _mhz(_told(probes, numbers[0], "scaling_max_freq")),
    }


def _gpus(probes: Probes, names: list[str]) -> list[dict[str, Any]]:
    """What is known of each GPU; asked for clocks and limits where there is one."""
    if not names:
        return []
    from clipdeploy.machine.gpu_state import gpu_state

    return list(gpu_state()) or [{"name": name} for name in names]


def _line(about: str, key: str) -> str | None:
    """What the first processor says of itself under a key."""
    found = re.search(rf"^{key}\s*:\s*(.*)$", about, re.MULTILINE)
    return found[1].strip() if found else None


def _told(probes: Probes, processor: int, name: str) -> str | None:
    said = (probes.read(_FREQUENCY.format(processor, name)) or "").strip()
    return said or None


def _mhz(khz: str | None) -> int | None:
    return int(khz) // 1000 if khz is not None and khz.isdigit() else None
