"""Names of GPUs and Jetson modules, and what they stand for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from clipdeploy.engine_key import EngineBackend

_DOCS = "https://docs.nvidia.com/deeplearning"
_MATRIX = f"{_DOCS}/tensorrt/latest/getting-started/support-matrix.html"
_RTX_MATRIX = f"{_DOCS}/tensorrt-rtx/latest/getting-started/support-matrix.html"
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


@dataclass(frozen=True)
class Support:
    """A GPU that a product builds for.

    Attributes:
        since: first version of the product.
        source: where that is said.
        until: first version without it; None where none is known.
    """

    since: tuple[int, ...]
    source: str
    until: tuple[int, ...] | None = None


_RELEASE = f"{_DOCS}/tensorrt/latest/getting-started/release-notes-10"
GPUS: dict[EngineBackend, dict[str, Support]] = {
    "tensorrt": {
        "7.0": Support((10, 0), f"{_RELEASE}/10.4.0.html", until=(10, 5)),
        "7.5": Support((10, 0), _MATRIX),
        "8.0": Support((10, 0), _MATRIX),
        "8.6": Support((10, 0), _MATRIX),
        "8.7": Support((10, 0), _MATRIX),
        "8.9": Support((10, 0), _MATRIX),
        "9.0": Support((10, 0), _MATRIX),
        "10.0": Support((10, 8), f"{_RELEASE}/10.8.0.html"),
        "10.3": Support((10, 14), f"{_RELEASE}/10.14.1.html"),
        "11.0": Support((10, 13), "https://developer.nvidia.com/embedded/jetpack-archive"),
        "12.0": Support((10, 8), f"{_RELEASE}/10.8.0.html"),
        "12.1": Support((10, 14), f"{_RELEASE}/10.14.1.html"),
    },
    # 8.0 and 12.1 stand in no matrix up to 1.4; version 1.7.1 offers them.
    "tensorrt-rtx": {
        "7.5": Support((1, 0), _RTX_MATRIX),
        "8.0": Support((1, 7), "ComputeCapability.SM80 of TensorRT for RTX 1.7.1"),
        "8.6": Support((1, 0), _RTX_MATRIX),
        "8.9": Support((1, 0), _RTX_MATRIX),
        "12.0": Support((1, 0), _RTX_MATRIX),
        "12.1": Support((1, 7), "ComputeCapability.SM121 of TensorRT for RTX 1.7.1"),
    },
}

PORTABLE_FROM = (8, 0)
"""Engines of TensorRT for RTX are for these and later GPUs unless told otherwise, for Turing only when it is named:
https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/cpu-engines.html. That page begins at 8.6 or,
in some revisions, at 8.0; where the product offers 8.0, it is built for too."""


def portable(version: tuple[int, ...]) -> tuple[str, ...]:
    """The GPUs that a version of TensorRT for RTX makes an engine for where none is named, ascending."""
    return tuple(
        capability
        for capability, support in GPUS["tensorrt-rtx"].items()
        if tuple(map(int, capability.split("."))) >= PORTABLE_FROM and version >= support.since[: len(version)]
    )


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
