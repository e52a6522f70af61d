"""The ladder of a baked bundle: pixels or frames in, logits or embeddings out, and the best label of each picture.

Its reference are its golden samples: what the bundle that it was baked from answered, in ONNX Runtime, with the very
graph that this one was made of, and in fp32. What is compared, and within which limits, is what the self-test compares
before such a bundle serves; here every number is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.bundle import Bundle
from clipdeploy.errors import BundleCorruptError, ClipdeployError
from clipdeploy.progress import Progress, silent
from clipdeploy.runtime.image import ImageProcessor
from clipdeploy.runtime.selftest.baked import FRAME_MAX_ABS, REFERENCE, BakedSamples, limits, read_baked, scaled
from clipdeploy.runtime.selftest.gates import Gates, gates_of
from clipdeploy.runtime.selftest.golden import has_samples
from clipdeploy.runtime.selftest.golden_frames import golden_frames
from clipdeploy.runtime.selftest.measure import Floats, drift, finite, spread_kept, worst_index
from clipdeploy.spec import Precision, Tower
from clipdeploy.verify import causes
from clipdeploy.verify.measure import normalise, picks_alone
from clipdeploy.verify.notes import crop_note
from clipdeploy.verify.records import (
    SCHEMA_VERSION,
    Check,
    Finding,
    ParityReport,
    Sample,
    Stage,
    StageName,
)
from clipdeploy.verify.reference import RUNTIME_LIBRARIES, made_with
from clipdeploy.verify.stages import nearest
from clipdeploy.verify.subject import Outcome, say

if TYPE_CHECKING:
    from clipdeploy.runtime.baked import Baked

_FP32 = "fp32"


def verify_baked(bundle: Bundle, *, baked: Baked, name: str | None = None, progress: Progress = silent) -> ParityReport:
    """Hold `baked`, loaded from `bundle`, against the bundle's golden samples.

    Args:
        bundle: the bundle that `baked` was loaded from.
        baked: the runtime, in the precision and on the backend to verify; without its self-test, which would raise.
        name: what the report calls the bundle; its folder's name where it is None.
        progress: called as each stage begins and ends.

    Raises:
        BundleCorruptError: there are no golden samples, or they are not what was written.
    """
    if not has_samples(bundle):
        raise BundleCorruptError(
            f"bundle {bundle.folder} holds no golden samples: nothing says what it should answer",
            fix="bake again, from a bundle that clipdeploy export wrote",
        )
    subject = _Subject(baked, read_baked(bundle))
    rungs: dict[StageName, Callable[[_Subject], Outcome | str]] = {
        "pixels" if baked.frame is None else "frames": _goes_in,
        "logits" if baked.labels else "embeddings": _answers,
    }
    if baked.labels:
        rungs["top1"] = _top1
    climbed: list[Stage] = []
    for number, (rung, climb) in enumerate(rungs.items()):
        progress(rung, number, len(rungs))
        climbed.append(_climb(rung, climb, subject))
    progress("report", len(rungs), len(rungs))
    return ParityReport(
        schema_version=SCHEMA_VERSION,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        bundle=name or bundle.folder.resolve().name,
        model=bundle.model.name,
        embedding_space=bundle.manifest.embedding_space,
        precision=baked.precision.value,
        backend=baked.backend.name,
        reference="golden",
        versions=made_with(RUNTIME_LIBRARIES),
        reference_versions=dict(bundle.manifest.tools),
        gates=subject.gates,
        reference_seconds=0.0,
        stages=tuple(climbed),
        pictures=tuple(crop_note(name, crop) for name, crop in zip(subject.names, subject.samples.crops, strict=True)),
        texts=baked.labels,
        cosines=_rows(subject.cosines) if baked.labels else (),
        reference_cosines=_rows(subject.expected_cosines) if baked.labels else (),
        precisions={Tower.IMAGE.value: baked.precision.value},
    )


@dataclass(frozen=True, eq=False)
class _Subject:
    """A baked bundle as it runs, and its golden samples."""

    baked: Baked
    samples: BakedSamples

    @property
    def names(self) -> tuple[str, ...]:
        return self.samples.index.pictures

    @property
    def precision(self) -> Precision:
        return self.baked.chosen.graph(Tower.IMAGE).precision

    @property
    def graph(self) -> str:
        return self.baked.chosen.graph(Tower.IMAGE).name

    @cached_property
    def answers(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.intp]]:
        """(S, K) in one batch; some one at a time; and which these are."""
        baked, crops = self.baked, self.samples.crops
        ask: Any = baked.logits if baked.labels else baked.embed
        frame = baked.frame
        feeds = list(crops) if frame is None else golden_frames(crops, frame, baked.spec.pixels)
        picks = picks_alone(len(crops))
        alone = [ask(feeds[pick : pick + 1], batch_size=1) for pick in picks]
        return ask(feeds), np.concatenate(alone), picks

    @cached_property
    def cosines(self) -> NDArray[np.float32]:
        """(S, K) ours with the labels, or nothing where they cannot be computed, which a stage has reported."""
        try:
            return self.scaled(self.answers[0])
        except ClipdeployError:
            return np.zeros((0, 0), np.float32)

    @property
    def expected_cosines(self) -> NDArray[np.float32]:
        """(S, K) the reference's; nothing where none were recorded."""
        if not self.recorded:
            return np.zeros((0, 0), np.float32)
        return self.scaled(next(iter(self.recorded.values())))

    @cached_property
    def recorded(self) -> dict[str, NDArray[np.float32]]:
        """What ours is held to, the nearest to its own answers first: the same graph in ONNX Runtime, and fp32."""
        known = ((f"ONNX Runtime with {self.graph}", self.graph), (_FP32, REFERENCE))
        return {what: self.samples.answers[name] for what, name in known if name in self.samples.answers}

    def limits(self, what: str) -> tuple[float, float]:
        """The least cosine, and how far a value may be off: see `clipdeploy.runtime.selftest.baked.limits`."""
        budget = self.samples.index.cosine_min.get(self.graph)
        return limits(self.precision, what != _FP32, budget, self.baked.baked)

    @cached_property
    def gates(self) -> Gates:
        """Of the nearest thing to its own answers that was recorded."""
        gates = gates_of(self.precision)
        if not self.recorded:
            return gates
        cosine, max_abs = self.limits(next(iter(self.recorded)))
        # two labels that lie closer than what the frames' own rounding may move are a tie
        moved = 2 * FRAME_MAX_ABS if self.baked.frame is not None else 0.0
        return replace(gates, cosine=cosine, max_abs=max_abs, tie=max(gates.tie, moved))

    def scaled(self, answers: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits as the cosines that they were made of; embeddings as they are."""
        return scaled(answers, self.baked.baked, self.baked.spec)


def _climb(name: StageName, climb: Callable[[_Subject], Outcome | str], subject: _Subject) -> Stage:
    """Run one stage and time it; a stage that cannot be run has failed, and one that has nothing to verify says why."""
    began = time.perf_counter()
    try:
        with np.errstate(all="ignore"):  # what is not finite is found and reported, not warned of
            outcome = climb(subject)
    except ClipdeployError as error:
        fix = error.fix or "see the message"
        outcome = Outcome((), (), Finding("every sample", "the stage could not be run", error.message, fix))
    if isinstance(outcome, str):
        return Stage(name, (), (), None, (), 0.0, outcome)
    seconds = time.perf_counter() - began
    return Stage(name, outcome.checks, outcome.samples, outcome.finding, outcome.notes, seconds)


def _goes_in(subject: _Subject) -> Outcome | str:
    """The golden crops, which the runtime must leave as they are, to pixels: bit for bit."""
    if subject.baked.frame is not None:
        return "a baked graph gives no pixels: that it makes the right ones shows in what it answers to frames"
    crops, spec = subject.samples.crops, subject.baked.spec.pixels
    processor = ImageProcessor(spec, workers=1)
    levels = [float(np.abs(np.asarray(processor.crop(crop)).astype(np.int16) - crop).max()) for crop in crops]
    off = np.abs(processor.normalize(crops) - normalise(crops, spec)).reshape(len(crops), -1).max(axis=1)
    checks = (
        Check("crop", max(levels), "<=", 0.0, "of 255 levels"),
        Check("normalised", finite(off.max()), "<=", 0.0),
    )
    samples = tuple(
        Sample(name, not (level or apart), level) for name, level, apart in zip(subject.names, levels, off, strict=True)
    )
    if all(check.passed for check in checks):
        return Outcome(checks, samples, None)
    worst = worst_index(np.maximum(off, levels))
    numbers = f"off by {say(levels[worst])} of 255 levels, {say(off[worst])} when normalised"
    cause = "numpy or Pillow here compute otherwise than they should"
    return Outcome(checks, samples, Finding(subject.names[worst], numbers, cause, "install other versions of them"))


def _answers(subject: _Subject) -> Outcome | str:
    """Logits as the cosines that they were made of, or embeddings: within the limits of precision and budget."""
    if not subject.recorded:
        return "no answers to this graph were recorded when it was baked, so there is nothing to hold it to"
    names = subject.names
    held = {what: _held_to(subject, what) for what in subject.recorded}
    checks = tuple(check for one in held.values() for check in one.checks)
    errors = np.max([one.errors for one in held.values()], axis=0)
    cosines = np.min([one.cosines for one in held.values()], axis=0)
    good = np.all([one.good for one in held.values()], axis=0)
    samples = tuple(
        Sample(name, bool(fine), finite(error), None if subject.baked.labels else finite(cosine))
        for name, fine, error, cosine in zip(names, good, errors, cosines, strict=True)
    )
    failing = [what for what, one in held.items() if not all(check.passed for check in one.checks)]
    if not failing:
        return Outcome(checks, samples, None)
    worst = worst_index(np.where(good, 0.0, 1 + errors) if not good.all() else errors)
    wrong = ", ".join(dict.fromkeys(check.name for check in checks if not check.passed))
    cause, numbers = _cause(subject, failing), f"off by {say(errors[worst])}; fails: {wrong}"
    return Outcome(checks, samples, Finding(names[worst], numbers, cause.cause, cause.fix))


@dataclass(frozen=True, eq=False)
class _Held:
    """How ours are beside one of those recorded: (S,) each, the worse of in batches and one at a time."""

    checks: list[Check]
    errors: Floats
    cosines: Floats
    good: NDArray[np.bool_]


def _held_to(subject: _Subject, what: str) -> _Held:
    """Ours beside one of those recorded."""
    together, alone, picks = subject.answers
    expected = subject.scaled(subject.recorded[what])
    batched, single = drift(subject.scaled(together), expected), drift(subject.scaled(alone), expected[picks])
    gates, (cosine, max_abs) = gates_of(subject.precision), subject.limits(what)
    errors, cosines = batched.max_abs.copy(), batched.cosine.copy()
    errors[picks], cosines[picks] = np.maximum(errors[picks], single.max_abs), np.minimum(cosines[picks], single.cosine)
    to = "fp32" if what == _FP32 else "ONNX Runtime"
    checks = [
        Check(f"max abs to {to}, in batches", finite(batched.max_abs.max()), "<=", max_abs),
        Check(f"max abs to {to}, one at a time", finite(single.max_abs.max()), "<=", max_abs),
    ]
    good = errors <= max_abs
    if not subject.baked.labels:
        norms = np.concatenate([batched.norm, single.norm])
        checks.append(Check(f"cosine to {to}", finite(cosines.min()), ">=", cosine))
        checks.append(Check("norm off 1", finite(np.abs(norms - 1).max()), "<=", gates.unit_norm))
        good &= cosines >= cosine
    kept = spread_kept(subject.scaled(together), expected, max(4 * max_abs, gates.distinct))
    if kept is not None:
        checks.append(Check("distinct kept apart", finite(kept[0]), ">=", gates.spread, "of the distance"))
    return _Held(checks, errors, cosines, good)


def _cause(subject: _Subject, failing: Sequence[str]) -> causes.Cause:
    """Whose fault it is: ONNX Runtime ran the same graph when it was baked."""
    if failing == [_FP32] and len(subject.recorded) > 1 and subject.precision is not Precision.FP32:
        return causes.of_quantised(engine_holds=True)
    return causes.Cause(
        "the engine: ONNX Runtime answered otherwise with the same graph when it was baked",
        "try another backend, or another version of this one; build an engine again with --overwrite",
    )


def _top1(subject: _Subject) -> Outcome | str:
    """The best label of each picture."""
    if not subject.recorded:
        return "no answers to this graph were recorded when it was baked, so there is nothing to hold it to"
    gates, ours = subject.gates, subject.scaled(subject.answers[0]).astype(np.float64)
    theirs = subject.expected_cosines.astype(np.float64)
    samples = nearest(ours, theirs, subject.names, subject.baked.labels, gates.tie)
    ties, wrong = sum(s.note.startswith("tie") for s in samples), [s for s in samples if not s.passed]
    decided = len(samples) - ties
    if not decided:
        return f"the reference prefers no label: all {ties} answers are ties within {gates.tie:g} of a cosine"
    checks = (Check("agreement", (decided - len(wrong)) / decided, ">=", gates.top1, f"of {decided} decided"),)
    notes = (f"{ties} of {len(samples)} answers are ties within {gates.tie:g} and are not counted",) if ties else ()
    if checks[0].passed:
        return Outcome(checks, tuple(samples), None, notes)
    worst = max(wrong, key=lambda sample: sample.error or 0.0)
    cause = causes.of_top1(["logits"], worst.error or 0.0, ours - theirs)
    numbers = f"{len(wrong)} of {decided} answers differ; {worst.note}"
    return Outcome(checks, tuple(samples), Finding(worst.name, numbers, cause.cause, cause.fix), notes)


def _rows(matrix: NDArray[np.float32]) -> tuple[tuple[float | None, ...], ...]:
    return tuple(tuple(finite(value) for value in row) for row in matrix)
