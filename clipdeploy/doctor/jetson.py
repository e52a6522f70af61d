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
# PyPI has no onnxruntime-gpu for aarch64 (https://github.com/microsoft/onnxruntime/issues/20503); these indexes do
# (https://github.com/dusty-nv/jetson-containers/issues/1283).
SBSA_WHEELS = "https://pypi.jetson-ai-lab.io/sbsa/cu130"
_WHEELS = {6: "https://pypi.jetson-ai-lab.io/jp6/cu126", 7: SBSA_WHEELS}


@dataclass(frozen=True)
class Jetson:
    """An NVIDIA Jetson.

    Attributes:
        board: as the device tree names it, None where it does not.
        l4t: Jetson Linux release, such as `36.4.3`.
        jetpack: such as `6.2`; only the major version, such as `6`, for a release that is not in our table; None
            for one of an unknown major version.
    """

    board: str | None
    l4t: str
    jetpack: str | None

    @property
    def jetpack_major(self) -> int | None:
        """5, 6, 7 ..., None when unknown."""
        return int(self.jetpack.split(".")[0]) if self.jetpack else None

    @property
    def wheels(self) -> str | None:
        """The package index that holds onnxruntime-gpu for this JetPack, None where we know of none."""
        return _WHEELS.get(self.jetpack_major) if self.jetpack_major is not None else None


def parse_jetson(tegra_release: str, *, jetpack_package: str | None, board: str | None) -> Jetson | None:
    """Read `/etc/nv_tegra_release`; None when it is not in the known form.

    Args:
        tegra_release: such as `# R36 (release), REVISION: 4.3, GCID: ...`.
        jetpack_package: version of the Debian package `nvidia-jetpack`, such as `6.2.1+b38`, if installed.
        board: content of `/proc/device-tree/model`.
    """
    found = re.search(r"R(\d+)\s*\(release\),\s*REVISION:\s*(\d+(?:\.\d+)*)", tegra_release)
    if not found:
        return None
    release = f"{found[1]}.{found[2]}"
    jetpack = jetpack_package.split("+")[0].split("-")[0] if jetpack_package else None
    padded = release if release.count(".") > 1 else f"{release}.0"
    jetpack = jetpack or _JETPACK.get(padded) or _MAJOR.get(int(found[1]))
    return Jetson(board=board.strip("\0 \n") if board else None, l4t=release, jetpack=jetpack)
