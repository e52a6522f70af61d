"""Which GPUs a product builds for, in which precisions, and where there is a deep learning accelerator."""

from __future__ import annotations

from clipdeploy.engine.targets.devices import GPUS
from clipdeploy.engine.targets.target import EngineTarget, Version
from clipdeploy.engine_key import EngineBackend
from clipdeploy.findings import Finding
from clipdeploy.spec import Precision

_DOCS = "https://docs.nvidia.com/deeplearning"
_FORMATS = "https://nvidia.github.io/TransformerEngine/support_matrix.html"
_RTX_MATRIX = f"{_DOCS}/tensorrt-rtx/latest/getting-started/support-matrix.html"
_JETSON_11 = f"{_DOCS}/tensorrt/11.4.1/api/migration/tensorrt-10x-to-11x-jetson.html"
_DLA = f"{_DOCS}/tensorrt/11.4.1/inference-library/work-with-dla.html"
DLA_LAYERS = f"{_DOCS}/tensorrt/latest/inference-library/dla-layer-restrictions.html"


# BF16 from 8.0, FP8 from 8.9: _FORMATS and _RTX_MATRIX. INT8 has tensor cores in all that TensorRT 10 and 11 build for;
# TensorRT for RTX has none of it on Turing.
_LOWEST: dict[EngineBackend, dict[Precision, tuple[Version, str]]] = {
    "tensorrt": {Precision.BF16: ((8, 0), _FORMATS), Precision.FP8: ((8, 9), _FORMATS)},
    "tensorrt-rtx": {
        Precision.BF16: ((8, 0), _RTX_MATRIX),
        Precision.INT8: ((8, 0), _RTX_MATRIX),
        Precision.FP8: ((8, 9), _RTX_MATRIX),
    },
}


def device_findings(target: EngineTarget) -> tuple[Finding, ...]:
    """Whether the product builds for the target's GPUs, what was assumed of it, and whether it has a DLA."""
    findings = [Finding("assumed", "note", f"{text[:1].upper()}{text[1:]}") for text in target.assumed]
    findings += [_gpu(target, capability) for capability in target.compute_capabilities]
    findings += [*_jetpack(target), _dla(target)]
    return tuple(findings)


def precision_finding(target: EngineTarget, precision: Precision) -> Finding:
    """Whether the target's GPUs compute in a precision."""
    lowest, source = _LOWEST[target.backend].get(precision, ((0, 0), ""))
    name = precision.value.upper()
    low = [each for each in target.compute_capabilities if _number(each) < lowest]
    if low:
        least = ".".join(map(str, lowest))
        return Finding(
            "precision",
            "bad",
            f"{name} needs compute capability {least} or later with {target.product}; this is {', '.join(low)} "
            f"({source})",
            "take fp16" + (" or int8" if precision is Precision.FP8 and target.backend == "tensorrt" else ""),
        )
    if target.backend == "tensorrt-rtx" and precision is Precision.INT8:
        return Finding(
            "precision",
            "note",
            f"{target.product} documents INT8 for the weights of products alone ({_RTX_MATRIX}); engines of 1.7 show "
            "INT8 activations as well. Its speed was not measured on a GPU",
            "look at the layers that build-engine reports, and measure it against fp16 on the device; or take fp8 on "
            "sm_89 and later",
        )
    return Finding(
        "precision",
        "good",
        f"{target.product} computes {name} on compute capability {', '.join(target.compute_capabilities)}",
    )


def _gpu(target: EngineTarget, capability: str) -> Finding:
    check = f"sm_{capability.replace('.', '')}"
    known = GPUS[target.backend]
    support = known.get(capability)
    if support is None:
        have = ", ".join(f"sm_{each.replace('.', '')}" for each in known)
        other = target.backend == "tensorrt-rtx" and capability in GPUS["tensorrt"]
        fix = "build with TensorRT for it" if other else "name another GPU, or run the bundle with ONNX Runtime"
        return Finding(check, "bad", f"{target.product} builds for no such GPU; known are {have}", fix)
    if not target.since(support.since):
        first = ".".join(map(str, support.since))
        return Finding(
            check,
            "bad",
            f"{target.product} builds for it from {first} on ({support.source})",
            f"install {target.product} {first} or later",
        )
    if support.until is not None and target.since(support.until):
        end = ".".join(map(str, support.until))
        return Finding(
            check,
            "bad",
            f"{target.product} {end} and later no longer build for it ({support.source})",
            f"install a version before {end}",
        )
    return Finding(check, "good", f"{target.product} {target.version_text} builds for it")


def _jetpack(target: EngineTarget) -> list[Finding]:
    """What TensorRT 11 asks of a Jetson, and what JetPack 6 has."""
    if target.backend != "tensorrt" or not {"8.7", "11.0"} & set(target.compute_capabilities):
        return []
    if target.since((11, 0)) and not target.since((11, 4, 1)):
        return [
            Finding(
                "JetPack",
                "bad",
                f"TensorRT {target.version_text} supports no JetPack ({_JETSON_11})",
                "stay on the TensorRT 10 of the JetPack, or take 11.4.1 with JetPack 7.2.2",
            )
        ]
    if target.since((11, 4, 1)):
        if (target.jetpack or "").startswith("6"):
            return [
                Finding(
                    "JetPack",
                    "bad",
                    f"TensorRT 11 needs JetPack 7.2.2; this is {target.jetpack} ({_JETSON_11})",
                    "take the TensorRT 10.3 that JetPack 6 brings, or upgrade to JetPack 7.2.2",
                )
            ]
        return [
            Finding(
                "JetPack",
                "note",
                f"TensorRT {target.version_text} needs JetPack 7.2.2 or later, on Jetson AGX "
                f"Orin and Jetson Thor, from NVIDIA's package for Linux SBSA ({_JETSON_11})",
            )
        ]
    if "8.7" in target.compute_capabilities and target.since((10, 8)):
        return [
            Finding(
                "JetPack",
                "note",
                "JetPack 6 has TensorRT up to 10.7 "
                f"({_DOCS}/tensorrt/latest/getting-started/support-matrix-10/10.14.1.html); a later one on an "
                "Orin comes with JetPack 7",
            )
        ]
    return []


def _dla(target: EngineTarget) -> Finding:
    """Whether there is a DLA, and what it is good for."""
    if target.backend == "tensorrt-rtx" or target.dla is False or "8.7" not in target.compute_capabilities:
        return Finding("DLA", "good", "none there, and none needed: engines are built for the GPU")
    where = (
        "Jetson AGX Orin and Orin NX have one, Orin Nano has none" if target.dla is None else f"{target.device} has one"
    )
    reach = target.since((11, 4, 1)) or target.before((10, 8))
    version = (
        "" if reach else f"; TensorRT {target.version_text} cannot use it (10.7 was the last before 11.4.1, {_DLA})"
    )
    return Finding(
        "DLA",
        "good",
        f"{where}{version}; engines are built for the GPU: the DLA takes fixed batch sizes and layers of convolutional "
        f"networks, so that most of a transformer would fall back to the GPU ({DLA_LAYERS})",
    )


def _number(capability: str) -> Version:
    major, minor = capability.split(".")
    return int(major), int(minor)
