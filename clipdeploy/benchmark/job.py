"""The stage: a bundle measured by backend, precision and batch, side by side."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipdeploy.benchmark import starts
from clipdeploy.benchmark.drawn import pictures_for
from clipdeploy.benchmark.environment import environment, load_1min
from clipdeploy.benchmark.measure import Bench, Measured, Texts, measure
from clipdeploy.benchmark.plan import Plan, plan
from clipdeploy.benchmark.records import (
    Absent,
    BatchFigures,
    BenchRequest,
    BenchResult,
    Candidate,
    ColdStart,
    Memory,
    latency,
)
from clipdeploy.benchmark.sizes import loaded_files
from clipdeploy.benchmark.stages import HOW as STAGES_HOW
from clipdeploy.benchmark.stages import LABELS
from clipdeploy.benchmark.turns import REST_S, Count
from clipdeploy.benchmark.worker import COMMAND
from clipdeploy.bundle import Bundle, write_text
from clipdeploy.errors import BackendError, InputError, OutputError
from clipdeploy.machine import free_gpu_memory_bytes, free_memory_bytes
from clipdeploy.progress import Progress, silent
from clipdeploy.runtime.backends import check_threads
from clipdeploy.runtime.choose import check_target
from clipdeploy.runtime.chosen import Chosen
from clipdeploy.spec import Tower, to_dict

if TYPE_CHECKING:
    from clipdeploy.benchmark.board import BoardWatch

_PROCESS_BYTES = 200_000_000
_MEMORY_PER_BYTE = 2
"""Of its files, what a candidate takes once it is loaded."""
_OF_FREE_MEMORY = 0.7


def measure_bundle(request: BenchRequest, *, progress: Progress = silent) -> BenchResult:
    """Measure a bundle on this machine, and write what was asked to be written.

    Each backend and precision has a process of its own. All take turns, in rounds that begin with another one each,
    after a rest and a warm-up that do not count. One that fails or dies is told of as absent, and the others go on.
    What the machine remembers of the bundle is neither used nor changed.

    Raises:
        InputError: an argument makes no sense; the bundle is baked, or has no encoder that is asked for.
        BundleError: the bundle cannot be opened.
        ImageError: a picture that is given cannot be read.
        MissingExtraError, BackendError, EngineError: a backend that is named is not installed, a pair that is named
            cannot run, or nothing came through.
        OutputError: an output cannot be written; said before anything is measured, where it can be known.
    """
    began = time.perf_counter()
    created, load_before = datetime.now(timezone.utc).isoformat(timespec="seconds"), load_1min()
    _check(request)
    bundle = Bundle.open(request.bundle)
    planned = plan(bundle, request)
    around = environment()
    with tempfile.TemporaryDirectory(prefix="clipdeploy-bench-") as folder:
        pictures, what = pictures_for(request.pictures, Path(folder))
        watch = _watch()
        bench = _bench(request, planned, pictures, Path(folder), Count(progress, 0), watch)
        groups = _groups(planned.candidates)
        candidates, failed = _run(bench, groups)
    absent = [*planned.absent, *(_absent(planned.candidates[name], error) for name, error in failed.items())]
    if not candidates:
        raise _nothing_came_through(bundle, failed)
    result = BenchResult(
        bundle=bundle.folder.resolve().name,
        model=bundle.model.name,
        created=created,
        environment={**around, "load_before": load_before, "load_after": load_1min()},
        conditions=_conditions(bench, what, groups),
        candidates=tuple(candidates),
        absent=tuple(absent),
        seconds=round(time.perf_counter() - began, 1),
        board=None if watch is None else watch.board(),
    )
    _write(result, request)
    return result


def _bench(
    request: BenchRequest, planned: Plan, pictures: Sequence[Path], folder: Path, count: Count, watch: BoardWatch | None
) -> Bench:
    """All that is measured; raises InputError where that is nothing."""
    towers = {tower for chosen in planned.candidates.values() for tower in chosen.graphs if tower not in chosen.unbuilt}
    bench = Bench(
        request=request,
        candidates=planned.candidates,
        pictures=pictures,
        images=Tower.IMAGE in towers,
        texts=request.texts and Tower.TEXT in towers,
        command=COMMAND,
        environment={"CLIPDEPLOY_CACHE": str(folder / "remembered")},
        count=count,
        board=watch,
    )
    if not (bench.images or bench.texts):
        raise InputError(f"bundle {request.bundle} has no image encoder to measure", fix="leave --no-texts away")
    count.total = bench.steps() + len(planned.candidates) * (request.cold_starts + 1)
    return bench


def _run(bench: Bench, groups: Sequence[Sequence[str]]) -> tuple[list[Candidate], dict[str, Exception]]:
    """Cold starts, and then everything else, group by group; candidates in the order planned, and errors."""
    asked = {
        name: {"how": bench.how(name, 1), "picture": str(bench.pictures[0]), **bench.encoders(name)}
        for name in bench.candidates
    }
    cold, failed = starts.cold_starts(
        asked, bench.request.cold_starts, command=bench.command, environment=bench.environment, count=bench.count
    )
    texts: dict[tuple[str, str, str], Texts] = {}
    measured: dict[str, Measured] = {}
    for group in groups:
        alive = [name for name in group if name in cold]
        if alive:
            came, errors = measure(bench, alive, texts)
            measured |= came
            failed |= errors
    bench.count.progress("done", bench.count.total, bench.count.total)
    return [_candidate(bench, name, measured[name], cold[name], texts) for name in asked if name in measured], failed


def _candidate(
    bench: Bench, name: str, found: Measured, cold: ColdStart, texts: Mapping[tuple[str, str, str], Texts]
) -> Candidate:
    chosen = bench.candidates[name]
    read = texts.get(bench.text_graph(name)) if bench.encoders(name)["texts"] else None
    return Candidate(
        backend=chosen.backend.name,
        precision=chosen.precision.value,
        reason=found.reason,
        images=_figures(found.images),
        texts=() if read is None else _figures(read.rounds),
        stages={stage: latency(rounds) for stage, rounds in found.stages.items()},
        file_to_label=latency(found.file_to_label) if found.file_to_label else None,
        folder_per_second=statistics.median(found.folder) if found.folder else None,
        cold_start=cold,
        memory=Memory(found.imported, found.loaded, found.peak, found.gpu),
        files=loaded_files(chosen),
        texts_of=None if read is None or read.measured_by == name else read.measured_by,
    )


def _figures(by_batch: Mapping[int, list[list[float]]]) -> tuple[BatchFigures, ...]:
    figures = {batch: latency(rounds) for batch, rounds in by_batch.items()}
    return tuple(BatchFigures(batch, one, batch / one.p50_ms * 1e3) for batch, one in figures.items())


def _groups(candidates: Mapping[str, Chosen]) -> list[list[str]]:
    """Candidates whose processes fit into memory together; all of them, where they do."""
    room = [free_memory_bytes()]
    if any(chosen.backend.device == "gpu" for chosen in candidates.values()):
        room.append(free_gpu_memory_bytes())
    free = min((bytes_ for bytes_ in room if bytes_ is not None), default=None)
    groups: list[list[str]] = []
    taken = 0.0
    for name, chosen in candidates.items():
        needed = _PROCESS_BYTES + _MEMORY_PER_BYTE * sum(loaded_files(chosen).values())
        if not groups or (free is not None and taken + needed > _OF_FREE_MEMORY * free):
            groups.append([])
            taken = 0.0
        groups[-1].append(name)
        taken += needed
    return groups


def _absent(chosen: Chosen, error: Exception) -> Absent:
    return Absent(chosen.backend.name, chosen.precision.value, getattr(error, "message", str(error)))


def _nothing_came_through(bundle: Bundle, failed: Mapping[str, Exception]) -> BackendError:
    errors = list(failed.values())
    fix = next((error.fix for error in errors if isinstance(error, BackendError) and error.fix), None)
    lines = [f"  {getattr(error, 'message', error)}" for error in errors]
    return BackendError("\n".join([f"nothing could be measured of bundle {bundle.folder}:", *lines]), fix=fix)


def _conditions(bench: Bench, pictures: str, groups: Sequence[Sequence[str]]) -> dict[str, Any]:
    request = bench.request
    return {
        "backends": list(request.backends),
        "precisions": list(request.precisions),
        "target": request.target,
        "batches": list(request.batches),
        "threads": request.threads,
        "rounds": request.rounds,
        "seconds": request.seconds,
        "rest_s": REST_S,
        "cold_starts": request.cold_starts,
        "texts": bench.texts,
        "labels": LABELS,
        "pictures": pictures,
        "together": [list(group) for group in groups],
        "how": {"stages": STAGES_HOW, "cold start": starts.HOW},
    }


def _check(request: BenchRequest) -> None:
    """Raise InputError or OutputError for what can be known to be wrong before anything is measured."""
    check_threads(request.threads)
    check_target(request.target)
    if not request.batches or any(batch < 1 for batch in request.batches):
        raise InputError(f"batches must be positive whole numbers, got {request.batches}", fix="pass --batch 1,8,32")
    if len(set(request.batches)) != len(request.batches):
        raise InputError(f"a batch is named twice: {request.batches}", fix="name each once")
    if request.rounds < 1 or request.cold_starts < 1 or not request.seconds > 0:
        raise InputError(
            f"rounds and cold starts must be 1 or more and seconds more than 0, got {request.rounds}, "
            f"{request.cold_starts} and {request.seconds}"
        )
    for path in (request.output, request.html):
        if path is not None:
            _check_output(path)


def _check_output(path: Path) -> None:
    """Raise OutputError where a file cannot be written."""
    folder = path.absolute().parent
    if path.is_dir():
        raise OutputError(f"{path} is a folder", fix="name a file")
    if not folder.is_dir():
        raise OutputError(f"folder {folder} does not exist", fix=f"make it: mkdir -p {folder}")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"nothing can be written to folder {folder}", fix="choose another, or change its permissions")


def _write(result: BenchResult, request: BenchRequest) -> None:
    try:
        if request.output is not None:
            write_text(request.output, json.dumps(to_dict(result), indent=2, allow_nan=False) + "\n")
        if request.html is not None:
            from clipdeploy.benchmark.page import write_html

            write_html(result, request.html)
    except OSError as error:
        raise OutputError(f"the result cannot be written: {error}", fix="choose another place") from error


def _watch() -> BoardWatch | None:
    """Watches a Jetson; None on another machine."""
    from clipdeploy.benchmark.board import BoardWatch

    return BoardWatch.here()
