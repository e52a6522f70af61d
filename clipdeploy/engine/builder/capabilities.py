"""GPU generations by their compute capability, and which of them an engine is built for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from clipdeploy.engine.builder.outline import Outline
from clipdeploy.engine.product import Product
from clipdeploy.engine.targets.devices import PORTABLE_FROM
from clipdeploy.errors import EngineError, InputError

_TEXT = re.compile(r"(?:sm[_ ]?)?(\d{1,2})\.?(\d)", re.IGNORECASE)
_MEMBER = re.compile(r"SM(\d+)(\d)")
_FP8_FROM, _BF16_FROM, _FP32_FROM = (8, 9), (8, 0), (8, 0)
"""What a GPU of TensorRT for RTX must be to multiply in that type: its support matrix and, for float32 on Turing, its
refusal "FP32 GEMM is not supported"."""


def parse_capability(text: str) -> str:
    """`8.6` from `8.6`, `86`, `sm86` or `sm_86`; raises InputError."""
    found = _TEXT.fullmatch(text.strip())
    if not found:
        raise InputError(f"no compute capability: {text!r}", fix="write it as 8.6 or sm86; 12.0 is sm120")
    return f"{int(found[1])}.{found[2]}"


def parse_capabilities(texts: Iterable[str]) -> tuple[str, ...]:
    """Read several, also with commas between them; ascending, each once."""
    parsed = {parse_capability(part) for text in texts for part in text.split(",")}
    return tuple(sorted(parsed, key=numbers))


def numbers(capability: str) -> tuple[int, int]:
    """`8.6` as (8, 6), which compares as GPUs do."""
    major, minor = capability.split(".")
    return int(major), int(minor)


def known_to(product: Product) -> dict[str, Any]:
    """Capability -> the product's own name of it, ascending; empty for TensorRT, which takes the GPU it finds."""
    members = getattr(getattr(product.module, "ComputeCapability", None), "__members__", {})
    found = {f"{match[1]}.{match[2]}": member for name, member in members.items() if (match := _MEMBER.fullmatch(name))}
    return {capability: found[capability] for capability in sorted(found, key=numbers)}


def choose_capabilities(
    product: Product, outline: Outline, *, asked: tuple[str, ...] = (), here: str | None = None
) -> tuple[str, ...]:
    """What the engine will run on, ascending.

    Args:
        asked: by the user; empty takes `here`, and without a GPU all that TensorRT for RTX makes portable engines
            for and that compute in the graph's types.
        here: of this machine's GPU, None where there is none.

    Raises:
        EngineError: the product does not build for that, or that GPU does not compute in the graph's types.
    """
    if not product.rtx:
        return _of_this_machine(product, asked, here)
    known = known_to(product)
    least, why = _least(outline)
    wanted = asked or ((here,) if here else ())
    unknown = [capability for capability in wanted if capability not in known]
    if unknown:
        whose = "this machine's GPU has" if not asked else "asked for"
        raise EngineError(
            f"{product} builds for compute capability {', '.join(known)}; {whose} {', '.join(unknown)}",
            fix="name those of the GPUs that will run it with --compute-capability, or build on the device itself with "
            "--backend tensorrt",
        )
    if not wanted:
        return tuple(c for c in known if numbers(c) >= max(least, PORTABLE_FROM))
    unfit = [capability for capability in wanted if numbers(capability) < least]
    if unfit:
        raise EngineError(
            f"a GPU of compute capability {', '.join(unfit)} cannot run {outline.path.name}: {why}, which needs "
            f"{least[0]}.{least[1]} or later",
            fix="build that GPU's engine with --precision fp16 or int8, or leave it out of --compute-capability",
        )
    return tuple(sorted(set(wanted), key=numbers))


def set_capabilities(config: Any, product: Product, capabilities: tuple[str, ...]) -> None:
    """Tell the builder; TensorRT takes the GPU it finds."""
    if not product.rtx:
        return
    known = known_to(product)
    config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        if not config.set_compute_capability(known[capability], index):
            raise EngineError(
                f"{product} refuses compute capability {capability}", fix="leave it out of --compute-capability"
            )


def _of_this_machine(product: Product, asked: tuple[str, ...], here: str | None) -> tuple[str, ...]:
    if here is None and len(asked) != 1:
        raise EngineError(
            f"{product} builds on the GPU that runs the engine, and none is seen here",
            fix="run clipdeploy doctor on the device; --backend tensorrt-rtx builds without a GPU, for RTX GPUs",
        )
    if here is not None and asked not in ((), (here,)):
        raise EngineError(
            f"{product} builds for the GPU of this machine, compute capability {here}; asked for {', '.join(asked)}",
            fix="leave --compute-capability out and build on that GPU, or pass --hardware-compatible for all GPUs from "
            "Ampere on, or --backend tensorrt-rtx",
        )
    return (here,) if here is not None else asked


def _least(outline: Outline) -> tuple[tuple[int, int], str]:
    """The oldest GPU that computes in the graph's types, and which type asks for it."""
    if outline.fp8:
        return _FP8_FROM, "it has 8-bit floats"
    if "BFLOAT16" in outline.dtypes:
        return _BF16_FROM, "it computes in bfloat16"
    if not outline.dtypes & {"FLOAT16", "INT8"}:
        return _FP32_FROM, "it multiplies in float32"
    return (0, 0), ""
