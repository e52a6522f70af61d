"""Zero-shot classification of picture files, which skips those that cannot be read."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from clipdeploy.pictures import Skipped, none_could_be_read
from clipdeploy.progress import Progress, silent
from clipdeploy.runtime.batches import usual_batch
from clipdeploy.runtime.labels import DEFAULT_TEMPLATE, check_labels, resolve_templates
from clipdeploy.runtime.scores import Classification
from clipdeploy.spec import Target


@dataclass(frozen=True)
class ClassifyRequest:
    """What to classify, and as what.

    Attributes:
        bundle: the bundle's folder.
        pictures: picture files.
        labels: at least one, each once.
        templates: sentences with `{}` for the label, or the name of a set; empty takes the default.
        top: how many labels a picture's answer has at most; None all.
        precision: which graphs.
        target: whose, of 8-bit graphs; None takes those made for the engine.
        backend: which engine.
        batch_size: pictures per run of the graph.
    """

    bundle: Path
    pictures: tuple[Path, ...]
    labels: tuple[str, ...]
    templates: tuple[str, ...] = ()
    top: int | None = None
    precision: str = "fp32"
    backend: str = "auto"
    target: Target | None = None
    batch_size: int = 32


@dataclass(frozen=True)
class Score:
    """A label and what it got; the logit is `logit_scale * cosine + logit_bias`."""

    label: str
    probability: float
    logit: float


@dataclass(frozen=True)
class PictureAnswer:
    """A picture, its best label, and the scores, best first."""

    path: str
    label: str
    probability: float
    scores: tuple[Score, ...]


@dataclass(frozen=True)
class ClassifyResult:
    """The answers, in the order of the pictures.

    Attributes:
        backend: the engine that ran, and
        backend_reason: why that one.
        skipped: pictures that could not be read.
    """

    model: str
    embedding_space: str
    precision: str
    backend: str
    backend_reason: str
    labels: tuple[str, ...]
    templates: tuple[str, ...]
    results: tuple[PictureAnswer, ...]
    skipped: tuple[Skipped, ...]
    seconds: float


def classify_pictures(request: ClassifyRequest, *, progress: Progress = silent) -> ClassifyResult:
    """Say which label fits each picture.

    Raises:
        TextError: a label or template is empty, given twice, or too long.
        ImageError: not one of the pictures could be read.
        BundleError, BackendError, MissingExtraError: the bundle or the engine cannot be used.
    """
    from clipdeploy.runtime.clip import load

    started = time.perf_counter()
    labels = check_labels(request.labels)
    given = request.templates or (DEFAULT_TEMPLATE,)
    templates = tuple(sentence for template in given for sentence in resolve_templates(template))
    top = min(request.top or len(labels), len(labels))
    results, skipped = list[PictureAnswer](), list[tuple[int, str]]()
    progress("loading the bundle", 0, 0)
    with load(
        request.bundle,
        precision=request.precision,
        backend=request.backend,
        target=request.target,
        usual_batch=usual_batch(len(request.pictures), request.batch_size),
    ) as clip:
        progress("embedding labels", 0, 0)
        clip.encode_labels(labels, templates)
        found = clip.classify_many(
            request.pictures, labels, template=templates, top=top, batch_size=request.batch_size, errors="report"
        )
        with closing(found):
            for picture in found:
                if picture.answer is not None:
                    results.append(_answer(str(picture.source), picture.answer))
                elif picture.error is not None:
                    skipped.append((picture.index, picture.error.message))
                progress("classifying pictures", picture.index + 1, len(request.pictures))
        if not results:
            raise none_could_be_read(skipped)
        return ClassifyResult(
            model=clip.spec.name,
            embedding_space=clip.embedding_space,
            precision=clip.precision.value,
            backend=clip.backend.name,
            backend_reason=clip.backend.reason,
            labels=labels,
            templates=templates,
            results=tuple(results),
            skipped=tuple(Skipped(str(request.pictures[row]), reason) for row, reason in skipped),
            seconds=time.perf_counter() - started,
        )


def _answer(path: str, found: Classification) -> PictureAnswer:
    scores = zip(found.labels, found.probabilities, found.logits, strict=True)
    return PictureAnswer(path, found.label, found.probability, tuple(Score(*score) for score in scores))
