"""The rungs of the two encoders: the reference's pixels and token ids to embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.runtime.selftest.gates import ENGINE_COSINE, Gates
from clipdeploy.runtime.selftest.measure import Drift, Floats, drift, finite, spread_kept, worst_index
from clipdeploy.runtime.selftest.recorded import Recorded, inputs_sha256
from clipdeploy.spec import Precision, Tower
from clipdeploy.verify import causes
from clipdeploy.verify.measure import picks_alone, run_alone, run_batches
from clipdeploy.verify.records import Check, Finding, Sample, StageName
from clipdeploy.verify.subject import Outcome, Subject, say, short


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


@dataclass(frozen=True, eq=False)
class _Answers:
    """What an encoder gave, in batches and one at a time, beside the reference's (N, D).

    Attributes:
        together: (N, D) in batches.
        batched, single: how far these are, and those that were run one at a time.
        batch_drift: the largest difference between the two ways.
        errors, cosines: (N,) of each sample, the worse of the two ways.
        norms: of all embeddings of both.
        kept: of the pairs that the reference holds apart, the one that ours squeezes most; see `spread_kept`.
    """

    together: NDArray[np.float32]
    batched: Drift
    single: Drift
    batch_drift: float
    errors: Floats
    cosines: Floats
    norms: Floats
    kept: tuple[float, int, int] | None


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
    answers = _answers(encode, feeds, expected, gates)
    checks, notes = _checks(answers, gates), []
    graph = subject.clip.graphs.get(tower)
    if graph is not None and graph.note:
        notes.append(graph.note)
    recorded, engine = subject.recorded.get(tower), None
    if recorded is not None:
        notes.append(recorded.note)
        if recorded.inputs_sha256 == inputs_sha256(feeds):
            engine = _engine_check(subject.clip.precisions[tower], answers.together, recorded)
            checks.append(engine)
    if answers.kept is None:
        notes.append(
            f"the reference itself holds no two of these inputs {gates.distinct:g} apart, so it cannot be shown "
            "that the tower tells them apart"
        )
    else:
        checks.append(Check("distinct kept apart", finite(answers.kept[0]), ">=", gates.spread, "of the distance"))
    samples = tuple(
        Sample(name, bool(error <= gates.max_abs and cosine >= gates.cosine), finite(error), finite(cosine))
        for name, error, cosine in zip(names, answers.errors, answers.cosines, strict=True)
    )
    if all(check.passed for check in checks):
        return Outcome(tuple(checks), samples, None, tuple(notes))
    cause = _cause(subject, tower, answers, expected, gates, engine)
    worst = names[worst_index(answers.errors)]
    finding = Finding(worst, _numbers(answers, checks, names, gates), cause.cause, cause.fix)
    return Outcome(tuple(checks), samples, finding, tuple(notes))


def _answers(
    encode: Callable[[Any], Any], feeds: NDArray[Any], expected: NDArray[np.float32], gates: Gates
) -> _Answers:
    """Run both ways, and measured."""
    together = run_batches(encode, feeds, (expected.shape[0], expected.shape[1]))
    picks = picks_alone(len(feeds))
    alone = run_alone(encode, feeds, picks, expected.shape[1])
    batched, single = drift(together, expected), drift(alone, expected[picks])
    errors, cosines = batched.max_abs.copy(), batched.cosine.copy()
    errors[picks], cosines[picks] = np.maximum(errors[picks], single.max_abs), np.minimum(cosines[picks], single.cosine)
    return _Answers(
        together=together,
        batched=batched,
        single=single,
        batch_drift=float(np.abs(together[picks].astype(np.float64) - alone).max()),
        errors=errors,
        cosines=cosines,
        norms=np.concatenate([batched.norm, single.norm]),
        kept=spread_kept(together, expected, gates.distinct),
    )


def _checks(answers: _Answers, gates: Gates) -> list[Check]:
    """What every encoder is held to."""
    return [
        Check("not finite", float(np.isnan(answers.norms).sum()), "<=", 0.0, "embeddings"),
        Check("max abs, in batches", finite(answers.batched.max_abs.max()), "<=", gates.max_abs),
        Check("max abs, one at a time", finite(answers.single.max_abs.max()), "<=", gates.max_abs),
        Check("batches to one at a time", finite(answers.batch_drift), "<=", gates.max_abs),
        Check("cosine", finite(answers.cosines.min()), ">=", gates.cosine),
        Check("norm off 1", finite(np.abs(answers.norms - 1).max()), "<=", gates.unit_norm),
    ]


def _engine_check(precision: Precision, together: NDArray[np.float32], recorded: Recorded) -> Check:
    """The engine's answers against those of ONNX Runtime with the same graph: what is the engine's own."""
    least = drift(together, recorded.embeds).cosine.min()
    return Check("cosine to ONNX Runtime", finite(least), ">=", ENGINE_COSINE[precision])


def _cause(
    subject: Subject,
    tower: Tower,
    answers: _Answers,
    expected: NDArray[np.float32],
    gates: Gates,
    engine: Check | None,
) -> causes.Cause:
    """Why an encoder drifts; `engine` tells of a quantised one whose fault it is."""
    if engine is not None:
        return causes.of_quantised(engine_holds=engine.passed)
    return causes.of_tower(
        tower,
        answers.together,
        expected,
        batch_drift=finite(answers.batch_drift),
        max_abs_gate=gates.max_abs,
        kept=answers.kept[0] if answers.kept else None,
        same_weights=subject.same_weights,
    )


def _numbers(answers: _Answers, checks: Sequence[Check], names: Sequence[str], gates: Gates) -> str:
    """What fails, in a line."""
    worst = worst_index(answers.errors)
    broken = int(np.isnan(answers.norms).sum())
    if broken:
        numbers = f"{broken} of {len(answers.norms)} embeddings are not finite"
    else:
        failing = ", ".join(check.name for check in checks if not check.passed)
        numbers = f"max abs {say(answers.errors[worst])}, cosine {say(answers.cosines[worst])}; fails: {failing}"
    kept = answers.kept
    if kept is not None and not kept[0] >= gates.spread and np.isfinite(kept[0]):
        numbers += f"; {short(names[kept[1]])} and {short(names[kept[2]])} fall together"
    return numbers
