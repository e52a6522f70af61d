"""How far an answer may be from the reference's: the limits of each number format, and of what was quantised."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from clipdeploy.errors import InputError
from clipdeploy.runtime.selftest.recorded import Recorded
from clipdeploy.spec import Precision


@dataclass(frozen=True)
class Gates:
    """The limits a bundle has to keep. Pixels and tokens have none: they are identical or they fail.

    Attributes:
        max_abs: largest absolute difference of one embedding value, and of one cosine of the similarity matrix.
        cosine: smallest cosine between our embedding and the reference's, over all samples.
        unit_norm: largest distance of an embedding's L2 norm from 1.
        top1: share of decided top-1 answers that agree, 0..1.
        tie: cosine; where the reference itself prefers its answer to ours by no more, the answer counts as a tie.
        distinct: L2 distance from which two embeddings of the reference count as distinct.
        spread: a distinct pair has to stay this share of its distance apart, 0..1.
    """

    max_abs: float
    cosine: float
    unit_norm: float
    top1: float
    tie: float
    distinct: float
    spread: float

    def __post_init__(self) -> None:
        limits = (self.max_abs, self.unit_norm, self.tie, self.distinct)
        shares = (self.top1, self.spread)
        if min(limits) < 0 or not -1 <= self.cosine <= 1 or not all(0 <= share <= 1 for share in shares):
            raise InputError(
                f"impossible gates: {self}", fix="limits are >= 0, cosine lies in -1..1, top1 and spread in 0..1"
            )


FP32_GATES = Gates(max_abs=1e-4, cosine=0.99999, unit_norm=1e-5, top1=1.0, tie=2e-6, distinct=1e-4, spread=0.5)
"""Of one fp32 engine against another: a correct one is some hundred times better than `max_abs`. `tie` is what
float32 leaves of a cosine of two unit vectors with a few hundred values."""

FP16_GATES = replace(FP32_GATES, max_abs=5e-3, cosine=0.9999, tie=1e-3)
"""Of an fp16 engine against another, or against float32: 11 bits, rounded in different places."""

BF16_GATES = replace(FP32_GATES, max_abs=3e-2, cosine=0.999, tie=1e-2, distinct=1e-1)
EIGHT_BIT_GATES = replace(FP32_GATES, max_abs=0.25, cosine=0.97, top1=0.99, tie=3e-2, distinct=2e-1)
"""Of 8 bits against float32, where a bundle records no other budget."""

ENGINE_COSINE = {Precision.FP16: 0.9999, Precision.BF16: 0.999, Precision.INT8: 0.995, Precision.FP8: 0.995}
"""Smallest cosine of an engine's answer to ONNX Runtime's with the same graph: both round, in different places."""


def gates_of(precision: Precision) -> Gates:
    """The limits for graphs of a precision."""
    given = {Precision.FP32: FP32_GATES, Precision.FP16: FP16_GATES, Precision.BF16: BF16_GATES}
    return given.get(precision, EIGHT_BIT_GATES)


def tower_gates(precision: Precision, recorded: Recorded | None) -> Gates:
    """The limits of an encoder: its precision's, with the budget that its graph was quantised to where there is one."""
    gates = gates_of(precision)
    if recorded is None:
        return gates
    # Unit vectors of cosine c are sqrt(2 - 2c) apart, and no value or cosine of theirs is further.
    return replace(
        gates,
        cosine=recorded.cosine_min,
        max_abs=max(gates.max_abs, float(np.sqrt(2 - 2 * recorded.cosine_min))),
        top1=min(gates.top1, recorded.top1),
    )


def loosest(gates: list[Gates]) -> Gates:
    """The limits of what goes through several encoders."""
    first = gates[0]
    for other in gates[1:]:
        first = Gates(
            max_abs=max(first.max_abs, other.max_abs),
            cosine=min(first.cosine, other.cosine),
            unit_norm=max(first.unit_norm, other.unit_norm),
            top1=min(first.top1, other.top1),
            tie=max(first.tie, other.tie),
            distinct=max(first.distinct, other.distinct),
            spread=min(first.spread, other.spread),
        )
    return first
