"""Names of GPUs and Jetson modules, and what they stand for."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Compute capabilities: https://developer.nvidia.com/cuda-gpus and
# https://nvidia.github.io/TransformerEngine/support_matrix.html; DGX Spark:
# https://docs.nvidia.com/deeplearning/tensorrt/latest/getting-started/release-notes-11/11.1.0.html
_GPUS: tuple[tuple[str, str], ...] = (
    (r"rtx 50\d\d( ti| super| laptop)*", "12.0"),
    (r"rtx pro [2456]\d{3}( blackwell)?", "12.0"),
    (r"rtx 40\d\d( ti| super| laptop)*", "8.9"),
    (r"rtx [2-6]0{3} ada", "8.9"),
    (r"rtx 30\d\d( ti| super| laptop)*", "8.6"),
    (r"rtx a[2-6]\d{3}", "8.6"),
    (r"(rtx 20\d\d|gtx 16\d\d)( ti| super)*", "7.5"),
    (r"gb10|dgx spark", "12.1"),
    (r"b300|gb300", "10.3"),
    (r"b200|gb200", "10.0"),
    (r"h100|h200|gh200", "9.0"),
    (r"l4|l40s?", "8.9"),
    (r"a10|a16|a40|a2", "8.6"),
    (r"a100|a30", "8.0"),
    (r"t4", "7.5"),
    (r"v100", "7.0"),
)


@dataclass(frozen=True)
class Module:
    """A Jetson module, or a family of them.

    Attributes:
        name: as NVIDIA calls it.
        compute_capability: of its GPU.
        jetpack: the oldest JetPack whose TensorRT this package builds for; None where there is none.
        dla: whether it has a deep learning accelerator; None where modules of the family differ.
    """

    name: str
    compute_capability: str
    jetpack: str | None
    dla: bool | None


# https://developer.nvidia.com/embedded/jetson-modules; Thor has no DLA:
# https://docs.nvidia.com/deeplearning/tensorrt/11.4.1/inference-library/work-with-dla.html
MODULES: tuple[tuple[str, Module], ...] = (
    (r"(jetson )?agx orin( .*)?", Module("Jetson AGX Orin", "8.7", "6", True)),
    (r"(jetson )?orin nx( .*)?", Module("Jetson Orin NX", "8.7", "6", True)),
    (r"(jetson )?orin nano( .*)?", Module("Jetson Orin Nano", "8.7", "6", False)),
    (r"(jetson )?orin", Module("Jetson Orin", "8.7", "6", None)),
    (r"(jetson )?(agx )?(thor|t[45]000)", Module("Jetson Thor", "11.0", "7", False)),
    (r"(jetson )?(agx )?xavier( .*)?", Module("Jetson Xavier", "7.2", None, True)),
)

# JetPack -> TensorRT, from https://developer.nvidia.com/embedded/jetpack-archive. JetPack 6.0 brings 8.6.
JETPACKS: tuple[tuple[str, str, str], ...] = (
    (r"6|6\.[12](\.\d+)?", "10.3", "8.7"),
    (r"7|7\.[01](\.\d+)?", "10.13", "11.0"),
)
"""Pattern of a JetPack's version, the TensorRT that it brings, the compute capability it is for."""


def gpu_capability(name: str) -> str | None:
    """The compute capability of a GPU by its name, such as `rtx 4090` or `NVIDIA A100-SXM4-80GB`."""
    plain = re.sub(r"\b(nvidia|geforce|tesla|quadro|generation|workstation|server|edition)\b", " ", name.lower())
    words = " ".join(re.split(r"[\s_-]+", plain)).strip()
    for pattern, capability in _GPUS:
        if re.fullmatch(rf"({pattern})( (sxm\d?|pcie|nvl|\d+ ?gb|hbm\d\w?))*", words):
            return capability
    return None


def jetson_module(name: str) -> Module | None:
    """The Jetson module of this name, such as `agx orin`."""
    plain = " ".join(name.lower().replace("nvidia", "").split())
    return next((module for pattern, module in MODULES if re.fullmatch(pattern, plain)), None)


def jetpack_facts(jetpack: str) -> tuple[str, str] | None:
    """The TensorRT that a JetPack brings, and the compute capability it is for; None for one that is not known."""
    found = (facts for pattern, *facts in JETPACKS if re.fullmatch(pattern, jetpack))
    return next(((version, capability) for version, capability in found), None)
