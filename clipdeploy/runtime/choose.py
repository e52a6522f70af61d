"""Which graphs of a bundle run: one for each encoder, in the asked precision, made for the engine that runs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from clipdeploy.bundle import Bundle
from clipdeploy.errors import BackendError, InputError
from clipdeploy.runtime.backends import ONNXRUNTIME, BackendChoice
from clipdeploy.spec import Precision, Target, Tower

_TARGET_OF: dict[str, Target] = {ONNXRUNTIME: "cpu", "tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt"}
"""What an engine's own 8-bit graphs are made for."""


@dataclass(frozen=True)
class GraphChoice:
    """The graph of one encoder.

    Attributes:
        name: of its file in the bundle.
        path: what is loaded; another file where something stands in for it.
        precision: its number format, which may be fp32 where the encoder has no other.
        target: what it is made for, None where it runs anywhere.
        note: what is not plain about it, for people; often empty.
    """

    name: str
    path: Path
    precision: Precision
    target: Target | None
    note: str = ""

    @property
    def as_written(self) -> bool:
        """Whether Q/DQ must be computed as they are written, since the graph is another engine's."""
        return self.target == "tensorrt"


@dataclass(frozen=True)
class StandIns:
    """Graphs to load in place of the bundle's, such as an emulation of a type that an engine lacks.

    Attributes:
        graphs: of the encoders that have one.
        reason: what they are, for people.
    """

    graphs: dict[Tower, Path] = field(default_factory=dict)
    reason: str = ""


def choose_graphs(
    bundle: Bundle,
    precision: Precision,
    backend: BackendChoice,
    *,
    target: Target | None = None,
    stand_ins: StandIns | None = None,
) -> dict[Tower, GraphChoice]:
    """The graph of every encoder in the bundle.

    An encoder that has no graph in `precision` runs in fp32, as text encoders do that nobody quantised; one of them at
    least must have it. A graph with 8 bits is taken for its target only.

    Args:
        bundle: opened.
        precision: asked for.
        backend: which will run them.
        target: whose 8-bit graphs to take; None takes those made for the engine.
        stand_ins: graphs to load instead.

    Raises:
        InputError: no encoder has the precision; one has it for another target only, or for one that the engine does
            not run; or none has fp32 either.
        BackendError: the engine does not compute in it.
    """
    instead = stand_ins or StandIns()
    wanted = (target or _TARGET_OF.get(backend.name)) if precision.quantised else None
    if wanted == "cpu" and backend.name != ONNXRUNTIME:
        raise InputError(
            f"{backend.name} runs no graphs that are made for processors", fix='leave target away, or pass "tensorrt"'
        )
    towers = [tower for tower in Tower if bundle.precisions(tower)]
    having = [tower for tower in towers if precision in bundle.precisions(tower)]
    if having and precision is Precision.BF16 and backend.name == ONNXRUNTIME and not instead.graphs:
        raise BackendError(
            "ONNX Runtime on the CPU does not compute in bf16",
            fix=f"use fp32 here; whether the graph is right, tells: clipdeploy verify {bundle.folder} --precision bf16",
        )
    chosen = {}
    for tower in towers:
        own = precision if tower in having or not having else Precision.FP32
        name = bundle.graph_name(tower, own, wanted if own is precision else None)
        made_for, note = bundle.manifest.files[name].target, ""
        if own is not precision:
            note = f"{own.value}, since there is no {precision.value} graph"
        elif tower in instead.graphs:
            note = instead.reason
        elif made_for == "tensorrt" and backend.name == ONNXRUNTIME:
            note = "made for TensorRT, computed here as it is written: to check it, not for speed"
        path = instead.graphs.get(tower, bundle.path(name))
        chosen[tower] = GraphChoice(name, path, own, made_for, note)
    return chosen


def told(choice: BackendChoice, graphs: dict[Tower, GraphChoice]) -> BackendChoice:
    """The engine's choice, with what is not plain about the graphs."""
    notes = [f"{tower.value} encoder: {graph.note}" for tower, graph in graphs.items() if graph.note]
    return BackendChoice(choice.name, "; ".join([choice.reason, *notes]))


def check_target(target: str | None) -> None:
    """Raise InputError unless `target` names one, or is None."""
    if target not in (None, "tensorrt", "cpu"):
        raise InputError(f"unknown target {target!r}; expected tensorrt or cpu", fix='pass target="cpu", or None')
