"""The rung of camera frames: frames of each kind that the bundle takes, to the pixels that the runtime itself makes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clipdeploy.runtime.selftest.frames import LARGEST_LEVELS, LARGEST_SHARE, expected_pixels, levels_apart
from clipdeploy.runtime.selftest.golden import read_samples
from clipdeploy.runtime.selftest.golden_frames import golden_frames, has_answers, read_answers
from clipdeploy.runtime.selftest.measure import drift, finite, worst_index
from clipdeploy.spec import FrameSpec, Tower
from clipdeploy.verify.causes import Cause
from clipdeploy.verify.records import Check, Finding, Sample, StageName
from clipdeploy.verify.subject import Outcome, Subject

_A_FEW = 3.0
"""Levels that a product with fewer digits than float32 is off at most."""


def frames(subject: Subject, earlier: Sequence[StageName]) -> Outcome:
    """The reference's crops as frames of each kind, through what takes such frames here.

    A frame graph is held to the runtime's own pixels. A built engine gives none: its embeddings are held to those that
    were recorded with the frame graph, within the gates of the image encoder.
    """
    clip = subject.clip
    checks: list[Check] = []
    samples: list[Sample] = []
    notes: list[str] = []
    for frame in clip.frames:
        if clip.chosen.engines is None:
            found, sample = _pixels(subject, frame)
        elif has_answers(clip.bundle, frame):
            found, sample = _embeddings(subject, frame)
        else:
            notes.append(f"{frame}: not verified, the bundle holds no answers to such frames")
            continue
        checks += found
        samples.append(sample)
    failing = [sample for sample in samples if not sample.passed]
    if not failing:
        return Outcome(tuple(checks), tuple(samples), None, tuple(notes))
    worst = max(failing, key=lambda sample: np.inf if sample.error is None else sample.error)
    cause = _cause(subject, worst)
    return Outcome(tuple(checks), tuple(samples), Finding(worst.name, worst.note, cause.cause, cause.fix), tuple(notes))


def _pixels(subject: Subject, frame: FrameSpec) -> tuple[list[Check], Sample]:
    """Pixels of a frame graph, a frame at a time, in levels of 255."""
    clip, spec = subject.clip, subject.clip.spec.pixels
    largest, apart, values = 0.0, 0, 0
    for crop in subject.reference.crops:
        given = golden_frames(crop[None], frame, spec)
        off = levels_apart(clip.frame_pixels(given, color=frame.color), expected_pixels(given, frame, spec), spec)
        largest, apart, values = max(largest, float(off.max())), apart + int((off > 0.5).sum()), values + off.size
    share = apart / values
    checks = [
        Check(f"{frame}: largest", finite(largest), "<=", LARGEST_LEVELS, "of 255 levels"),
        Check(f"{frame}: differ", share, "<=", LARGEST_SHARE, "of the values"),
    ]
    note = f"off by up to {largest:.3g} of 255 levels, on {share:.3%} of the values" if apart else ""
    return checks, Sample(str(frame), all(check.passed for check in checks), finite(largest), note=note)


def _embeddings(subject: Subject, frame: FrameSpec) -> tuple[list[Check], Sample]:
    """Embeddings of an engine, in one batch, against those that were recorded."""
    clip = subject.clip
    gates = subject.tower_gates.get(Tower.IMAGE, subject.gates)
    given = golden_frames(read_samples(clip.bundle).crops, frame, clip.spec.pixels)
    off = drift(np.asarray(clip.encode_frames(given, color=frame.color)), read_answers(clip.bundle, frame, given))
    checks = [
        Check(f"{frame}: max abs", finite(off.max_abs.max()), "<=", gates.max_abs),
        Check(f"{frame}: cosine", finite(off.cosine.min()), ">=", gates.cosine),
    ]
    worst = worst_index(off.max_abs)
    note = f"embeddings: max abs {off.max_abs[worst]:.3g}, cosine {off.cosine[worst]:.5f}"
    return checks, Sample(
        str(frame), all(c.passed for c in checks), finite(off.max_abs.max()), finite(off.cosine.min()), note
    )


def _cause(subject: Subject, worst: Sample) -> Cause:
    folder = subject.clip.bundle.folder
    again = f"clipdeploy frames {folder} --frame {worst.name} --overwrite"
    if subject.clip.chosen.engines is not None:
        return Cause(
            "the engine computes the frame graph or the encoder behind it wrongly",
            f"build it again: clipdeploy build-engine {folder} --frame {worst.name} --overwrite; where image tower "
            "holds, it is the frame graph",
        )
    if worst.error is not None and worst.error <= _A_FEW:
        return Cause(
            "the engine rounds float32 products to fewer digits, as TF32 and 16 bits do",
            f"make the graph again with this clipdeploy, which withstands some of it: {again}; or encode_image",
        )
    return Cause("the frame graph is of another preprocessing, or the engine computes it wrongly", f"make it: {again}")
