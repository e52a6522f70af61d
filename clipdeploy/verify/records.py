"""What the parity ladder measures, as frozen records. They hold no arrays and travel through JSON unchanged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from clipdeploy.runtime.selftest.gates import Gates

SCHEMA_VERSION = 1

StageName = Literal[
    "pixels", "frames", "tokens", "image_tower", "text_tower", "similarity", "logits", "embeddings", "top1"
]
Rule = Literal["<=", ">="]
ReferenceKind = Literal["pytorch", "golden"]

STAGES: tuple[StageName, ...] = ("pixels", "tokens", "image_tower", "text_tower", "similarity", "top1")
"""Of every bundle with encoders; those that take camera frames have `frames` behind `pixels`. Baked ones have `pixels`
or `frames`, `logits` or `embeddings`, and, with labels, `top1`."""


@dataclass(frozen=True)
class Check:
    """One number held against its gate. `value` is None where it is not finite; that never passes."""

    name: str
    value: float | None
    rule: Rule
    gate: float
    unit: str = ""

    @property
    def passed(self) -> bool:
        if self.value is None:
            return False
        return self.value <= self.gate if self.rule == "<=" else self.value >= self.gate


@dataclass(frozen=True)
class Sample:
    """What one picture or text did in one stage.

    Attributes:
        name: the picture's file name, or the text itself.
        error: pixels and frames: largest difference in levels of 255; tokens: how many ids differ; towers and
            similarity: largest absolute difference; top1: by how much the reference prefers its answer. None: not
            finite.
        cosine: to the reference's embedding, in the tower stages.
        note: what there is to say, in words; often empty.
    """

    name: str
    passed: bool
    error: float | None
    cosine: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Finding:
    """Why a stage failed: the worst sample, the numbers, the likely cause, and what to do."""

    sample: str
    numbers: str
    cause: str
    fix: str


@dataclass(frozen=True)
class Stage:
    """One rung of the ladder. It passes when it could be run and every check does; else `finding` says why not.

    `skipped` says why there was nothing to verify, empty where there was; such a stage neither passes nor fails.
    """

    name: StageName
    checks: tuple[Check, ...]
    samples: tuple[Sample, ...]
    finding: Finding | None
    notes: tuple[str, ...]
    seconds: float
    skipped: str = ""

    @property
    def passed(self) -> bool:
        return self.finding is None and bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def failed(self) -> bool:
        """Whether it was verified and does not hold."""
        return not self.passed and not self.skipped


@dataclass(frozen=True)
class PictureNote:
    """A picture of the report. `thumbnail`, `crop` (what the model sees) and `difference` are data URIs or empty."""

    name: str
    width_px: int
    height_px: int
    mode: str
    thumbnail: str = ""
    crop: str = ""
    difference: str = ""


@dataclass(frozen=True)
class ParityReport:
    """How a bundle, run by one backend in one precision, compares with its reference.

    Attributes:
        bundle: name of the bundle's folder.
        model: name of the model.
        precision: what was asked for.
        backend: the engine that ran, such as `onnxruntime:CPUExecutionProvider`.
        reference: `pytorch`, the checkpoint itself; or `golden`, what it gave when the bundle was made.
        versions: libraries on this machine.
        reference_versions: libraries that made the reference.
        reference_seconds: time to compute or read the reference.
        stages: in the order of the ladder.
        cosines: ours, end to end, (K, T): a row a picture, a column a text; empty when it could not be computed.
        reference_cosines: the reference's, (K, T).
        precisions: tower -> the precision that it ran in; of the towers that ran.
    """

    schema_version: int
    created: str
    bundle: str
    model: str
    embedding_space: str
    precision: str
    backend: str
    reference: ReferenceKind
    versions: dict[str, str]
    reference_versions: dict[str, str]
    gates: Gates
    reference_seconds: float
    stages: tuple[Stage, ...]
    pictures: tuple[PictureNote, ...]
    texts: tuple[str, ...]
    cosines: tuple[tuple[float | None, ...], ...]
    reference_cosines: tuple[tuple[float | None, ...], ...]
    precisions: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether all that was verified holds."""
        return not any(stage.failed for stage in self.stages)

    @property
    def first_drift(self) -> StageName | None:
        """The first stage that fails, None when none does."""
        return next((stage.name for stage in self.stages if stage.failed), None)

    @property
    def summary(self) -> str:
        """One line: that all stages hold, or which drifts first, on which sample, by what, and why."""
        for stage in self.stages:
            if stage.failed:
                found = stage.finding
                return f"first drift: {stage.name}" + (f": {found.numbers}; {found.cause}" if found else "")
        return hold(self)

    def stage(self, name: StageName) -> Stage:
        """One rung of the ladder by name."""
        return next(stage for stage in self.stages if stage.name == name)


def hold(report: ParityReport) -> str:
    """That all stages hold, or all that were verified."""
    skipped = [stage.name.replace("_", " ") for stage in report.stages if stage.skipped]
    if not skipped:
        return f"all {len(report.stages)} stages hold"
    return f"{len(report.stages) - len(skipped)} stages hold; not verified: {', '.join(skipped)}"
