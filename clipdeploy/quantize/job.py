"""A bundle and calibration data to typed graphs in the bundle, with what they cost."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from clipdeploy.bundle import Bundle, NewFile
from clipdeploy.calibration.accuracy import Budget, Floats, budget_of
from clipdeploy.calibration.results import TowerQuantised
from clipdeploy.calibration.statistics import Method
from clipdeploy.calibration.tower import QuantizeOptions, quantize_tower
from clipdeploy.errors import CalibrationError, InputError, OutputError
from clipdeploy.memory import collect
from clipdeploy.progress import Progress, silent
from clipdeploy.quantize.page import render
from clipdeploy.quantize.report import record_text
from clipdeploy.quantize.samples import prepare
from clipdeploy.runtime.selftest.recorded import answers_name, inputs_sha256, report_name
from clipdeploy.spec import Precision, Target, Tower


@dataclass(frozen=True)
class QuantizeRequest:
    """Which typed graphs to add to a bundle.

    Attributes:
        bundle: the bundle's folder.
        precision: `fp16`, `bf16`, `int8` or `fp8`.
        data: folders, picture files, patterns, videos, `.npz` or `.npy` files of what the camera will see.
        samples: how many pictures to take of it at most.
        target: for 8 bits, what will run the graph; None means `tensorrt`.
        method: where the ranges of activations come from to begin with; None takes what suits the precision.
        towers: which encoders.
        labels: what top-1 agreement is asked of; empty takes the bundle's golden texts.
        templates: sentences with `{}` for the label.
        texts: calibration texts for the text encoder, besides the bundle's own.
        cosine_mean, cosine_min, top1: the accuracy budget, where it is not the precision's own.
        overwrite: replace a graph that is already there.
        seed: chooses among the calibration data.
        threads: of the engine that measures.
    """

    bundle: Path
    precision: str
    data: tuple[str, ...]
    samples: int = 512
    target: Target | None = None
    method: Method | None = None
    towers: tuple[Tower, ...] = (Tower.IMAGE,)
    labels: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    cosine_mean: float | None = None
    cosine_min: float | None = None
    top1: float | None = None
    overwrite: bool = False
    seed: int = 0
    threads: int | None = None

    def options(self) -> QuantizeOptions:
        """What to make of each encoder; raises InputError for what does not go together."""
        precision = Precision.parse(self.precision)
        if self.target is not None and not precision.quantised:
            raise InputError(
                f"{precision.value} graphs run anywhere; a target goes with int8 and fp8", fix="leave --target out"
            )
        asked = {"cosine_mean": self.cosine_mean, "cosine_min": self.cosine_min, "top1": self.top1}
        budget: Budget = replace(budget_of(precision), **{k: v for k, v in asked.items() if v is not None})
        target = (self.target or "tensorrt") if precision.quantised else None
        return QuantizeOptions(precision, target, budget, method=self.method, threads=self.threads)


@dataclass(frozen=True)
class QuantizeOutcome:
    """What was added to a bundle.

    Attributes:
        towers: what each encoder's graph cost.
        files: names of the new files in the bundle.
    """

    bundle: Path
    towers: tuple[TowerQuantised, ...]
    files: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class _Made:
    result: TowerQuantised
    golden: Floats
    inputs_sha256: str


def quantize_bundle(request: QuantizeRequest, *, progress: Progress = silent) -> QuantizeOutcome:
    """Add typed graphs to a bundle, all or none.

    Raises:
        InputError: a wrong argument, or calibration data that does not exist.
        CalibrationError: no or unfit calibration data; the accuracy budget cannot be held.
        BundleError: the bundle cannot be opened.
        OutputError: the graph is there already, or cannot be written.
    """
    started = time.perf_counter()
    options = request.options()
    bundle = Bundle.open(request.bundle)
    bundle.check_unbaked("quantise")
    names = _check(bundle, request, options)
    try:
        with tempfile.TemporaryDirectory(prefix="clipdeploy-") as folder:
            prepared = prepare(request, bundle, progress)
            made = []
            for tower in request.towers:
                collect()
                samples, source = prepared[tower], bundle.graph(tower)
                result, golden = quantize_tower(source, tower, samples, options, Path(folder), progress=progress)
                made.append(_Made(result, golden, inputs_sha256(samples.golden)))
            progress("writing the bundle", 0, 0)
            files = [file for one in made for file in _files(one, bundle, Path(folder))]
            bundle.add_all(files, without=_leftovers(bundle, names, files))
    except OSError as error:
        raise OutputError(
            f"cannot write the graphs: {error}",
            fix=f"free some space in {tempfile.gettempdir()}, or set TMPDIR to a folder on another disk",
        ) from error
    results = tuple(one.result for one in made)
    return QuantizeOutcome(request.bundle, results, tuple(f.name for f in files), time.perf_counter() - started)


def _check(bundle: Bundle, request: QuantizeRequest, options: QuantizeOptions) -> tuple[str, ...]:
    """The names of the graphs to make; raises for what cannot be done before any work is."""
    what = options.precision.value
    if not request.data:
        raise CalibrationError(
            f"{what} takes calibration data: ranges are measured on pictures, never guessed",
            fix="pass --calibration-data with a folder, picture files, a video or an .npz of what the camera will see",
        )
    if request.texts and Tower.TEXT not in request.towers:
        raise InputError("calibration texts go with the text encoder", fix="pass --tower text or both")
    names = []
    for tower in request.towers:
        bundle.graph(tower)
        names.append(tower.graph_name(options.precision, options.target))
        if names[-1] in bundle.manifest.files and not request.overwrite:
            raise OutputError(
                f"bundle {bundle.folder} holds {names[-1]} already", fix="pass --overwrite to make it again"
            )
    return tuple(names)


def _files(made: _Made, bundle: Bundle, folder: Path) -> Sequence[NewFile]:
    """What the bundle takes in of one encoder."""
    result = made.result
    name = result.graph.name
    work = folder / f"{result.graph.stem}.records"
    work.mkdir()
    page, data, answers = work / "page.html", work / "record.json", work / "answers.npz"
    data.write_text(record_text(result), encoding="utf-8")
    page.write_text(render(result, bundle.model.name), encoding="utf-8")
    np.savez_compressed(answers, embeds=made.golden, inputs_sha256=np.array(made.inputs_sha256))
    files = [
        NewFile(report_name(name), data, "report", result.origin),
        NewFile(report_name(name).replace(".json", ".html"), page, "report", result.origin),
        NewFile(answers_name(name), answers, "golden", f"what {name} answers to the golden samples"),
    ]
    if result.weights is not None:
        files.append(NewFile(result.weights.name, result.weights, "weights", result.origin, tower=result.tower))
    graph = NewFile(
        name,
        result.graph,
        "graph",
        result.origin,
        tower=result.tower,
        precision=result.precision,
        opset=result.opset,
        target=result.target,
    )
    return [*files, graph]


def _leftovers(bundle: Bundle, names: Sequence[str], files: Sequence[NewFile]) -> list[str]:
    """Weights beside an older graph of these names that the new one has inside."""
    new = {file.name for file in files}
    return [f"{name}.data" for name in names if f"{name}.data" in bundle.manifest.files and f"{name}.data" not in new]
