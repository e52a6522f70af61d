"""The rungs that look at pictures, texts, and answers. Each is fed with the reference's input, so that it fails for its
own fault alone; `similarity` and `top1` go end to end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import ParityError
from clipdeploy.runtime.selftest.measure import Floats, finite, worst_index
from clipdeploy.verify import causes
from clipdeploy.verify.records import Check, Finding, Sample, StageName
from clipdeploy.verify.subject import Outcome, Subject, say, short


def pixels(subject: Subject, earlier: Sequence[StageName]) -> Outcome:
    """Picture files -> uint8 crops -> normalised floats; both bit for bit."""
    reference = subject.reference
    names = [picture.name for picture in reference.pictures]
    same_size = [c if c.shape == r.shape else None for c, r in zip(subject.crops, reference.crops, strict=True)]
    samples: list[Sample] = []
    levels: list[float] = []
    for name, ours, theirs, any_size in zip(names, same_size, reference.crops, subject.crops, strict=True):
        if ours is None:
            samples.append(Sample(name, False, None, note=f"crop is {any_size.shape}, expected {theirs.shape}"))
            levels.append(np.inf)
            continue
        apart = np.abs(ours.astype(np.int16) - theirs)
        share = f"{100 * (apart > 0).mean():.3g} % of values differ" if apart.any() else ""
        samples.append(Sample(name, not apart.any(), float(apart.max()), note=share))
        levels.append(float(apart.max()))
    floats = np.asarray(subject.clip.images.normalize(reference.crops))
    if floats.shape != reference.pixels.shape or floats.dtype != np.float32:
        raise ParityError(
            f"normalised pixels are {floats.shape} {floats.dtype}, expected {reference.pixels.shape} float32",
            fix="export the checkpoint again",
        )
    off = np.abs(floats.astype(np.float64) - reference.pixels).reshape(len(names), -1).max(axis=1)
    checks = (
        Check("crop", finite(max(levels)), "<=", 0.0, "of 255 levels"),
        Check("normalised", finite(off.max()), "<=", 0.0),
    )
    if all(check.passed for check in checks):
        return Outcome(checks, tuple(samples), None)
    if not checks[0].passed:
        worst = worst_index(np.asarray(levels))
        cause = causes.of_crops(same_size, reference.crops, names, (subject.versions, reference.tools))
        wrong = sum(not s.passed for s in samples)
        numbers = (
            f"{wrong} of {len(names)} crops differ; {samples[worst].note}, by up to {say(levels[worst])} of 255 levels"
        )
    else:
        worst = worst_index(off)
        cause = causes.Cause(
            "the crops are right, the normalised floats are not: mean, std or the order of the steps",
            "compare `pixels` in manifest.json with the checkpoint's preprocessing, and export again",
        )
        numbers = f"normalised pixels are off by up to {say(off[worst])}"
    return Outcome(checks, tuple(samples), Finding(names[worst], numbers, cause.cause, cause.fix))


def tokens(subject: Subject, earlier: Sequence[StageName]) -> Outcome:
    """Texts -> token ids, id for id."""
    ours, theirs, texts = subject.tokens, subject.reference.tokens, subject.reference.texts
    if ours.shape != theirs.shape:
        raise ParityError(
            f"token ids are {ours.shape}, expected {theirs.shape}",
            fix="context_length in manifest.json is not the checkpoint's: export the checkpoint again",
        )
    wrong = (ours != theirs).sum(axis=1)
    samples = tuple(
        Sample(text, not n, float(n), note=_first_wrong(a, b) if n else "")
        for text, n, a, b in zip(texts, wrong, ours, theirs, strict=True)
    )
    checks = (Check("ids that differ", float(wrong.sum()), "<=", 0.0, f"of {theirs.size}"),)
    if checks[0].passed:
        return Outcome(checks, samples, None)
    worst = int(wrong.argmax())
    cause = causes.of_tokens(ours, theirs, subject.clip.spec.tokens)
    numbers = f"{int((wrong > 0).sum())} of {len(texts)} texts differ; here {wrong[worst]} ids: {samples[worst].note}"
    return Outcome(checks, samples, Finding(texts[worst], numbers, cause.cause, cause.fix))


def similarity(subject: Subject, earlier: Sequence[StageName]) -> Outcome:
    """End to end on our own pixels and tokens: the (K, T) matrix of cosines."""
    names = [picture.name for picture in subject.reference.pictures]
    error = np.abs(subject.cosines - subject.reference_cosines)
    scale = subject.clip.spec.logit_scale
    checks = (Check("max abs of cosines", finite(error.max()), "<=", subject.gates.max_abs),)
    notes = (*subject.half, f"as logits (scale {scale:.4g}) that is {say(float(error.max()) * scale)}")
    rows = error.max(axis=1)
    samples = tuple(
        Sample(name, bool(row <= subject.gates.max_abs), finite(row)) for name, row in zip(names, rows, strict=True)
    )
    if checks[0].passed:
        return Outcome(checks, samples, None, notes)
    worst = worst_index(rows)
    text = subject.reference.texts[worst_index(error[worst])]
    cause = causes.of_similarity(earlier)
    numbers = f"cosine to {short(text)}: difference {say(rows[worst])}"
    return Outcome(checks, samples, Finding(names[worst], numbers, cause.cause, cause.fix), notes)


def top1(subject: Subject, earlier: Sequence[StageName]) -> Outcome:
    """Which text is nearest to each picture, and which picture to each text, end to end."""
    ours, theirs, gates = subject.cosines, subject.reference_cosines, subject.gates
    pictures, texts = [p.name for p in subject.reference.pictures], list(subject.reference.texts)
    if not np.isfinite(ours).all():
        raise ParityError("cosines are not finite, so no answer is nearest", fix="mend the towers first")
    samples = [
        *nearest(ours, theirs, pictures, texts, gates.tie),
        *nearest(ours.T, theirs.T, texts, pictures, gates.tie),
    ]
    ties, wrong = sum(s.note.startswith("tie") for s in samples), [s for s in samples if not s.passed]
    decided = len(samples) - ties
    rate = (decided - len(wrong)) / decided if decided else None
    checks = (Check("agreement", rate, ">=", gates.top1, f"of {decided} decided"),)
    tied = (f"{ties} of {len(samples)} answers are ties within {gates.tie:g} and are not counted",) if ties else ()
    notes = (*subject.half, *tied)
    if checks[0].passed:
        return Outcome(checks, tuple(samples), None, notes)
    if not wrong:
        text = "the reference prefers no answer: all are ties"
        cause = causes.Cause("the checkpoint cannot tell these samples apart", "give other pictures and texts")
        return Outcome(checks, tuple(samples), Finding("every sample", text, cause.cause, cause.fix), notes)
    worst = max(wrong, key=lambda sample: sample.error or 0.0)
    cause = causes.of_top1(earlier, worst.error or 0.0, ours - theirs)
    numbers = f"{len(wrong)} of {decided} answers differ; {worst.note}"
    return Outcome(checks, tuple(samples), Finding(worst.name, numbers, cause.cause, cause.fix), notes)


def nearest(ours: Floats, theirs: Floats, asked: Sequence[str], answers: Sequence[str], tie: float) -> list[Sample]:
    """One sample a row of (R, C): whether ours is highest where theirs is, or where theirs is as high within `tie`."""
    samples = []
    for name, our_row, their_row in zip(asked, ours, theirs, strict=True):
        our, their = int(our_row.argmax()), int(their_row.argmax())
        margin = float(their_row[their] - their_row[our])
        if our == their:
            note = ""
        elif margin <= tie:
            note = f"tie of {short(answers[their])} and {short(answers[our])}"
        else:
            note = f"answers {short(answers[our])}, expected {short(answers[their])}"
        samples.append(Sample(name, margin <= tie, margin, note=note))
    return samples


def _first_wrong(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> str:
    place = int((ours != theirs).argmax())
    return f"place {place} has {ours[place]}, expected {theirs[place]}"
