"""The parity ladder: pixels, camera frames, tokens, image tower, text tower, similarity, top-1.

The first that drifts is named. Camera frames are verified where the bundle takes them.

Every stage runs, whatever the others say: each is fed with the reference's input, so each verdict is its own. Only
`similarity` and `top1` go end to end, and say so when they fail for an earlier stage's fault.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import numpy as np

from clipdeploy.bundle import Bundle
from clipdeploy.errors import ClipdeployError, InputError
from clipdeploy.progress import Progress, silent
from clipdeploy.runtime.selftest.gates import Gates, gates_of, loosest, tower_gates
from clipdeploy.runtime.selftest.measure import Floats, finite
from clipdeploy.runtime.selftest.recorded import read_recorded
from clipdeploy.verify import stages, towers
from clipdeploy.verify.frames import frames
from clipdeploy.verify.notes import picture_notes
from clipdeploy.verify.records import (
    SCHEMA_VERSION,
    STAGES,
    Finding,
    ParityReport,
    Stage,
    StageName,
)
from clipdeploy.verify.reference import RUNTIME_LIBRARIES, Reference, check_enough, made_with
from clipdeploy.verify.subject import Outcome, Subject

if TYPE_CHECKING:
    from clipdeploy.runtime.clip import Clip

_RUNGS: dict[StageName, Callable[[Subject, Sequence[StageName]], Outcome]] = {
    "pixels": stages.pixels,
    "frames": frames,
    "tokens": stages.tokens,
    "image_tower": towers.image_tower,
    "text_tower": towers.text_tower,
    "similarity": stages.similarity,
    "top1": stages.top1,
}


def verify(
    bundle: Bundle,
    *,
    reference: Reference,
    clip: Clip,
    gates: Gates | None = None,
    name: str | None = None,
    progress: Progress = silent,
) -> ParityReport:
    """Climb the ladder: hold `clip`, loaded from `bundle`, against `reference`.

    A drift is no exception: the report says it. Ask `report.passed` and `report.first_drift`.

    Args:
        bundle: the bundle that `clip` was loaded from.
        reference: the checkpoint in PyTorch, or the bundle's golden samples.
        clip: the runtime, in the precision and on the backend to verify.
        gates: the limits to keep; None takes those of each encoder's precision, and of the budget it was quantised to.
        name: what the report calls the bundle; its folder's name where it is None.
        progress: called as each stage begins and ends.

    Raises:
        InputError: `clip` is of another bundle, or there are fewer than two pictures or texts.
        CheckpointError, BundleCorruptError, ImageError: the reference itself cannot be had.
    """
    _check_same_bundle(bundle, clip)
    check_enough(reference.pictures, reference.texts)
    rungs = tuple(name for name in _RUNGS if name in STAGES or clip.frames)
    progress("reference", 0, len(rungs))
    began = time.perf_counter()
    reference.settle()
    reference_seconds = time.perf_counter() - began
    subject = _subject(bundle, reference, clip, gates)
    climbed: list[Stage] = []
    for number, rung in enumerate(rungs):
        progress(rung, number, len(rungs))
        climbed.append(_climb(rung, subject, [stage.name for stage in climbed if stage.failed]))
    progress("report", len(rungs), len(rungs))
    return ParityReport(
        schema_version=SCHEMA_VERSION,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        bundle=name or bundle.folder.resolve().name,
        model=bundle.model.name,
        embedding_space=clip.embedding_space,
        precision=clip.precision.value,
        backend=clip.backend.name,
        reference=reference.kind,
        versions=subject.versions,
        reference_versions=dict(reference.tools),
        gates=subject.gates,
        reference_seconds=reference_seconds,
        stages=tuple(climbed),
        pictures=picture_notes(subject),
        texts=reference.texts,
        cosines=_rows(_cosines(subject)),
        reference_cosines=_rows(subject.reference_cosines),
        precisions={tower.value: p.value for tower, p in clip.precisions.items() if tower not in clip.unbuilt},
    )


def _subject(bundle: Bundle, reference: Reference, clip: Clip, gates: Gates | None) -> Subject:
    """What is verified, within which gates."""
    recorded = read_recorded(bundle, clip.graphs)
    by_tower = {
        tower: gates or tower_gates(precision, recorded.get(tower))
        for tower, precision in clip.precisions.items()
        if tower not in clip.unbuilt
    }
    weights = reference.weights_sha256
    return Subject(
        clip=clip,
        reference=reference,
        gates=gates or loosest(list(by_tower.values()) or [gates_of(clip.precision)]),
        tower_gates=by_tower,
        recorded=recorded,
        versions=made_with(RUNTIME_LIBRARIES),
        same_weights=None if weights is None else weights == bundle.manifest.provenance.weights_sha256,
    )


def _climb(name: StageName, subject: Subject, earlier: Sequence[StageName]) -> Stage:
    """Run one stage and time it; a stage that cannot be run has failed."""
    began = time.perf_counter()
    if skipped := subject.unverified(name):
        return Stage(name, (), (), None, (), 0.0, skipped)
    try:
        with np.errstate(all="ignore"):  # what is not finite is found and reported, not warned of
            outcome = _RUNGS[name](subject, earlier)
    except ClipdeployError as error:
        fix = error.fix or "see the message"
        outcome = Outcome((), (), Finding("every sample", "the stage could not be run", error.message, fix))
    return Stage(
        name=name,
        checks=outcome.checks,
        samples=outcome.samples,
        finding=outcome.finding,
        notes=outcome.notes,
        seconds=time.perf_counter() - began,
    )


def _check_same_bundle(bundle: Bundle, clip: Clip) -> None:
    if clip.embedding_space != bundle.manifest.embedding_space:
        raise InputError(
            f"the loaded CLIP is of embedding space {clip.embedding_space}, bundle {bundle.folder} is "
            f"{bundle.manifest.embedding_space}",
            fix="load the CLIP from the bundle that is verified",
        )


def _cosines(subject: Subject) -> Floats:
    """(K, T) of ours, or (0, 0) where they cannot be computed, which the stages have reported."""
    try:
        with np.errstate(all="ignore"):
            return subject.cosines
    except ClipdeployError:
        return np.zeros((0, 0))


def _rows(matrix: Floats) -> tuple[tuple[float | None, ...], ...]:
    return tuple(tuple(finite(value) for value in row) for row in matrix)
