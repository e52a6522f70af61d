"""How many processor cores a process can keep busy: fewer than the machine has, in a container or under `taskset`."""

from __future__ import annotations

from clipdeploy.machine.probes import Probes, this_machine

_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
_CGROUP = "/sys/fs/cgroup"


def usable_cores(probes: Probes | None = None) -> int:
    """Cores that this process may use: those of its affinity, or what its container may spend, whichever is less.

    Two hyper-threads are one core: they share the units that multiply matrices. A part of a core is none, since a
    thread too many makes the others wait for it at every step.
    """
    probes = probes or this_machine()
    siblings = {probes.read(_TOPOLOGY.format(processor)) or str(processor) for processor in probes.processors}
    cores = len(siblings) or probes.cpus
    return min(cores, granted_cores(probes) or cores)


def granted_cores(probes: Probes | None = None) -> int | None:
    """Cores' worth of time that the process's container may spend, at least 1; None without a limit."""
    quota = _quota(probes or this_machine())
    return None if quota is None else max(1, int(quota))


def _quota(probes: Probes) -> float | None:
    """Cores' worth of time that the process's control groups grant; None without a limit."""
    found = [cores for folder in _folders(probes) if (cores := _of_folder(probes, folder)) is not None]
    return min(found, default=None)


def _folders(probes: Probes) -> list[str]:
    """The control group of this process and those above it, in both versions of the file system."""
    folders = [_CGROUP, f"{_CGROUP}/cpu"]
    for line in (probes.read("/proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        root = _CGROUP if not controllers else f"{_CGROUP}/cpu" if "cpu" in controllers.split(",") else None
        parts = [part for part in path.split("/") if part]
        if root is not None:
            folders += [f"{root}/{'/'.join(parts[:depth])}" for depth in range(len(parts), 0, -1)]
    return folders


def _of_folder(probes: Probes, folder: str) -> float | None:
    """`200000 100000` of version 2, or the two files of version 1; no limit is `max` or -1."""
    told = (probes.read(f"{folder}/cpu.max") or "").split()
    if not told:
        told = [(probes.read(f"{folder}/cpu.cfs_{name}_us") or "").strip() for name in ("quota", "period")]
    if len(told) != 2 or not all(number.isdigit() for number in told) or int(told[1]) == 0:
        return None
    return int(told[0]) / int(told[1])
