"""A tower's float32 graph to a typed one, inside an accuracy budget: the stage."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.calibration.accuracy import Budget, Floats
from clipdeploy.calibration.budget import Search, Trial, search
from clipdeploy.calibration.candidates.common import Candidates, Yardstick, embed_array, size_of
from clipdeploy.calibration.candidates.cpu import CpuCandidates, for_cpu
from clipdeploy.calibration.candidates.half import HalfCandidates
from clipdeploy.calibration.candidates.linears import Linears
from clipdeploy.calibration.candidates.tensorrt import QdqCandidates
from clipdeploy.calibration.results import LayerRow, SampleNote, TowerQuantised
from clipdeploy.calibration.split import Batches, Split, split
from clipdeploy.calibration.statistics import Method
from clipdeploy.errors import CalibrationError, InputError
from clipdeploy.graphs.files import data_path, load_graph, move_graph, scratch_folder
from clipdeploy.memory import collect as give_memory_back
from clipdeploy.progress import Progress, silent
from clipdeploy.spec import PixelSpec, Precision, Target, TensorSpec, Tower

_EMULATED = "with FP16 rounding and Q/DQ spelled out in float32, in ONNX Runtime on the CPU"
_HALF_EMULATED = "with its rounding spelled out in float32, in ONNX Runtime on the CPU"
_AS_IT_RUNS = "as it runs in ONNX Runtime on the CPU"


@dataclass(frozen=True)
class QuantizeOptions:
    """What to make of a tower.

    Attributes:
        precision: any but FP32.
        target: for 8 bits, what will run the graph; None for 16 bits.
        method: the ranges to begin with; None takes percentiles in INT8 and maxima in FP8.
        budget: what must hold.
        threads: of the engine that measures.
    """

    precision: Precision
    target: Target | None
    budget: Budget
    method: Method | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.precision is Precision.FP32:
            raise InputError("fp32 is what a bundle begins with", fix="choose fp16, bf16, int8 or fp8")
        if self.precision.quantised != (self.target is not None):
            raise InputError(f"{self.precision.value} and target {self.target} do not go together")
        if self.precision is Precision.FP8 and self.target == "cpu":
            raise InputError("processors do not compute in fp8", fix="use --precision int8 for them")


@dataclass(frozen=True)
class TowerSamples:
    """The samples of a tower.

    Attributes:
        batches: the graph's inputs, batch by batch.
        count: how many samples there are.
        sha256: over them.
        coverage: figures of what they are.
        notes: what a user should know of them.
        bank: `(K, D)` embeddings of the other encoder, to match with.
        bank_name: what they are, for people.
        golden: the bundle's own samples, `(K, ...)`, to be answered by the result.
        input: of the graph.
        pixels: what the input holds, for an image encoder.
    """

    batches: Batches
    count: int
    sha256: str
    coverage: dict[str, Any]
    notes: tuple[str, ...]
    bank: Floats | None
    bank_name: str
    golden: NDArray[Any]
    input: TensorSpec
    pixels: PixelSpec | None


def quantize_tower(
    source: Path,
    tower: Tower,
    samples: TowerSamples,
    options: QuantizeOptions,
    folder: Path,
    *,
    progress: Progress = silent,
) -> tuple[TowerQuantised, Floats]:
    """Write a tower's typed graph into `folder`; returns what it cost, and what it answers to the golden samples.

    Args:
        source: the float32 graph.
        tower: which encoder it is.
        samples: what to calibrate and measure with.
        options: what to make.
        folder: takes the graph, and what is made on the way.
        progress: told of every step.

    Raises:
        CalibrationError: the budget cannot be held, or the data is unfit.
        BackendError: the engine fails.
    """
    started = time.perf_counter()
    parts = split(samples.batches, samples.count)
    with scratch_folder(folder) as scratch:
        yardstick = Yardstick(source, parts, bank=samples.bank, threads=options.threads, progress=progress)
        candidates = _candidates(source, tower, samples, yardstick, options, scratch, progress)
        found = search(
            candidates.build,
            candidates.alone,
            remedies=candidates.next_remedy,
            blocks=candidates.blocks,
            budget=options.budget,
            progress=progress,
        )
        if not found.held:
            raise _missed(tower, found, options)
        built = candidates.finish(found.chosen.recipe)
        give_memory_back()
        golden = embed_array(candidates.answers(), samples.golden, threads=options.threads)
        graph = folder / built.name
        move_graph(built, graph)
    weights = data_path(graph)
    result = TowerQuantised(
        tower=tower,
        precision=options.precision,
        target=options.target,
        graph=graph,
        weights=weights if weights.exists() else None,
        opset=load_graph(graph).opset_imports[""],
        recipe=found.chosen.recipe,
        accuracy=found.chosen.accuracy,
        budget=options.budget,
        measured_as=_measured_as(options),
        layers=_rows(candidates, found, options),
        trials=found.trials,
        float32=candidates.notes(),
        samples=_note(samples, parts),
        seconds=time.perf_counter() - started,
        size_before=size_of(source),
        size_after=size_of(graph),
    )
    return result, golden


def _note(samples: TowerSamples, parts: Split) -> SampleNote:
    return SampleNote(
        count=samples.count,
        sha256=samples.sha256,
        calibrated=parts.calibrate.count,
        measured=parts.measure.count,
        held_out=parts.held_out,
        bank=samples.bank_name,
        coverage=samples.coverage,
        notes=samples.notes,
    )


def _candidates(
    source: Path,
    tower: Tower,
    samples: TowerSamples,
    yardstick: Yardstick,
    options: QuantizeOptions,
    scratch: Path,
    progress: Progress,
) -> Candidates:
    rows, precision = yardstick.parts.calibrate, options.precision
    name = tower.graph_name(precision, options.target)
    common: dict[str, Any] = {"scratch": scratch, "threads": options.threads, "progress": progress}
    if not precision.quantised:
        return HalfCandidates(source, tower, rows, yardstick, precision=precision, name=name, **common)
    method = options.method or ("max" if precision is Precision.FP8 else "percentile")
    if options.target == "cpu":
        linears = Linears(source, tower, rows, placement=for_cpu(samples.input, samples.pixels), **common)
        return CpuCandidates(linears, yardstick, method=method, scratch=scratch, name=name)
    linears = Linears(source, tower, rows, **common)
    return QdqCandidates(linears, yardstick, precision=precision, method=method, scratch=scratch, name=name)


def _measured_as(options: QuantizeOptions) -> str:
    if options.target is None:
        return _HALF_EMULATED
    return _AS_IT_RUNS if options.target == "cpu" else _EMULATED


def _rows(candidates: Candidates, found: Search, options: QuantizeOptions) -> tuple[LayerRow, ...]:
    """A row for each layer of the tower."""
    higher = {None: Precision.FP32, "tensorrt": Precision.FP16, "cpu": Precision.FP32}[options.target]
    kept, float32 = found.chosen.recipe.kept, dict(candidates.notes())
    rows = []
    for choice in candidates.choices:
        layer, precision, reason = choice.layer, options.precision, ""
        if not choice.quantise:
            precision, reason = higher, choice.reason
        elif layer.block in kept:
            precision, reason = higher, "given back to hold the budget"
        if layer.node in float32 and precision in (Precision.FP16, Precision.BF16):
            precision, reason = Precision.FP32, reason or float32[layer.node]
        sensitivity = found.sensitivity.get(layer.block) if choice.quantise else None
        rows.append(LayerRow(layer.name, layer.kind, layer.block, sensitivity, precision, reason))
    return tuple(rows)


def _missed(tower: Tower, found: Search, options: QuantizeOptions) -> CalibrationError:
    """What to tell of a budget that cannot be held: the frontier, and what else to try."""
    best = found.chosen
    tried = "\n".join(f"    {frontier_line(trial)}" for trial in found.trials)
    instead = "fp16" if options.precision.quantised else "bf16" if options.precision is Precision.FP16 else "fp16"
    accuracy = best.accuracy
    drop = np.ceil((1.0 - accuracy.cosine_mean) * 1000) / 1000
    allow = f"--max-drop {drop:.3f} --min-cosine {_floor(accuracy.cosine_min)}"
    return CalibrationError(
        f"{options.precision.value} of the {tower.value} tower cannot hold its budget ({options.budget}); the best of "
        f"{len(found.trials)} recipes misses it: {', '.join(best.accuracy.missed(options.budget))}\n"
        f"  tried:\n{tried}",
        fix=f"use --precision {instead}; or give more and better calibration data; or allow more loss: {allow} "
        f"--min-top1 {_floor(accuracy.top1)}",
    )


def frontier_line(trial: Trial) -> str:
    """A trial in a line."""
    accuracy = trial.accuracy
    return (
        f"{trial.recipe}: {trial.layers} layers, {trial.size_bytes / 1e6:.1f} MB, cosine {accuracy.cosine_mean:.5f} "
        f"(least {accuracy.cosine_min:.5f}), top-1 {accuracy.top1:.1%}"
    )


def _floor(value: float) -> str:
    return f"{np.floor(max(value, 0.0) * 1000) / 1000:.3f}"
