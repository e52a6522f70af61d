"""Build options to the builder's configuration, and what each of the two products cannot do of them."""

from __future__ import annotations

from typing import Any

from clipdeploy.engine.builder.capabilities import set_capabilities
from clipdeploy.engine.builder.memory import MIB
from clipdeploy.engine.product import Product
from clipdeploy.engine.records import BuildMachine, BuildOptions
from clipdeploy.errors import EngineError, InputError

_HIGHEST_LEVEL = 5


def flags(options: BuildOptions) -> tuple[str, ...]:
    """The options that change an engine, for its key; sorted."""
    found = {
        "version-compatible": options.version_compatible,
        "hardware-compatible": options.hardware_compatible,
        "strip-weights": options.strip_weights,
        "detailed": options.detailed,
        f"optimization-level={options.optimization_level}": options.optimization_level is not None,
        f"workspace={(options.workspace_bytes or 0) / MIB:g}MiB": options.workspace_bytes is not None,
    }
    return tuple(sorted(name for name, there in found.items() if there))


def check_options(options: BuildOptions, product: Product, machine: BuildMachine) -> None:
    """Refuse what the product, or this machine, cannot do; raises EngineError or InputError."""
    level = options.optimization_level
    if level is not None and not 0 <= level <= _HIGHEST_LEVEL:
        raise InputError(f"--optimization-level must be 0 to {_HIGHEST_LEVEL}, got {level}")
    if options.workspace_bytes is not None and options.workspace_bytes < 1:
        raise InputError(f"--workspace must be positive, got {options.workspace_bytes} bytes")
    if product.rtx:
        _check_rtx(options, product, machine)
    elif options.hardware_compatible and machine.jetson:
        raise EngineError(
            "TensorRT builds no hardware-compatible engines on a Jetson",
            fix="leave --hardware-compatible out; an engine built here runs on Jetsons of this kind and JetPack",
        )
    for name, asked in (("STRIP_PLAN", options.strip_weights), ("VERSION_COMPATIBLE", options.version_compatible)):
        if asked and not hasattr(product.module.BuilderFlag, name):
            raise EngineError(f"{product} cannot do that: it has no builder flag {name}", fix="leave the option out")


def _check_rtx(options: BuildOptions, product: Product, machine: BuildMachine) -> None:
    """What TensorRT for RTX does not have."""
    if options.strip_weights:
        _check_stripping(options, product, machine)
    if options.version_compatible:
        raise EngineError(
            f"{product} has no engines for other versions: it ships no lean runtime",
            fix="leave --version-compatible out and build again after an upgrade, which takes seconds",
        )
    if options.hardware_compatible:
        raise EngineError(
            f"{product} does not know --hardware-compatible: its engines name the GPUs they run on",
            fix="name them with --compute-capability 8.6,8.9,12.0, or leave both out for all RTX GPUs from Ampere on",
        )
    if options.timing_cache is not None:
        raise EngineError(
            f"{product} times no kernels while it builds, so it has no use for a timing cache",
            fix="leave --timing-cache out",
        )


def _check_stripping(options: BuildOptions, product: Product, machine: BuildMachine) -> None:
    """What leaving weights out asks of TensorRT for RTX: a GPU, and one compute capability at most.

    https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/cpu-engines.html, "Weightless Engines"
    """
    if machine.compute_capability is None:
        raise EngineError(
            f"{product} leaves weights out only where an NVIDIA GPU is, and none is seen here",
            fix="build with --strip-weights on a machine with a GPU, or leave --strip-weights out",
        )
    if len(options.compute_capabilities) > 1:
        raise EngineError(
            f"{product} leaves weights out of an engine for one compute capability, not for "
            f"{', '.join(options.compute_capabilities)}",
            fix="build an engine for each with --strip-weights, or leave --strip-weights out",
        )


def make_config(
    builder: Any,
    product: Product,
    options: BuildOptions,
    *,
    capabilities: tuple[str, ...],
    workspace_bytes: int | None,
) -> Any:
    """A builder configuration that does what the options say; batch profiles and monitor are added by others.

    TensorRT for RTX and TensorRT 11 log the types of the final layers at the detailed verbosity alone, and where there
    is no GPU the log is all that tells them; an engine of TensorRT for RTX 1.7 is not a byte larger for it. TensorRT 10
    logs them anyway, and there the verbosity is what the user asks for.
    """
    module = product.module
    config = builder.create_builder_config()
    detailed = options.detailed or product.rtx or product.major >= 11
    verbosity = module.ProfilingVerbosity
    config.profiling_verbosity = verbosity.DETAILED if detailed else verbosity.LAYER_NAMES_ONLY
    # On by default, it would round the operands of float32 products to 10 bits: fp32 is what was asked, and verified.
    config.clear_flag(module.BuilderFlag.TF32)
    set_capabilities(config, product, capabilities)
    if workspace_bytes is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, workspace_bytes)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.version_compatible:
        config.set_flag(module.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = module.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.strip_weights:
        # Never REFIT: it may drop a bias (release notes of TensorRT 11.3); the weights put back are the same ones. For
        # RTX the page in `_check_stripping` names REFIT alone; the flag is there too, and ONNX Runtime's provider for
        # RTX sets this one.
        config.set_flag(module.BuilderFlag.STRIP_PLAN)
        config.set_flag(module.BuilderFlag.REFIT_IDENTICAL)
    return config
