"""Thresholds of labels, measured with a bundle from pictures and videos that show none of them, kept in a file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from clipdeploy.bundle import Bundle
from clipdeploy.errors import InputError
from clipdeploy.progress import Progress, silent
from clipdeploy.runtime.labels import DEFAULT_TEMPLATE, check_labels, resolve_templates
from clipdeploy.runtime.stream.records import Frame


@dataclass(frozen=True)
class ThresholdsRequest:
    """What to measure.

    Attributes:
        bundle: the bundle's folder, baked or not.
        negatives: folders, patterns and files of pictures, and videos, in which none of the labels is to be seen.
        output: the file to write.
        labels: at least one, each once; None for a baked bundle, which has its own.
        templates: sentences with `{}` for the label, or the name of a set; empty takes the default.
        false_alarms: the share of such frames that may pass, of each label.
        fps: frames a second that are taken of a video.
        precision: which graphs.
        backend: which engine.
    """

    bundle: Path
    negatives: tuple[str, ...]
    output: Path
    labels: tuple[str, ...] | None = None
    templates: tuple[str, ...] = ()
    false_alarms: float = 0.01
    fps: float = 2.0
    precision: str = "fp32"
    backend: str = "auto"


@dataclass(frozen=True)
class LabelThreshold:
    """The logit above which a label comes into view, and the lower one below which it leaves."""

    label: str
    enter: float
    leave: float


@dataclass(frozen=True)
class ThresholdsOutcome:
    """What was measured.

    Attributes:
        path: of the file.
        thresholds: one a label.
        negatives: frames that they come from.
        false_alarms: as asked for.
        backend: the engine that ran.
    """

    path: str
    thresholds: tuple[LabelThreshold, ...]
    negatives: int
    false_alarms: float
    precision: str
    backend: str
    seconds: float


def find_thresholds(request: ThresholdsRequest, *, progress: Progress = silent) -> ThresholdsOutcome:
    """Measure thresholds and write them; see `calibrate_thresholds`.

    Raises:
        InputError: too few negatives for such a share, or a live source among them. TextError: a label is wrong.
        SourceError: a folder or video cannot be read.
        BundleError, BackendError, MissingExtraError: the bundle or the engine cannot be used.
        OutputError: the file cannot be written.
    """
    from clipdeploy.runtime.stream import calibrate_thresholds
    from clipdeploy.runtime.stream.sources import open_source

    started = time.perf_counter()
    sources = [open_source(one, fps=request.fps, realtime=False) for one in request.negatives]
    progress("loading the bundle", 0, 0)
    with _opened(request) as model:
        answerer = _answerer(model, request)
        frames = _told(_frames(sources), progress)
        found = calibrate_thresholds(answerer, frames, false_alarms=request.false_alarms)
        found.to_json(request.output)
        levels = found.levels(found.labels)
        return ThresholdsOutcome(
            path=str(request.output),
            thresholds=tuple(
                LabelThreshold(label, level.enter, level.leave)
                for label, level in zip(found.labels, levels, strict=True)
            ),
            negatives=found.negatives,
            false_alarms=request.false_alarms,
            precision=str(found.precision),
            backend=model.backend.name,
            seconds=time.perf_counter() - started,
        )


def _opened(request: ThresholdsRequest) -> AbstractContextManager[Any]:
    from clipdeploy.runtime.baked import load_baked
    from clipdeploy.runtime.clip import load

    bundle = Bundle.open(request.bundle)
    if bundle.manifest.baked is None:
        return load(bundle, precision=request.precision, backend=request.backend, usual_batch=16)
    return load_baked(bundle, precision=request.precision, backend=request.backend, usual_batch=16)


def _answerer(model: Any, request: ThresholdsRequest) -> Any:
    from clipdeploy.runtime.stream.answerer import BakedAnswerer, ClipAnswerer

    if model.bundle.manifest.baked is not None:
        if request.labels is not None:
            raise InputError("a baked bundle has its own labels", fix="leave out the labels")
        return BakedAnswerer(model)
    if request.labels is None:
        raise InputError("this bundle has no labels of its own", fix='give labels: --labels "a dog,a cat"')
    given = request.templates or (DEFAULT_TEMPLATE,)
    templates = tuple(sentence for template in given for sentence in resolve_templates(template))
    return ClipAnswerer(model, check_labels(request.labels), templates)


def _frames(sources: list[Any]) -> Iterator[Frame]:
    """Every frame of every source, one after the other."""
    for source in sources:
        if source.live:
            raise InputError(
                f"{source.name} never ends, so its frames cannot serve as negatives", fix="record it, and give the file"
            )
        yield from source.frames(Event())


def _told(frames: Iterator[Frame], progress: Progress) -> Iterator[Frame]:
    for count, frame in enumerate(frames, 1):
        yield frame
        progress("asking about negatives", count, 0)
