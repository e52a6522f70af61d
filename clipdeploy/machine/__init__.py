"""What this machine is: its platform, its accelerators, its free memory. Nothing here needs a library."""

from __future__ import annotations

from clipdeploy.machine.cores import granted_cores, usable_cores
from clipdeploy.machine.hardware import Gpu, Hardware, cuda_gpus, find_hardware, platform_tag
from clipdeploy.machine.install import install_line
from clipdeploy.machine.jetson import Jetson
from clipdeploy.machine.memory import free_gpu_memory_bytes, free_memory_bytes
from clipdeploy.machine.probes import Imported, Probes, this_machine

__all__ = [
    "Gpu",
    "Hardware",
    "Imported",
    "Jetson",
    "Probes",
    "cuda_gpus",
    "find_hardware",
    "free_gpu_memory_bytes",
    "free_memory_bytes",
    "granted_cores",
    "install_line",
    "platform_tag",
    "this_machine",
    "usable_cores",
]
