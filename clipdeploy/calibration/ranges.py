"""Between which values the activations of a graph move, measured in one pass over samples in bounded memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.calibration.histogram import Histogram
from clipdeploy.calibration.observe import Extremes, Observer
from clipdeploy.calibration.statistics import Observed, Statistics
from clipdeploy.errors import CalibrationError, InputError
from clipdeploy.progress import Progress, silent

Feeds = Mapping[str, NDArray[Any]]

LIMIT_BYTES = 512 << 20
"""Activations held at once; a batch that has more goes through the graph in parts."""


def collect(
    graph: Path,
    tensors: Sequence[str],
    batches: Iterable[Feeds],
    *,
    channels: Sequence[str] = (),
    maxima: Sequence[str] = (),
    total: int = 0,
    limit_bytes: int = LIMIT_BYTES,
    threads: int | None = None,
    progress: Progress = silent,
) -> Statistics:
    """Run samples through a float32 graph and keep what its tensors hold.

    Batches go through in parts small enough that the tensors asked for fit into `limit_bytes`. Where those of a
    single sample do not, the tensors are taken in groups, with a pass over all batches for each.

    Args:
        graph: an ONNX file; its weights are not copied and nothing is written.
        tensors: of which a histogram is kept.
        batches: the graph's inputs by name, the samples along the first axis of each; something that can be gone
            through more than once.
        channels: tensors of which the greatest magnitude per place along the last axis is kept too.
        maxima: tensors of which the extremes are enough. They cost no memory, and may be infinite.
        total: how many samples there are, for the progress; 0 where it is not known.
        limit_bytes: what may be held at once of the tensors' values.
        threads: of the engine; None takes one a physical core.
        progress: told after every part.

    Raises:
        InputError: the graph has no such tensor.
        CalibrationError: no samples; a tensor holds nan, or an infinite value where a histogram was asked for.
        BackendError: the engine failed.
    """
    whole = tuple(dict.fromkeys([*tensors, *channels]))
    few = tuple(name for name in dict.fromkeys(maxima) if name not in whole)
    observed = {name: Observed(histogram=Histogram()) for name in whole} | {name: Observed() for name in few}
    observer = Observer(graph, whole=whole, extremes=few, threads=threads)
    batches, groups, step = _plan(observer, whole, batches, limit_bytes)
    samples = 0
    for turn, group in enumerate(groups):
        if len(groups) > 1:
            del observer  # one engine at a time
            observer = Observer(graph, whole=group, extremes=() if turn else few, threads=threads)
        samples = 0
        for part in _parts(batches, step):
            values, extremes = observer.run(part)
            for name, value in values.items():
                _see(observed[name], name, value, channels=name in channels, graph=graph)
            for name, extreme in extremes.items():
                _see_extremes(observed[name], name, extreme, graph)
            del values
            samples += _size(part)
            progress("measuring activations", turn * total + samples, len(groups) * total)
    return Statistics(samples, observed)


def _plan(
    observer: Observer, whole: Sequence[str], batches: Iterable[Feeds], limit_bytes: int
) -> tuple[Iterable[Feeds], list[tuple[str, ...]], int]:
    """The batches again, the groups of tensors that fit the limit, and how many samples of one fit at once."""
    once = iter(batches)
    first = next(once, None)
    if first is None or not _size(first):
        raise CalibrationError("no samples to measure activations with", fix="give calibration data")
    values, _ = observer.run({name: value[:1] for name, value in first.items()})
    sizes = {name: values[name].nbytes for name in whole}
    groups: list[tuple[str, ...]] = []
    room = 0
    for name in whole:
        if not groups or sizes[name] > room:
            groups.append(())
            room = limit_bytes
        groups[-1] += (name,)
        room -= sizes[name]
    if once is not batches:
        again: Iterable[Feeds] = batches
    elif len(groups) > 1:
        raise InputError(
            f"the {len(whole)} tensors of one sample need {sum(sizes.values())} bytes, more than {limit_bytes}, and "
            "the batches can be gone through only once",
            fix="pass batches that can be iterated again, such as a list",
        )
    else:
        again = itertools.chain([first], once)
    largest = max((sum(sizes[name] for name in group) for group in groups), default=0)
    return again, groups or [()], max(1, limit_bytes // max(largest, 1))


def _parts(batches: Iterable[Feeds], step: int) -> Iterator[Feeds]:
    for batch in batches:
        for start in range(0, _size(batch), step):
            yield {name: value[start : start + step] for name, value in batch.items()}


def _size(batch: Feeds) -> int:
    """How many samples a batch has."""
    return len(next(iter(batch.values()))) if batch else 0


def _see(seen: Observed, name: str, value: NDArray[np.float32], *, channels: bool, graph: Path) -> None:
    """Add a tensor's values of one batch."""
    if seen.histogram is None:
        raise TypeError(f"{name} has no histogram")
    try:
        seen.histogram.add(value)
    except ValueError as error:
        wrong = np.count_nonzero(~np.isfinite(value))
        raise _not_finite(name, f"{wrong} of {value.size} values are nan or infinite", graph) from error
    seen.low, seen.high = seen.histogram.low, seen.histogram.high
    if channels:
        rows = value.reshape(-1, value.shape[-1])
        largest = np.maximum(rows.max(axis=0), -rows.min(axis=0))
        seen.channels = largest if seen.channels is None else np.maximum(seen.channels, largest)


def _see_extremes(seen: Observed, name: str, extreme: Extremes, graph: Path) -> None:
    """Add a tensor's extremes of one batch."""
    if math.isnan(extreme.mass):
        raise _not_finite(name, "a value is nan", graph)
    seen.low, seen.high = min(seen.low, extreme.low), max(seen.high, extreme.high)


def _not_finite(name: str, what: str, graph: Path) -> CalibrationError:
    return CalibrationError(
        f"tensor {name} of {graph.name}: {what} on the calibration data, in float32",
        fix="check the checkpoint and the data: no range can be taken from such values",
    )
