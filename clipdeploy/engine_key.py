"""What a TensorRT engine is tied to: an engine runs where all of it is the same, and nowhere else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from typing import Any, Literal

from clipdeploy.errors import InputError
from clipdeploy.spec import FrameSpec, Precision, Tower, to_dict

EngineBackend = Literal["tensorrt", "tensorrt-rtx"]
ENGINES = "engines"
"""The bundle's folder of engines; one folder a key below it."""
ENGINE_FILE, RECORD_FILE = "engine.plan", "engine.json"


@dataclass(frozen=True)
class Profile:
    """The batch sizes that one optimisation profile takes: `smallest .. largest`, fastest at `usual`."""

    smallest: int
    usual: int
    largest: int

    def __post_init__(self) -> None:
        if not 1 <= self.smallest <= self.usual <= self.largest:
            raise InputError(
                f"a batch profile needs 1 <= MIN <= OPT <= MAX, got {self.smallest},{self.usual},{self.largest}",
                fix="pass for example --batch 1,8,32",
            )

    def __str__(self) -> str:
        return f"{self.smallest},{self.usual},{self.largest}"


@dataclass(frozen=True)
class EngineKey:
    """Everything that an engine file depends on.

    Attributes:
        backend: the product that built it and must load it.
        version: of that product, in full, such as `10.3.0.30`.
        platform: operating system and processor, such as `linux-x86_64`.
        gpu: the GPU it was built on; None where it is built for compute capabilities, without one.
        compute_capabilities: those it runs on, such as `("8.7",)`, ascending.
        jetpack: of the device it was built on, such as `6.1`; None off Jetson.
        tower: which encoder.
        precision: of the graph.
        graph_sha256: of the ONNX file, and of the weights beside it where there are any; for camera frames of these
            and of the frame graph in front.
        profiles: batch sizes.
        flags: build options that change the engine, such as `version-compatible` or `workspace=1024MiB`; sorted.
        frame: the camera frames that it takes; None where it takes what the encoder does.
    """

    backend: EngineBackend
    version: str
    platform: str
    gpu: str | None
    compute_capabilities: tuple[str, ...]
    jetpack: str | None
    tower: Tower
    precision: Precision
    graph_sha256: str
    profiles: tuple[Profile, ...]
    flags: tuple[str, ...] = ()
    frame: FrameSpec | None = None

    @property
    def digest(self) -> str:
        """8 hex digits over all of it."""
        told = to_dict(self)
        if self.frame is None:
            del told["frame"]  # so that keys from before there were frames keep theirs
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def name(self) -> str:
        """The folder's name: what a person asks first, and the digest of the rest."""
        stem = self.tower.graph_name(self.precision).removesuffix(".onnx")
        if self.frame is not None:
            stem += f"_{self.frame.width}x{self.frame.height}-{self.frame.color}"
        capabilities = "-".join("sm" + capability.replace(".", "") for capability in self.compute_capabilities)
        return f"{stem}_{self.backend}-{self.version}_{capabilities}_{self.digest}"

    def differences(self, other: EngineKey) -> tuple[Difference, ...]:
        """Where this key and another part, in the order of the fields."""
        pairs = ((f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return tuple(Difference(name, mine, theirs) for name, mine, theirs in pairs if mine != theirs)


@dataclass(frozen=True)
class Difference:
    """One field in which two keys part."""

    field: str
    built: Any
    here: Any

    def __str__(self) -> str:
        if self.field == "graph_sha256":
            now = f"the bundle's is {str(self.here)[:12]}... now" if self.here else "the bundle has none now"
            return f"graph: built from {str(self.built)[:12]}..., {now}"
        return f"{self.field.replace('_', ' ')}: built for {_shown(self.built)}, here {_shown(self.here)}"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(getattr(value, "value", value))
