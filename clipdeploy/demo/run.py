"""The demo: the whole way with our own small CLIP, offline. Pictures of colour-shape pairs it never saw in training."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from clipdeploy.demo.outcome import DemoAnswer, DemoOutcome, DemoSearch
from clipdeploy.progress import Progress, silent

if TYPE_CHECKING:
    from clipdeploy.runtime.clip import Clip

QUERIES = ("a red heart on a wooden table", "something blue", "a blurry photo of a star", "a ring")
FOUND = 3


def run_demo(
    folder: Path, *, model: str | None = None, pictures: int = 24, seed: int = 0, progress: Progress = silent
) -> DemoOutcome:
    """Draw pictures, export and verify the shipped CLIP, classify and search the pictures, write a page.

    Args:
        folder: gets `pictures/`, `bundle/` and `index.html`; those of an earlier run are replaced.
        model: which of `clipdeploy.demo.MODELS`; None takes the default one.
        pictures: how many to draw.
        seed: of the pictures.

    Raises:
        MissingExtraError: the extra `export` or an engine is not installed.
        OutputError: the folder cannot be written.
    """
    from clipdeploy.demo import class_names, model_path
    from clipdeploy.demo.dataset import write_images
    from clipdeploy.demo.page import write_page
    from clipdeploy.pipeline import ExportRequest, export_bundle
    from clipdeploy.request import CheckpointRequest
    from clipdeploy.runtime.clip import load

    started = time.perf_counter()
    progress("drawing pictures", 0, 0)
    drawn = write_images(folder / "pictures", count=pictures, split="held-out", seed=seed)
    source = f"local-dir:{model_path() if model is None else model_path(model)}"
    request = ExportRequest(CheckpointRequest(source), output=folder / "bundle", overwrite=True)
    export = export_bundle(request, progress=progress)
    progress("classifying", 0, 0)
    labels = class_names()
    with load(export.bundle, backend="onnxruntime") as clip:
        answers, classify_ms = _classify(clip, drawn.paths, drawn.labels, labels)
        searches = _search(clip, drawn.paths)
    page = folder / "index.html"
    outcome = DemoOutcome(
        export=export,
        answers=answers,
        searches=searches,
        labels=len(labels),
        page=page,
        classify_ms=classify_ms,
        seconds=time.perf_counter() - started,
    )
    write_page(outcome, page)
    return outcome


def _classify(
    clip: Clip, paths: tuple[Path, ...], truths: tuple[str, ...], labels: tuple[str, ...]
) -> tuple[tuple[DemoAnswer, ...], float]:
    """The answers, and ms per picture once the labels are embedded."""
    clip.classify(paths[0], labels)
    started = time.perf_counter()
    found = clip.classify(list(paths), labels, top=1)
    each_ms = (time.perf_counter() - started) * 1e3 / len(paths)
    answers = (DemoAnswer(p, t, f.label, f.probability) for p, t, f in zip(paths, truths, found, strict=True))
    return tuple(answers), each_ms


def _search(clip: Clip, paths: tuple[Path, ...]) -> tuple[DemoSearch, ...]:
    cosines = clip.similarity(clip.encode_image(list(paths)), clip.encode_text(QUERIES))  # (N, Q)
    searches = []
    for query, column in zip(QUERIES, cosines.T, strict=True):
        best = column.argsort()[::-1][:FOUND]
        searches.append(DemoSearch(query, tuple(paths[i] for i in best), tuple(float(column[i]) for i in best)))
    return tuple(searches)
