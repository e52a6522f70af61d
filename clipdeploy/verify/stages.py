"""The six rungs of the ladder. Each is fed with the reference's input, so that it fails for its own fault alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import ParityError
from clipdeploy.runtime.selftest.gates import ENGINE_COSINE, Gates
from clipdeploy.runtime.selftest.golden_frames import has_answers
from clipdeploy.runtime.selftest.measure import Floats, drift, finite, spread_kept, worst_index
from clipdeploy.runtime.selftest.recorded import Recorded, inputs_sha256
from clipdeploy.spec import Precision, Tower
from clipdeploy.verify import causes
from clipdeploy.verify.measure import picks_alone, run_alone, run_batches
from clipdeploy.verify.records import Check, Finding, Sample, StageName
from clipdeploy.verify.reference import Reference

if TYPE_CHECKING:
    from clipdeploy.runtime.clip import Clip


TOWERS: dict[StageName, Tower] = {"image_tower": Tower.IMAGE, "text_tower": Tower.TEXT}
"""The encoder that a stage runs alone."""
_NO_ANSWERS = "the bundle holds no answers to camera frames that an engine could be held to, and none was verified"


@dataclass(frozen=True)
class Outcome:
    """What a stage measured, before it is timed."""

    checks: tuple[Check, ...]
    samples: tuple[Sample, ...]
    finding: Finding | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Subject:
    """What is verified, against what, within which gates."""

    clip: Clip
    reference: Reference
    gates: Gates
    versions: dict[str, str]
    same_weights: bool | None
    tower_gates: Mapping[Tower, Gates] = field(default_factory=dict)
    recorded: Mapping[Tower, Recorded] = field(default_factory=dict)

    @cached_property
    def absent(self) -> dict[Tower, str]:
        """The encoders that do not run here, each with what it has not."""
        unbuilt = dict.fromkeys(self.clip.unbuilt, "no engine")
        return unbuilt | {tower: "no graph in the bundle" for tower in Tower if tower not in self.clip.precisions}

    def unverified(self, name: StageName) -> str:
        """Why there is nothing to verify in a stage; empty where there is."""
        if name == "tokens" and Tower.TEXT not in self.clip.precisions:
            return "the bundle has no text encoder, and its tokenizer was not verified"
        if name == "frames" and self.clip.chosen.engines is not None:
            return "" if any(has_answers(self.clip.bundle, f) for f in self.clip.frames) else _NO_ANSWERS
        tower = TOWERS.get(name)
        if tower not in self.absent:
            return ""
        told = f"the {tower.value} encoder has {self.absent[tower]} and was not verified"
        return f"{told}; {self.clip.unbuilt[tower]}" if tower in self.clip.unbuilt else told

    @cached_property
    def crops(self) -> list[NDArray[np.uint8]]:
        """Our own crop of every picture."""
        return [np.asarray(self.clip.images.crop(picture.path)) for picture in self.reference.pictures]

    @cached_property
    def tokens(self) -> NDArray[np.int64]:
        """Our own token ids of all texts."""
        return np.asarray(self.clip.tokenizer(list(self.reference.texts)))

    @cached_property
    def cosines(self) -> Floats:
        """(K, T) end to end: our crops, pixels, tokens and towers; of a tower that does not run the reference's."""
        k, t, dim = len(self.reference.pictures), len(self.reference.texts), self.clip.spec.embed_dim
        images, texts = self.reference.image_embeds, self.reference.text_embeds
        if Tower.IMAGE not in self.absent:
            pixels = self.clip.images.normalize(np.stack(self.crops))
            images = run_batches(self.clip.encode_pixels, pixels, (k, dim))
        if Tower.TEXT not in self.absent:
            texts = run_batches(self.clip.encode_tokens, self.tokens, (t, dim))
        return np.asarray(images.astype(np.float64) @ texts.astype(np.float64).T)

    @property
    def half(self) -> tuple[str, ...]:
        """A note where one side of the cosines is not ours."""
        return tuple(
            f"the {tower.value} embeddings are the reference's: the {tower.value} encoder has {lacking}"
            for tower, lacking in self.absent.items()
        )

    @cached_property
    def reference_cosines(self) -> Floats:
        """(K, T) of the reference."""
        images, texts = self.reference.image_embeds, self.reference.text_embeds
        return np.asarray(images.astype(np.float64) @ texts.astype(np.float64).T)


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
            f"{wrong} of {len(names)} crops differ; {samples[worst].note}, by up to {_say(levels[worst])} of 255 levels"
        )
    else:
        worst = worst_index(off)
        cause = causes.Cause(
            "the crops are right, the normalised floats are not: mean, std or the order of the steps",
            "compare `pixels` in manifest.json with the checkpoint's preprocessing, and export again",
        )
        numbers = f"normalised pixels are off by up to {_say(off[worst])}"
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


def image_tower(subject: Subject, earlier: Sequence[StageName]) -> Outcome:
    """The reference's pixels -> embeddings."""
    names = [picture.name for picture in subject.reference.pictures]
    reference = subject.reference
    return _tower(subject, Tower.IMAGE, names, subject.clip.encode_pixels, reference.pixels, reference.image_embeds)


def text_tower(subject: Subject, earlier: Sequence[StageName]) -> Outcome:
    """The reference's token ids -> embeddings."""
    reference = subject.reference
    encode = subject.clip.encode_tokens
    return _tower(subject, Tower.TEXT, list(reference.texts), encode, reference.tokens, reference.text_embeds)


def _tower(
    subject: Subject,
    tower: Tower,
    names: Sequence[str],
    encode: Callable[[Any], Any],
    feeds: NDArray[Any],
    expected: NDArray[np.float32],
) -> Outcome:
    """In batches and one at a time; both against the reference and against each other."""
    gates = subject.tower_gates.get(tower, subject.gates)
    together = run_batches(encode, feeds, (expected.shape[0], expected.shape[1]))
    picks = picks_alone(len(feeds))
    alone = run_alone(encode, feeds, picks, expected.shape[1])
    batched, single = drift(together, expected), drift(alone, expected[picks])
    batch_drift = np.abs(together[picks].astype(np.float64) - alone).max()
    errors, cosines = batched.max_abs.copy(), batched.cosine.copy()
    errors[picks], cosines[picks] = np.maximum(errors[picks], single.max_abs), np.minimum(cosines[picks], single.cosine)
    norms = np.concatenate([batched.norm, single.norm])
    checks = [
        Check("not finite", float(np.isnan(norms).sum()), "<=", 0.0, "embeddings"),
        Check("max abs, in batches", finite(batched.max_abs.max()), "<=", gates.max_abs),
        Check("max abs, one at a time", finite(single.max_abs.max()), "<=", gates.max_abs),
        Check("batches to one at a time", finite(batch_drift), "<=", gates.max_abs),
        Check("cosine", finite(cosines.min()), ">=", gates.cosine),
        Check("norm off 1", finite(np.abs(norms - 1).max()), "<=", gates.unit_norm),
    ]
    notes: list[str] = []
    graph = subject.clip.graphs.get(tower)
    if graph is not None and graph.note:
        notes.append(graph.note)
    recorded = subject.recorded.get(tower)
    engine = None
    if recorded is not None:
        notes.append(recorded.note)
        if recorded.inputs_sha256 == inputs_sha256(feeds):
            engine = _engine_check(subject.clip.precisions[tower], together, recorded)
            checks.append(engine)
    kept = spread_kept(together, expected, gates.distinct)
    if kept is None:
        notes.append(
            f"the reference itself holds no two of these inputs {gates.distinct:g} apart, so it cannot be shown "
            "that the tower tells them apart"
        )
    else:
        checks.append(Check("distinct kept apart", finite(kept[0]), ">=", gates.spread, "of the distance"))
    samples = tuple(
        Sample(name, bool(error <= gates.max_abs and cosine >= gates.cosine), finite(error), finite(cosine))
        for name, error, cosine in zip(names, errors, cosines, strict=True)
    )
    if all(check.passed for check in checks):
        return Outcome(tuple(checks), samples, None, tuple(notes))
    squeezed = kept is not None and not kept[0] >= gates.spread
    cause = (
        causes.of_quantised(engine_holds=engine.passed)
        if engine is not None
        else causes.of_tower(
            tower,
            together,
            expected,
            batch_drift=finite(batch_drift),
            max_abs_gate=gates.max_abs,
            kept=kept[0] if kept else None,
            same_weights=subject.same_weights,
        )
    )
    worst = worst_index(errors)
    broken = int(checks[0].value or 0)
    numbers = (
        f"{broken} of {len(norms)} embeddings are not finite"
        if broken
        else (f"max abs {_say(errors[worst])}, cosine {_say(cosines[worst])}; fails: " + _failing(checks))
    )
    if squeezed and kept is not None and np.isfinite(kept[0]):
        numbers += f"; {_short(names[kept[1]])} and {_short(names[kept[2]])} fall together"
    return Outcome(tuple(checks), samples, Finding(names[worst], numbers, cause.cause, cause.fix), tuple(notes))


def _engine_check(precision: Precision, together: NDArray[np.float32], recorded: Recorded) -> Check:
    """The engine's answers against those of ONNX Runtime with the same graph: what is the engine's own."""
    least = drift(together, recorded.embeds).cosine.min()
    return Check("cosine to ONNX Runtime", finite(least), ">=", ENGINE_COSINE[precision])


def similarity(subject: Subject, earlier: Sequence[StageName]) -> Outcome:
    """End to end on our own pixels and tokens: the (K, T) matrix of cosines."""
    names = [picture.name for picture in subject.reference.pictures]
    error = np.abs(subject.cosines - subject.reference_cosines)
    scale = subject.clip.spec.logit_scale
    checks = (Check("max abs of cosines", finite(error.max()), "<=", subject.gates.max_abs),)
    notes = (*subject.half, f"as logits (scale {scale:.4g}) that is {_say(float(error.max()) * scale)}")
    rows = error.max(axis=1)
    samples = tuple(
        Sample(name, bool(row <= subject.gates.max_abs), finite(row)) for name, row in zip(names, rows, strict=True)
    )
    if checks[0].passed:
        return Outcome(checks, samples, None, notes)
    worst = worst_index(rows)
    text = subject.reference.texts[worst_index(error[worst])]
    cause = causes.of_similarity(earlier)
    numbers = f"cosine to {_short(text)}: difference {_say(rows[worst])}"
    return Outcome(checks, samples, Finding(names[worst], numbers, cause.cause, cause.fix), notes)


def top1(subject: Subject, earlier: Sequence[StageName]) -> Outcome:
    """Which text is nearest to each picture, and which picture to each text, end to end."""
    ours, theirs, gates = subject.cosines, subject.reference_cosines, subject.gates
    pictures, texts = [p.name for p in subject.reference.pictures], list(subject.reference.texts)
    if not np.isfinite(ours).all():
        raise ParityError("cosines are not finite, so no answer is nearest", fix="mend the towers first")
    samples = [
        *_answers(ours, theirs, pictures, texts, gates.tie),
        *_answers(ours.T, theirs.T, texts, pictures, gates.tie),
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


def _answers(ours: Floats, theirs: Floats, asked: Sequence[str], answers: Sequence[str], tie: float) -> list[Sample]:
    """One sample a row of (R, C): whether ours is highest where theirs is, or where theirs is as high within `tie`."""
    samples = []
    for name, our_row, their_row in zip(asked, ours, theirs, strict=True):
        our, their = int(our_row.argmax()), int(their_row.argmax())
        margin = float(their_row[their] - their_row[our])
        if our == their:
            note = ""
        elif margin <= tie:
            note = f"tie of {_short(answers[their])} and {_short(answers[our])}"
        else:
            note = f"answers {_short(answers[our])}, expected {_short(answers[their])}"
        samples.append(Sample(name, margin <= tie, margin, note=note))
    return samples


def _first_wrong(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> str:
    place = int((ours != theirs).argmax())
    return f"place {place} has {ours[place]}, expected {theirs[place]}"


def _failing(checks: Sequence[Check]) -> str:
    return ", ".join(check.name for check in checks if not check.passed)


def _short(name: str) -> str:
    return repr(name if len(name) <= 40 else name[:39] + "…")


def _say(value: float) -> str:
    return f"{value:.3g}" if np.isfinite(value) else "not finite"
