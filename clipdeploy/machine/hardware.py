"""Which accelerator the machine has, and what it is as a platform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clipdeploy.machine.jetson import Jetson, parse_jetson
from clipdeploy.machine.probes import Probes, this_machine

_FIELDS = "name,compute_cap,memory.total,driver_version,uuid,pci.bus_id"
_QUERY = ("nvidia-smi", f"--query-gpu={_FIELDS}", "--format=csv,noheader")

# names that some systems give to the same processor
_PROCESSORS = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU, as nvidia-smi describes it; a field it does not know is None."""

    name: str
    compute_capability: str | None
    memory: str | None
    driver: str | None
    uuid: str | None = None
    bus: str | None = None

    def __str__(self) -> str:
        known = [self.compute_capability and f"compute capability {self.compute_capability}", self.memory]
        known.append(self.driver and f"driver {self.driver}")
        return ", ".join([self.name, *(part for part in known if part)])


@dataclass(frozen=True)
class Hardware:
    """The accelerators of a machine.

    Attributes:
        jetson: the Jetson this is, None when it is none.
        gpus: NVIDIA GPUs that answer; a Jetson's own goes by the name of its module, such as `Jetson Orin Nano`.
        silent_driver: first line of the NVIDIA driver's version, when it is loaded but nvidia-smi fails.
    """

    jetson: Jetson | None
    gpus: tuple[Gpu, ...]
    silent_driver: str | None

    @property
    def has_gpu(self) -> bool:
        """Whether there is an NVIDIA GPU to compute on."""
        return bool(self.gpus)

    @property
    def gpu(self) -> Gpu | None:
        """The first GPU, None without one; of several, CUDA may use another, see `cuda_gpus`."""
        return self.gpus[0] if self.gpus else None


def find_hardware(probes: Probes | None = None) -> Hardware:
    """Ask for a Jetson and for NVIDIA GPUs; None asks this machine."""
    probes = probes or this_machine()
    jetson = _jetson(probes)
    answer = probes.run(_QUERY)
    gpus = tuple(_parse(line) for line in (answer or "").splitlines() if line.strip())
    if jetson is not None:
        gpus = (_jetsons_own(jetson, gpus[0] if gpus else None), *gpus[1:])
    driver = probes.read("/proc/driver/nvidia/version")
    silent = driver.splitlines()[0].strip() if driver and answer is None and jetson is None else None
    return Hardware(jetson=jetson, gpus=gpus, silent_driver=silent)


def cuda_gpus(gpus: Sequence[Gpu], environment: Mapping[str, str]) -> tuple[Gpu, ...]:
    """The GPUs that CUDA's first may be, as far as its environment variables tell; one where they tell it.

    CUDA counts the GPUs that CUDA_VISIBLE_DEVICES leaves, from the fastest on by a rule of its own, unless
    CUDA_DEVICE_ORDER is PCI_BUS_ID:
    https://docs.nvidia.com/cuda/cuda-c-programming-guide/index.html#cuda-environment-variables
    """
    by_bus = environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" and all(gpu.bus for gpu in gpus)
    listed = sorted(gpus, key=lambda gpu: gpu.bus or "") if by_bus else list(gpus)
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return tuple(listed[:1] if by_bus else listed)
    first = visible.split(",")[0].strip()
    if first.isdigit():
        known = listed[int(first) : int(first) + 1]  # of a number that is too large, CUDA sees none
        return tuple(known if by_bus or not known else listed)
    if first.startswith("GPU-"):
        return tuple(gpu for gpu in listed if (gpu.uuid or first).startswith(first))
    return tuple(listed) if first.startswith("MIG-") else ()


def platform_tag(probes: Probes | None = None) -> str:
    """Operating system and processor, such as `linux-x86_64` or `linux-aarch64`."""
    probes = probes or this_machine()
    machine = probes.machine.lower()
    return f"{probes.system.lower()}-{_PROCESSORS.get(machine, machine)}"


def _jetson(probes: Probes) -> Jetson | None:
    release = probes.read("/etc/nv_tegra_release")
    if release is None:
        return None
    package = probes.run(("dpkg-query", "--show", "--showformat=${Version}", "nvidia-jetpack"))
    return parse_jetson(
        release,
        jetpack_package=(package or "").strip() or None,
        board=probes.read("/proc/device-tree/model"),
        compatible=probes.read("/proc/device-tree/compatible"),
    )


def _jetsons_own(jetson: Jetson, answer: Gpu | None) -> Gpu:
    """A Jetson's GPU: nvidia-smi, where there is one, knows the chip alone, which small and large modules share."""
    name = jetson.module or (answer.name if answer else "Jetson")
    capability = jetson.compute_capability or (answer.compute_capability if answer else None)
    return Gpu(name=name, compute_capability=capability, memory=None, driver=answer.driver if answer else None)


def _parse(line: str) -> Gpu:
    fields = [field.strip() for field in line.split(",")]
    name, *rest = [field if field and not field.startswith("[N/A") else None for field in fields]
    return Gpu(name or "NVIDIA GPU", *(*rest, None, None, None)[: max(3, len(rest))])
