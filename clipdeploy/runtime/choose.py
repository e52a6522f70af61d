"""Which graphs of a bundle run: one for each encoder, in the asked precision, made for the engine that runs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from clipdeploy.bundle import Bundle
from clipdeploy.errors import BackendError, InputError
from clipdeploy.runtime.backends import AUTO, ONNXRUNTIME, OPENVINO, BackendChoice
from clipdeploy.spec import Precision, Target, Tower


@dataclass(frozen=True)
class _Takes:
    """What graphs a backend takes.

    Attributes:
        target: what its 8-bit graphs are made for.
        refused: precisions that it does not compute in, and why not.
        bf16_from_fp32: whether it rounds the fp32 graph to bf16 by itself.
        fp16: what is not plain about that, for people.
    """

    target: Target = "tensorrt"
    refused: dict[Precision, str] = field(default_factory=dict)
    bf16_from_fp32: bool = False
    fp16: str = ""


_TAKES: dict[str, _Takes] = {
    ONNXRUNTIME: _Takes("cpu", {Precision.BF16: "ONNX Runtime on the CPU does not compute in bf16"}),
    "onnxruntime:cuda": _Takes(
        refused={
            precision: "ONNX Runtime on CUDA does not compute in 8 bits, but in float what was rounded to them"
            for precision in Precision
            if precision.quantised
        }
    ),
    OPENVINO: _Takes(
        refused={Precision.FP8: "OpenVINO on the CPU does not compute in fp8"},
        bf16_from_fp32=True,
        fp16="16-bit weights, computed in float32",
    ),
    "openvino:gpu": _Takes(
        refused={
            Precision.BF16: "OpenVINO on a GPU is run in fp32, fp16 and int8 only",
            Precision.FP8: "OpenVINO on a GPU is run in fp32, fp16 and int8 only",
        },
    ),
}
"""What is not here takes everything, with 8-bit graphs made for TensorRT."""


@dataclass(frozen=True)
class GraphChoice:
    """The graph of one encoder.

    Attributes:
        name: of its file in the bundle.
        path: what is loaded; another file where something stands in for it.
        precision: its number format, which may be fp32 where the encoder has no other.
        target: what it is made for, None where it runs anywhere.
        note: what is not plain about it, for people; often empty.
        as_written: whether Q/DQ must be computed as they are written, since the graph is another engine's.
    """

    name: str
    path: Path
    precision: Precision
    target: Target | None
    note: str = ""
    as_written: bool = False


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
    freely: bool = False,
) -> dict[Tower, GraphChoice]:
    """The graph of every encoder in the bundle.

    An encoder that has no graph in `precision` runs in fp32, as text encoders do that nobody quantised; one of them at
    least must have it. Beside 8 bits that were chosen freely, it runs in bf16 where engine and processor have it. A
    graph with 8 bits is taken for its target only. An engine that rounds to bf16 by itself takes fp32 graphs for it.

    Args:
        bundle: opened.
        precision: asked for.
        backend: which will run them.
        target: whose 8-bit graphs to take; None takes those made for the engine.
        stand_ins: graphs to load instead.
        freely: whether the precision was left to us, so that an encoder without it need not be exact.

    Raises:
        InputError: no encoder has the precision; one has it for another target only, or for one that the engine does
            not run; or none has fp32 either.
        BackendError: the engine does not compute in it.
    """
    instead = stand_ins or StandIns()
    takes = _TAKES.get(backend.name, _Takes())
    wanted = (target or takes.target) if precision.quantised else None
    if wanted == "cpu" and takes.target != "cpu":
        raise InputError(
            f"{backend.name} runs no 8-bit graphs of target cpu: they are made for ONNX Runtime on processors",
            fix='leave target away, or pass "tensorrt"',
        )
    towers = [tower for tower in Tower if bundle.precisions(tower)]
    rounds = precision is Precision.BF16 and takes.bf16_from_fp32 and not instead.graphs
    stored = Precision.FP32 if rounds else precision
    having = [tower for tower in towers if stored in bundle.precisions(tower)]
    if having and precision in takes.refused and not instead.graphs:
        raise BackendError(takes.refused[precision], fix=_way_out(bundle, precision, backend))
    if rounds:
        _require_bf16(backend)
    rest = Precision.BF16 if freely and precision.quantised and _rounds_here(backend) else Precision.FP32
    chosen = {}
    for tower in towers:
        own = stored if tower in having or not having else Precision.FP32
        name = bundle.graph_name(tower, own, wanted if own is precision else None)
        made_for, note, as_written = bundle.manifest.files[name].target, "", False
        computed = precision if own is stored else rest
        if own is not stored:
            note = f"{computed.value}, since there is no {precision.value} graph"
        elif tower in instead.graphs:
            note = instead.reason
        elif made_for == "tensorrt" and takes.target == "cpu":
            as_written = True
            note = "made for TensorRT, computed here as it is written: to check it, not for speed"
        elif own is Precision.FP16:
            note = takes.fp16
        path = instead.graphs.get(tower, bundle.path(name))
        chosen[tower] = GraphChoice(name, path, computed, made_for, note, as_written)
    return chosen


def computes(backend: str, precision: Precision) -> bool:
    """Whether a backend computes in a precision, as far as its name alone tells."""
    return precision not in _TAKES.get(backend, _Takes()).refused


def rounds_by_itself(backend: str, precision: Precision) -> bool:
    """Whether a backend computes the fp32 graph in this precision, so that the bundle needs no graph of it."""
    return precision is Precision.BF16 and _TAKES.get(backend, _Takes()).bf16_from_fp32


def told(choice: BackendChoice, graphs: dict[Tower, GraphChoice]) -> BackendChoice:
    """The engine's choice, with what is not plain about the graphs."""
    notes = {tower: graph.note for tower, graph in graphs.items() if graph.note}
    if len(notes) > 1 and len(set(notes.values())) == 1:
        said = [f"both encoders: {next(iter(notes.values()))}"]
    else:
        said = [f"{tower.value} encoder: {note}" for tower, note in notes.items()]
    return BackendChoice(choice.name, "; ".join([choice.reason, *said]))


def parse_precision(value: str | Precision) -> Precision | None:
    """A precision from its name, None for `auto`; raises InputError with the accepted names."""
    if value == AUTO:
        return None
    try:
        return Precision.parse(value)
    except InputError as error:
        raise InputError(f"{error.message}, {AUTO}") from None


def _require_bf16(backend: BackendChoice) -> None:
    """Raise BackendError where the device of an engine that rounds by itself does not compute in bf16."""
    from clipdeploy.runtime.ov.product import require_device, settings

    settings(require_device(backend.device), Precision.BF16, None)


def _rounds_here(backend: BackendChoice) -> bool:
    """Whether an engine rounds to bf16 by itself, on a device that computes in it."""
    if not rounds_by_itself(backend.name, Precision.BF16):
        return False
    try:
        _require_bf16(backend)
    except BackendError:
        return False
    return True


def _way_out(bundle: Bundle, precision: Precision, backend: BackendChoice) -> str:
    """What to do about a precision that the engine does not compute in."""
    if backend.name == ONNXRUNTIME:
        return (
            'use fp32 here, or backend "openvino" on a processor that has it; whether the graph is right, tells: '
            f"clipdeploy verify {bundle.folder} --backend {backend.name} --precision {precision.value}"
        )
    if backend.engine == OPENVINO:
        others = "int8" if backend.device == "gpu" else "int8 or bf16"
        return f"use {others}, or run it in TensorRT"
    return 'use fp16 here; int8 runs in "onnxruntime" on the CPU, "onnxruntime:tensorrt", "openvino" and "tensorrt"'


def check_target(target: str | None) -> None:
    """Raise InputError unless `target` names one, or is None."""
    if target not in (None, "tensorrt", "cpu"):
        raise InputError(f"unknown target {target!r}; expected tensorrt or cpu", fix='pass target="cpu", or None')
