"""Whether a build fits into the memory that is free, and how much scratch memory its kernels may take."""

from __future__ import annotations

from dataclasses import dataclass

from clipdeploy.engine.builder.outline import Outline
from clipdeploy.engine.product import Product
from clipdeploy.engine.records import BuildMachine, BuildOptions
from clipdeploy.errors import EngineError

MIB = 1024**2
_GRAPH_COPIES = 3.0
"""Copies of the graph's bytes that the host holds at the peak: the file, the builder's weights and the engine.
Measured with TensorRT for RTX 1.7: 1.31 GB for the 351 MB of ViT-B/32, 0.3 GB of them the library itself."""
_CERTAIN_COPIES = 2.0
"""The builder's weights and the engine, at the least."""
_LIBRARY_BYTES = {"tensorrt": 1600 * MIB, "tensorrt-rtx": 350 * MIB}
"""What the library takes before any graph: TensorRT's kernels come to 1454 MiB on the host (its own log line "Init
builder kernel library", TensorRT issue 3566)."""
_SHARED_WORKSPACE, _OWN_WORKSPACE = 0.5, 0.8
"""Of what is left, the part that kernels may take: where host and GPU share memory, and where the GPU has its own."""
_LEAST_WORKSPACE_BYTES = 256 * MIB

TOO_SMALL = (
    "close other programs (on a Jetson also the desktop: sudo systemctl isolate multi-user.target), add swap, "
    "or build a lighter graph: --precision fp16, a smaller largest --batch, one --tower at a time"
)


@dataclass(frozen=True)
class MemoryPlan:
    """What a build may take.

    Attributes:
        workspace_bytes: scratch memory of a kernel at most; None leaves it to the product.
        needed_bytes: estimate of the host's memory at the peak.
        free_bytes: memory of the host that is free, None where it cannot be told.
        warnings: what a user should know before waiting for the build.
    """

    workspace_bytes: int | None
    needed_bytes: int
    free_bytes: int | None
    warnings: tuple[str, ...] = ()


def plan_memory(outline: Outline, options: BuildOptions, product: Product, machine: BuildMachine) -> MemoryPlan:
    """Weigh the build against what is free; raises EngineError where it cannot fit."""
    needed = _LIBRARY_BYTES[product.backend] + int(_GRAPH_COPIES * outline.bytes_on_disk)
    warnings = []
    free = machine.free_bytes
    if free is not None:
        figures = f"building from {outline.path.name} takes about {show(needed)} of memory, {show(free)} are free"
        if free < _CERTAIN_COPIES * outline.bytes_on_disk:
            raise EngineError(figures, fix=TOO_SMALL)
        if free < needed:
            warnings.append(f"{figures}: it may fail for want of memory; {TOO_SMALL}")
    workspace = options.workspace_bytes
    if workspace is None:
        workspace = _room(needed, product, machine)
    elif not product.rtx and machine.gpu_free_bytes is not None and workspace > machine.gpu_free_bytes:
        warnings.append(
            f"--workspace asks for {show(workspace)}, and {show(machine.gpu_free_bytes)} of the GPU's are free"
        )
    return MemoryPlan(workspace, needed, free, tuple(warnings))


def show(count: int) -> str:
    """Bytes for people: `512 MiB`, `1.5 GiB`."""
    return f"{count / MIB:.0f} MiB" if count < 1024 * MIB else f"{count / 1024 / MIB:.1f} GiB"


def _room(needed: int, product: Product, machine: BuildMachine) -> int | None:
    """Scratch memory that kernels may be tried with: they run while TensorRT chooses, so what is not free fails.

    TensorRT for RTX runs nothing while it builds, and the memory of this machine says nothing of the device's.
    """
    if product.rtx or machine.gpu_free_bytes is None:
        return None
    if machine.jetson:  # host and GPU share one memory
        return max(int(_SHARED_WORKSPACE * (machine.gpu_free_bytes - needed)), _LEAST_WORKSPACE_BYTES)
    return max(int(_OWN_WORKSPACE * machine.gpu_free_bytes), _LEAST_WORKSPACE_BYTES)
