"""The stage: a bundle and a dataset to figures, every backend and precision in turn on the same pictures."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from clipdeploy.bundle import Bundle
from clipdeploy.errors import ClipdeployError
from clipdeploy.evaluate.crops import Crops, read_crops
from clipdeploy.evaluate.data import limited, read_dataset, subset
from clipdeploy.evaluate.encode import Encoded, encode_checkpoint, encode_pair
from clipdeploy.evaluate.figures import Answered, answer, figures
from clipdeploy.evaluate.files import check_outputs, write_page, write_results
from clipdeploy.evaluate.groups import read_groups
from clipdeploy.evaluate.limits import check_limits, find_misses
from clipdeploy.evaluate.pairs import Pairs, find_pairs
from clipdeploy.evaluate.records import Dataset, EvaluateRequest, EvaluateResult, PairFigures
from clipdeploy.machine import this_machine
from clipdeploy.memory import collect
from clipdeploy.progress import Progress, silent
from clipdeploy.runtime.auto.candidates import Pair
from clipdeploy.runtime.backends import check_threads
from clipdeploy.runtime.batches import check_batch_size
from clipdeploy.runtime.clip import load
from clipdeploy.runtime.image import ImageProcessor
from clipdeploy.runtime.labels import DEFAULT_TEMPLATE, fill_templates, resolve_templates
from clipdeploy.runtime.text_bank import check_lengths
from clipdeploy.runtime.tokenizer import Tokenizer
from clipdeploy.spec import Precision, Tower
from clipdeploy.verify.reference import RUNTIME_LIBRARIES, made_with
from clipdeploy.versions import installed

if TYPE_CHECKING:
    from clipdeploy.export.checkpoint import Checkpoint

_WITH_PYTORCH = ("torch", "torchvision", "open_clip_torch", "transformers")


def evaluate_bundle(request: EvaluateRequest, *, progress: Progress = silent) -> EvaluateResult:
    """How good a bundle's answers are on a dataset, by backend and precision.

    Pictures are decoded and cropped once; every pair sees the same crops. PyTorch, where a checkpoint is given, reads
    the files itself, with the checkpoint's own transform and tokenizer.

    Raises:
        InputError: the request, the dataset or a file beside it makes no sense.
        BundleError: the bundle cannot be opened.
        MissingExtraError, BackendError, EngineError: a pair that was asked for by name does not run, or none does.
        CheckpointError: the checkpoint cannot be loaded.
        OutputError: an output cannot be written; found before the work, as far as it can be.
    """
    started = time.perf_counter()
    check_threads(request.threads)
    check_batch_size(request.batch_size)
    check_outputs(request)
    bundle = Bundle.open(request.bundle)
    bundle.check_unbaked("evaluate")
    pairs = find_pairs(bundle, request)
    dataset = limited(read_dataset(request.data, classnames=request.classnames, progress=progress), request.limit)
    has_reference = request.checkpoint is not None or pairs.reference is not None
    check_limits(request, dataset.task, has_reference=has_reference)
    templates = _templates(request, dataset)
    _check_texts(bundle, dataset, templates)
    checkpoint = _load(request, progress)
    processor = ImageProcessor(bundle.model.pixels, workers=request.threads)
    try:
        with read_crops(processor, dataset.items, batch_size=request.batch_size, progress=progress) as crops:
            work = _Work(request, bundle, _readable(dataset, crops), templates, crops, progress)
            del dataset
            result = _evaluate(work, pairs, checkpoint)
            result = replace(result, seconds=time.perf_counter() - started)
            _write(work, result)
    finally:
        processor.close()
    return result


@dataclass(frozen=True, eq=False)
class _Work:
    """What all pairs share."""

    request: EvaluateRequest
    bundle: Bundle
    dataset: Dataset
    templates: tuple[str, ...]
    crops: Crops
    progress: Progress


def _evaluate(work: _Work, pairs: Pairs, checkpoint: Checkpoint | None) -> EvaluateResult:
    dataset, request = work.dataset, work.request
    groups = None if request.groups is None else read_groups(request.groups, [item.name for item in dataset.items])
    notes = [*dataset.notes, *(groups.notes if groups is not None else ())]
    if checkpoint is not None:
        if checkpoint.weights_sha256 != work.bundle.manifest.provenance.weights_sha256:
            notes.append(f"{checkpoint.source} has other weights than those that the bundle was made from")
    elif pairs.reference is None:
        notes.append("nothing runs the bundle in fp32 here: there is nothing to compare with")
    elif pairs.reference[1] is Precision.FP32 and not _asked_for(request, Precision.FP32):
        notes.append("fp32 was evaluated too, to compare with")
    done: list[PairFigures] = []
    first: Answered | None = None
    for encoded in _encoded(work, pairs, checkpoint):
        work.progress(f"{encoded.name}: figures", 0, 0)
        answered = answer(dataset, encoded)
        done.append(figures(dataset, work.bundle.model, answered, reference=first, groups=groups))
        if checkpoint is not None or pairs.reference is not None:
            first = first or answered
    manifest = work.bundle.manifest
    return EvaluateResult(
        bundle=request.bundle.resolve().name,
        model=manifest.model.name,
        pretrained=_pretrained(manifest.provenance.source, manifest.model.name),
        dataset=dataset.name,
        task=dataset.task,
        layout=dataset.layout,
        classes=dataset.classes,
        templates=work.templates,
        captions=len(dataset.captions),
        count=len(dataset.items),
        pairs=tuple(done),
        absent=pairs.absent,
        skipped=dict(work.crops.skipped),
        notes=tuple(notes),
        environment=_environment(with_pytorch=checkpoint is not None),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        class_counts=_class_counts(dataset),
        misses=find_misses(request, dataset.task, done),
    )


def _encoded(work: _Work, pairs: Pairs, checkpoint: Checkpoint | None) -> Iterator[Encoded]:
    """The dataset as each pair sees it, the reference first; of the others one at a time is in memory."""
    first: Encoded | None = None
    if checkpoint is not None:
        first = encode_checkpoint(
            checkpoint, work.dataset, work.templates, batch_size=work.request.batch_size, progress=work.progress
        )
        del checkpoint
        yield first
    for pair in tuple(pairs.running):
        try:
            encoded = _encode(work, pair, first)
        except ClipdeployError as error:
            pairs.leave_out(pair, error)
            continue
        first = first or encoded
        yield encoded
        collect()


def _encode(work: _Work, pair: Pair, first: Encoded | None) -> Encoded:
    backend, precision = pair
    request = work.request
    work.progress(f"{backend} {precision.value}: loading", 0, 0)
    target = request.target if precision.quantised else None
    clip = load(
        work.bundle,
        precision=precision,
        backend=backend,
        target=target,
        threads=request.threads,
        usual_batch=request.batch_size,
        check_hashes=False,
    )
    with clip:
        return encode_pair(
            clip,
            work.crops,
            work.dataset,
            work.templates,
            batch_size=request.batch_size,
            instead=first,
            progress=work.progress,
        )


def _readable(dataset: Dataset, crops: Crops) -> Dataset:
    """The pictures that could be read."""
    return dataset if crops.count == len(dataset.items) else subset(dataset, crops.rows)


def _templates(request: EvaluateRequest, dataset: Dataset) -> tuple[str, ...]:
    """Of classes: those asked for, else the dataset's, else the usual one."""
    if not dataset.classes:
        return ()
    given = tuple(
        one for name in request.templates or dataset.templates or (DEFAULT_TEMPLATE,) for one in resolve_templates(name)
    )
    return tuple(dict.fromkeys(given))


def _check_texts(bundle: Bundle, dataset: Dataset, templates: tuple[str, ...]) -> None:
    """Raise TextError for a class that the tokenizer would cut; captions are cut, as CLIP_benchmark cuts them."""
    if dataset.classes and bundle.precisions(Tower.TEXT):
        spec = bundle.model.tokens
        texts = fill_templates(dataset.classes, templates)
        check_lengths(texts, lambda: Tokenizer(bundle.path("tokenizer.json"), spec), spec.context_length)


def _load(request: EvaluateRequest, progress: Progress) -> Checkpoint | None:
    if request.checkpoint is None:
        return None
    from clipdeploy.export.load import load_checkpoint

    progress(f"loading {request.checkpoint.model}", 0, 0)
    return load_checkpoint(request.checkpoint, progress=progress)


def _write(work: _Work, result: EvaluateResult) -> None:
    from clipdeploy.evaluate.page import render, shown_items, thumbnail

    if work.request.output is not None:
        write_results(work.request.output, result)
    if work.request.html is not None:
        pictures = {item: thumbnail(work.crops.crop(item)) for item in shown_items(result)}
        write_page(work.request.html, render(result, pictures))


def _class_counts(dataset: Dataset) -> tuple[int, ...]:
    counts = [0] * len(dataset.classes)
    for item in dataset.items if counts else ():
        counts[item.truth] += 1
    return tuple(counts)


def _asked_for(request: EvaluateRequest, precision: Precision) -> bool:
    return any(name in ("all", precision.value) for name in request.precisions)


def _pretrained(source: str, model: str) -> str:
    """The weights' own name, where the source tells it behind the architecture: CLIP_benchmark keeps the two apart."""
    named = re.fullmatch(r"(.+) \((.+)\)", source)
    return named[2] if named and named[1] == model else source


def _environment(*, with_pytorch: bool) -> dict[str, object]:
    machine = this_machine()
    libraries = made_with(RUNTIME_LIBRARIES) | (installed(_WITH_PYTORCH) if with_pytorch else {})
    return {"platform": machine.platform, "cores": machine.cpus, "libraries": libraries}
