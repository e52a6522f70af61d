"""What is asked of an engine, and what became of it, as frozen records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clipdeploy.engine_key import EngineKey, Profile
from clipdeploy.findings import Finding


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is built; the graph alone decides the precision.

    Attributes:
        profiles: batch sizes, one optimisation profile each.
        compute_capabilities: what the engine must run on, such as `("8.6", "8.9")`; empty takes this machine's GPU, and
            without one the product's default. TensorRT for RTX only.
        workspace_bytes: scratch memory at most; None leaves it to the product, capped by what is free.
        timing_cache: read when there, written afterwards; None keeps none.
        version_compatible: to be loaded by later versions too. TensorRT only.
        hardware_compatible: to run on every GPU from Ampere on. TensorRT only.
        strip_weights: leave the weights out; they are put back from the graph when the engine is loaded.
        optimization_level: 0 to 5; None takes the product's default.
        detailed: keep what the inspector says of each layer in the engine.
    """

    profiles: tuple[Profile, ...] = (Profile(1, 1, 32),)
    compute_capabilities: tuple[str, ...] = ()
    workspace_bytes: int | None = None
    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    strip_weights: bool = False
    optimization_level: int | None = None
    detailed: bool = False


@dataclass(frozen=True)
class BuildMachine:
    """What building asks of the machine it runs on.

    Attributes:
        compute_capability: of its GPU, such as `8.7`; None where none is seen.
        free_bytes: memory of the host that is free, None where it cannot be told.
        gpu_free_bytes: memory of the GPU that is free, None where it cannot be told or there is no GPU.
        jetson: whether it is a Jetson, where host and GPU share one memory.
    """

    compute_capability: str | None = None
    free_bytes: int | None = None
    gpu_free_bytes: int | None = None
    jetson: bool = False


@dataclass(frozen=True)
class EngineTensor:
    """An input or output of an engine's layer; `dtype` as the engine names it, such as `Half` or `Int8`."""

    name: str
    dtype: str


@dataclass(frozen=True)
class EngineLayer:
    """One layer of a built engine.

    Attributes:
        name: as the engine names it.
        kind: as the engine names it, such as `gemm` or `kgen`.
        inputs: activations only.
        outputs: of the layer.
        nodes: names of the ONNX nodes that it computes, where the engine tells.
        constants: weights and scales that it reads.
        tactic: the kernel chosen, empty where the engine does not tell.
    """

    name: str
    kind: str
    inputs: tuple[EngineTensor, ...]
    outputs: tuple[EngineTensor, ...]
    nodes: tuple[str, ...] = ()
    constants: tuple[EngineTensor, ...] = ()
    tactic: str = ""


LayerSource = Literal["inspector", "build log", "none"]


@dataclass(frozen=True)
class LayerReport:
    """What an engine is made of.

    Attributes:
        source: who told: the engine's inspector, which needs a GPU, or the builder's log, which does not.
        layers: in the order of execution; empty where nobody told.
        attention_blocks: of the graph.
        attention_fused: of those, how many are one layer, None where it cannot be told.
    """

    source: LayerSource
    layers: tuple[EngineLayer, ...] = ()
    attention_blocks: int = 0
    attention_fused: int | None = None


@dataclass(frozen=True)
class Built:
    """An engine file as the builder left it.

    Attributes:
        path: of the file, not yet in any bundle.
        size_bytes: of it.
        seconds: what building took.
        compute_capabilities: those that it runs on.
        log: the builder's lines that describe the engine's layers.
        warnings: of the builder, each once, that a user should read.
    """

    path: Path
    size_bytes: int
    seconds: float
    compute_capabilities: tuple[str, ...]
    log: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class EngineRecord:
    """How an engine in a bundle was made; `engine.json` beside it.

    Attributes:
        key: what it is tied to.
        graph: name of the encoder's ONNX file in the bundle; what takes the key's frames stands in front of it.
        size_bytes: of the engine file.
        build_seconds: what building took.
        created: UTC, ISO 8601.
        tools: versions of what made it.
        report: its layers.
        findings: whether it is what was asked; see `asked.py`.
        warnings: of the builder.
    """

    key: EngineKey
    graph: str
    size_bytes: int
    build_seconds: float
    created: str
    tools: dict[str, str]
    report: LayerReport
    findings: tuple[Finding, ...] = ()
    warnings: tuple[str, ...] = ()
