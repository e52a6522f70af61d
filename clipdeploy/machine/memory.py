"""How much memory is free, of the machine and of its GPU."""

from __future__ import annotations

import re

from clipdeploy.machine.hardware import cuda_gpus, find_hardware
from clipdeploy.machine.probes import Probes, this_machine

_GPU_QUERY = ("nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits")
_CGROUP = "/sys/fs/cgroup"


def free_memory_bytes(probes: Probes | None = None) -> int | None:
    """Memory that a process can still take without swapping; None where the system does not tell.

    What Linux calls available, or what is left of the container's own limit, whichever is less.
    """
    probes = probes or this_machine()
    found = re.search(r"^MemAvailable:\s*(\d+) kB", probes.read("/proc/meminfo") or "", re.MULTILINE)
    left = _left_of_the_limit(probes)
    known = [value for value in (int(found[1]) * 1024 if found else None, left) if value is not None]
    return min(known, default=None)


def free_gpu_memory_bytes(probes: Probes | None = None) -> int | None:
    """Free memory of the GPU that engines are built for; a Jetson's is the machine's own. None without a GPU.

    Of several GPUs that it may be, as `cuda_gpus` finds them, the most that one has.
    """
    probes = probes or this_machine()
    hardware = find_hardware(probes)
    if hardware.jetson is not None:
        return free_memory_bytes(probes)
    told = [line.strip() for line in (probes.run(_GPU_QUERY) or "").splitlines()]
    may_be = cuda_gpus(hardware.gpus, probes.environment)
    free = [int(mib) for gpu, mib in zip(hardware.gpus, told, strict=False) if gpu in may_be and mib.isdigit()]
    return max(free) * 1024 * 1024 if free else None


def _left_of_the_limit(probes: Probes) -> int | None:
    """What a container may still take, files that memory merely keeps included; None where there is no limit."""
    limit, used = (probes.read(f"{_CGROUP}/memory.{name}") for name in ("max", "current"))
    if limit is None or used is None or not limit.strip().isdigit():
        return None
    files = re.search(r"^inactive_file (\d+)", probes.read(f"{_CGROUP}/memory.stat") or "", re.MULTILINE)
    return max(0, int(limit) - int(used) + (int(files[1]) if files else 0))
