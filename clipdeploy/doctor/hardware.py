"""Which accelerator the machine has."""

from __future__ import annotations

from dataclasses import dataclass

from clipdeploy.doctor.jetson import Jetson, parse_jetson
from clipdeploy.doctor.probes import Probes

_QUERY = ("nvidia-smi", "--query-gpu=name,compute_cap,memory.total,driver_version", "--format=csv,noheader")


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU, as nvidia-smi describes it; a field it does not know is None."""

    name: str
    compute_capability: str | None
    memory: str | None
    driver: str | None

    def __str__(self) -> str:
        known = [self.compute_capability and f"compute capability {self.compute_capability}", self.memory]
        known.append(self.driver and f"driver {self.driver}")
        return ", ".join([self.name, *(part for part in known if part)])


@dataclass(frozen=True)
class Hardware:
    """The accelerators of a machine.

    Attributes:
        jetson: the Jetson this is, None when it is none.
        gpus: NVIDIA GPUs that answer.
        silent_driver: first line of the NVIDIA driver's version, when it is loaded but nvidia-smi fails.
    """

    jetson: Jetson | None
    gpus: tuple[Gpu, ...]
    silent_driver: str | None

    @property
    def has_gpu(self) -> bool:
        """Whether there is an NVIDIA GPU to compute on."""
        return bool(self.gpus) or self.jetson is not None


def find_hardware(probes: Probes) -> Hardware:
    """Ask for a Jetson and for NVIDIA GPUs."""
    jetson = _jetson(probes)
    answer = probes.run(_QUERY)
    gpus = tuple(_parse(line) for line in (answer or "").splitlines() if line.strip())
    driver = probes.read("/proc/driver/nvidia/version")
    silent = driver.splitlines()[0].strip() if driver and answer is None and jetson is None else None
    return Hardware(jetson=jetson, gpus=gpus, silent_driver=silent)


def _jetson(probes: Probes) -> Jetson | None:
    release = probes.read("/etc/nv_tegra_release")
    if release is None:
        return None
    package = probes.run(("dpkg-query", "--show", "--showformat=${Version}", "nvidia-jetpack"))
    return parse_jetson(
        release, jetpack_package=(package or "").strip() or None, board=probes.read("/proc/device-tree/model")
    )


def _parse(line: str) -> Gpu:
    fields = [field.strip() for field in line.split(",")]
    name, *rest = [field if field and not field.startswith("[N/A") else None for field in fields]
    capability, memory, driver = (*rest, None, None, None)[:3]
    return Gpu(name=name or "NVIDIA GPU", compute_capability=capability, memory=memory, driver=driver)
