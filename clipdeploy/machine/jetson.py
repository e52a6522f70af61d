"""Which Jetson this is, and where its Python wheels come from."""

from __future__ import annotations

import re
from dataclasses import dataclass

# L4T release -> JetPack, from https://developer.nvidia.com/embedded/jetpack-archive
_JETPACK = {
    "35.1.0": "5.0.2",
    "35.2.1": "5.1",
    "35.3.1": "5.1.1",
    "35.4.1": "5.1.2",
    "35.5.0": "5.1.3",
    "35.6.0": "5.1.4",
    "36.2.0": "6.0 DP",
    "36.3.0": "6.0",
    "36.4.0": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.5.0": "6.2.2",
    "38.2.0": "7.0",
    "38.4.0": "7.1",
    "39.2.0": "7.2",
    "39.2.1": "7.2.1",
}
_MAJOR = {32: "4", 34: "5", 35: "5", 36: "6", 38: "7", 39: "7"}
# PyPI has no onnxruntime-gpu for aarch64 (https://github.com/microsoft/onnxruntime/issues/20503). For CUDA 13 ONNX
# Runtime's own index has it (https://github.com/microsoft/onnxruntime/issues/27944), for JetPack 6 NVIDIA's
# (https://github.com/dusty-nv/jetson-containers/issues/1283).
SBSA_WHEELS = "https://aiinfra.pkgs.visualstudio.com/PublicPackages/_packaging/onnxruntime-cuda-13/pypi/simple/"
# of the chip that the device tree names, from https://developer.nvidia.com/cuda-gpus
_COMPUTE_CAPABILITIES = {
    "tegra210": "5.3",
    "tegra186": "6.2",
    "tegra194": "7.2",
    "tegra234": "8.7",
    "tegra264": "11.0",
}
# what one module's board names differ in: its maker, its carrier, a mode it was flashed with
_NOT_THE_MODULE = r"\b(NVIDIA|Engineering Reference|Developer Kit|Super)\b"
_WHEELS = {6: "https://pypi.jetson-ai-lab.io/jp6/cu126", 7: SBSA_WHEELS}


@dataclass(frozen=True)
class Jetson:
    """An NVIDIA Jetson.

    Attributes:
        board: as the device tree names it, None where it does not.
        l4t: Jetson Linux release, such as `36.4.3`.
        jetpack: such as `6.2`; only the major version, such as `6`, for a release that is not in our table; None
            for one of an unknown major version.
        compute_capability: of its GPU, such as `8.7`; None where the device tree names no chip that we know.
    """

    board: str | None
    l4t: str
    jetpack: str | None
    compute_capability: str | None = None

    @property
    def jetpack_major(self) -> int | None:
        """5, 6, 7 ..., None when unknown."""
        return int(self.jetpack.split(".")[0]) if self.jetpack else None

    @property
    def module(self) -> str | None:
        """The board's name without its carrier, such as `Jetson Orin Nano`: what an engine is tied to."""
        return " ".join(re.sub(_NOT_THE_MODULE, " ", self.board).split()) or None if self.board else None

    @property
    def wheels(self) -> str | None:
        """The package index that holds onnxruntime-gpu for this JetPack, None where we know of none."""
        return _WHEELS.get(self.jetpack_major) if self.jetpack_major is not None else None


def parse_jetson(
    tegra_release: str, *, jetpack_package: str | None, board: str | None, compatible: str | None = None
) -> Jetson | None:
    """Read `/etc/nv_tegra_release`; None when it is not in the known form.

    Args:
        tegra_release: such as `# R36 (release), REVISION: 4.3, GCID: ...`.
        jetpack_package: version of the Debian package `nvidia-jetpack`, such as `6.2.1+b38`, if installed.
        board: content of `/proc/device-tree/model`.
        compatible: content of `/proc/device-tree/compatible`, which names the chip.
    """
    found = re.search(r"R(\d+)\s*\(release\),\s*REVISION:\s*(\d+(?:\.\d+)*)", tegra_release)
    if not found:
        return None
    release = f"{found[1]}.{found[2]}"
    jetpack = jetpack_package.split("+")[0].split("-")[0] if jetpack_package else None
    padded = release if release.count(".") > 1 else f"{release}.0"
    jetpack = jetpack or _JETPACK.get(padded) or _MAJOR.get(int(found[1]))
    chip = re.search(r"tegra\d+", compatible or "")
    return Jetson(
        board=board.strip("\0 \n") if board else None,
        l4t=release,
        jetpack=jetpack,
        compute_capability=_COMPUTE_CAPABILITIES.get(chip[0]) if chip else None,
    )
