"""What a request names, opened: the model, the sources, the thresholds, the sinks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipdeploy.errors import InputError
from clipdeploy.progress import Progress
from clipdeploy.runtime.labels import DEFAULT_TEMPLATE, resolve_templates
from clipdeploy.runtime.stream.answerer import BakedAnswerer, ClipAnswerer
from clipdeploy.runtime.stream.decide import Thresholds, calibrate_thresholds
from clipdeploy.runtime.stream.sinks import JsonLines, Mqtt, Sink
from clipdeploy.runtime.stream.sources import Source, open_source
from clipdeploy.watch.records import WatchRequest

if TYPE_CHECKING:
    from clipdeploy.runtime.backends import BackendChoice

_NAMED = re.compile(r"([A-Za-z][\w-]{0,31})=(.+)", re.DOTALL)


@dataclass(frozen=True)
class Model:
    """What is asked.

    Attributes:
        answerer: the model with its labels.
        name: of the model.
        precision: that runs.
        backend: that runs, and why.
        baked: whether the labels are in its engine.
        frame: colour order of the frames that its graph takes.
    """

    answerer: ClipAnswerer | BakedAnswerer
    name: str
    precision: str
    backend: BackendChoice
    baked: bool
    color: str


@contextmanager
def opened_model(request: WatchRequest, progress: Progress) -> Iterator[Model]:
    """The bundle, opened with its labels.

    Raises:
        InputError: labels are missing, or given to a baked bundle. TextError: one is wrong.
        BundleError, BackendError, MissingExtraError: the bundle or the engine cannot be used.
    """
    from clipdeploy.runtime.baked import load_baked
    from clipdeploy.runtime.clip import load
    from clipdeploy.runtime.hashed import open_bundle

    progress("loading the bundle", 0, 0)
    bundle = open_bundle(request.bundle)
    baked = bundle.manifest.baked
    options = {
        "precision": request.precision,
        "backend": request.backend,
        "threads": request.threads,
        "usual_batch": min(len(request.sources), request.max_batch),
    }
    if baked is not None:
        if request.labels is not None or request.templates:
            raise InputError(
                f"the labels of {request.bundle} are baked into it",
                fix="leave out labels and templates, or watch with the bundle that it was baked from",
            )
        with load_baked(bundle, **options) as eyes:  # type: ignore[arg-type]
            color = "rgb" if eyes.frame is None else eyes.frame.color
            yield Model(BakedAnswerer(eyes), bundle.model.name, eyes.precision.value, eyes.backend, True, color)
        return
    if request.labels is None:
        raise InputError(
            f"{request.bundle} has no labels of its own",
            fix='give labels: --labels "a dog,a cat", --label TEXT or --labels-file FILE',
        )
    given = request.templates or (DEFAULT_TEMPLATE,)
    templates = tuple(sentence for template in given for sentence in resolve_templates(template))
    with load(bundle, **options) as clip:  # type: ignore[arg-type]
        progress("embedding labels", 0, 0)
        answerer = ClipAnswerer(clip, (*request.labels, *request.others), templates)
        colors = {spec.color for spec in clip.frames}
        color = "rgb" if "rgb" in colors or not colors else sorted(colors)[0]
        yield Model(answerer, clip.spec.name, clip.precision.value, clip.backend, False, color)


def opened_sources(request: WatchRequest, color: str) -> list[Source]:
    """The sources, in frames of the colour that the model takes; files at their own pace where a page shows them.

    Raises:
        InputError: one is no source, or two have one name. SourceError: one does not exist.
    """
    sources: list[Source] = []
    for text in request.sources:
        named = None if Path(text).exists() else _NAMED.fullmatch(text)
        what, name = (named[2], named[1]) if named else (text, None)
        realtime = request.realtime
        if realtime is None and request.web is not None:
            realtime = True
        source = open_source(what, name=name, color=color, fps=request.fps, realtime=realtime, loop=request.loop)  # type: ignore[arg-type]
        if source.name in (other.name for other in sources):
            raise InputError(
                f"two sources are called {source.name!r}", fix="give each a name: front=SOURCE back=SOURCE"
            )
        sources.append(source)
    return sources


def found_thresholds(request: WatchRequest, model: Model, progress: Progress) -> Thresholds | None:
    """Those of the file, or measured from pictures without any of the labels.

    Raises:
        InputError: both are given, the file is none, or there are too few pictures.
    """
    if request.thresholds is not None and request.negatives is not None:
        raise InputError("thresholds are read from a file or found from negatives", fix="leave one of the two out")
    if request.thresholds is not None:
        return Thresholds.from_json(request.thresholds)
    if request.negatives is not None:
        from clipdeploy.pictures import find_pictures

        pictures = find_pictures([str(request.negatives)], recursive=True)
        progress(f"finding thresholds from {len(pictures)} pictures", 0, 0)
        return calibrate_thresholds(model.answerer, pictures)
    return None


def opened_sinks(request: WatchRequest) -> list[Sink]:
    """Where events go besides the view; stdout is the view's.

    Raises:
        OutputError: the file cannot be written. InputError: the broker's address is none.
    """
    sinks: list[Sink] = []
    if request.events is not None and request.events != "-":
        sinks.append(JsonLines(request.events))
    if request.mqtt is not None:
        sinks.append(Mqtt(request.mqtt))
    return sinks
