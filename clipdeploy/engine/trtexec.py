"""The command of NVIDIA's own tool that builds the same engine: to compare with, or to send with a bug report.

TensorRT's tool is `trtexec` (on a Jetson `/usr/src/tensorrt/bin/trtexec`), that of TensorRT for RTX is `tensorrt_rtx`.
Flags are those of `trtexec --help` of TensorRT 10, of its migration guide to 11, and of the documentation of TensorRT
for RTX: https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/cpu-engines.html
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from clipdeploy.engine.builder.outline import read_outline
from clipdeploy.engine.builder.profiles import check_profiles
from clipdeploy.engine.product import Product
from clipdeploy.engine.records import BuildOptions
from clipdeploy.engine_key import Profile
from clipdeploy.spec import TensorSpec

_MIB = 1024**2
_STRONGLY_TYPED_ONLY = 11
"""From this TensorRT on every network is strongly typed, and the flag says nothing."""


def trtexec_line(graph: Path, plan: Path, options: BuildOptions, product: Product, *, like: Path | None = None) -> str:
    """One line for a shell that builds an engine from `graph` into `plan` as `build` does, and runs nothing.

    Args:
        graph: the ONNX file.
        plan: where the engine goes.
        options: how it is built. A comment at the end names those that `tensorrt_rtx` has no documented flag for.
        product: which tool, and of which version.
        like: a graph with the same input, where `graph` is not written yet.

    Raises:
        EngineError: the graph cannot be read, or the batches do not fit it.
    """
    tensor = check_profiles(options.profiles, read_outline(like or graph))
    words = ["tensorrt_rtx" if product.rtx else "trtexec", f"--onnx={graph}", f"--saveEngine={plan}"]
    if not product.rtx and int(product.version.split(".")[0]) < _STRONGLY_TYPED_ONLY:
        words.append("--stronglyTyped")
    words += _shapes(options.profiles, tensor)
    words += _for_rtx(options) if product.rtx else _for_tensorrt(options)
    words.append("--skipInference")
    lost = list(_lost_on_rtx(options)) if product.rtx else []
    return shlex.join(words) + (f"  # without {' and '.join(lost)}: no flag is documented" if lost else "")


def _shapes(profiles: tuple[Profile, ...], tensor: TensorSpec) -> Iterator[str]:
    """The batches; a graph whose batch is fixed takes none."""
    batch, *rest = tensor.shape
    if isinstance(batch, int):
        return
    for index, profile in enumerate(profiles):
        if len(profiles) > 1:
            yield f"--profile={index}"
        for flag, size in (("min", profile.smallest), ("opt", profile.usual), ("max", profile.largest)):
            yield f"--{flag}Shapes={tensor.name}:" + "x".join(map(str, (size, *rest)))


def _for_tensorrt(options: BuildOptions) -> Iterator[str]:
    yield "--noTF32"
    if options.workspace_bytes is not None:
        yield f"--memPoolSize=workspace:{options.workspace_bytes / _MIB:g}M"
    if options.timing_cache is not None:
        yield f"--timingCacheFile={options.timing_cache}"
    if options.version_compatible:
        yield "--versionCompatible"
    if options.hardware_compatible:
        yield "--hardwareCompatibilityLevel=ampere+"
    if options.strip_weights:
        yield "--stripWeights"
    if options.optimization_level is not None:
        yield f"--builderOptimizationLevel={options.optimization_level}"
    if options.detailed:
        yield "--profilingVerbosity=detailed"


def _for_rtx(options: BuildOptions) -> Iterator[str]:
    if options.compute_capabilities:
        yield "--computeCapabilities=" + ",".join(text.replace(".", "") for text in options.compute_capabilities)
    if options.strip_weights:
        yield "--stripWeights"


def _lost_on_rtx(options: BuildOptions) -> Iterator[str]:
    """What the builder is told, and NVIDIA documents no flag for."""
    yield "TF32 switched off"
    if options.workspace_bytes is not None:
        yield f"a workspace of {options.workspace_bytes / _MIB:g} MiB"
    if options.optimization_level is not None:
        yield f"optimisation level {options.optimization_level}"
