"""The parity report for people and programs: rows, a plain table, JSON, and a page.

JSON (`to_json`) is the `ParityReport` field by field, and beside it `passed` and `first_drift` at the top and
`passed` in every stage and check, null for a stage that was skipped, so that a reader needs no rule of ours. A number
that is not finite is null. The pictures' data URIs stay out of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from clipdeploy.errors import InputError
from clipdeploy.pages.markup import shown
from clipdeploy.spec import from_dict, to_dict
from clipdeploy.verify.records import SCHEMA_VERSION, Check, ParityReport, Stage, hold

TITLES = {
    "pixels": "pixels",
    "frames": "frames",
    "tokens": "tokens",
    "image_tower": "image tower",
    "text_tower": "text tower",
    "similarity": "similarity",
    "logits": "logits",
    "embeddings": "embeddings",
    "top1": "top-1",
}


@dataclass(frozen=True)
class Row:
    """One line of the table. Only the first line of a stage carries `stage`, `verdict` and `seconds`."""

    stage: str
    verdict: str
    check: str
    measured: str
    gate: str
    seconds: str
    passed: bool


def header(report: ParityReport) -> list[tuple[str, str]]:
    """What was verified against what, as (name, value)."""
    against = "PyTorch checkpoint" if report.reference == "pytorch" else "golden samples in the bundle"
    versions = report.reference_versions
    made = versions.get("reference") or tools(versions, "torch", "open_clip_torch", "Pillow")
    return [
        ("bundle", f"{shown(report.bundle)} ({shown(report.model)}, {_precisions(report)})"),
        ("space", report.embedding_space),
        ("engine", report.backend),
        ("against", f"{against}, made with {made}" if made else against),
        ("samples", f"{len(report.pictures)} pictures, {len(report.texts)} texts"),
    ]


def _precisions(report: ParityReport) -> str:
    """The precision, and the encoder that runs in another one."""
    others = [f"{tower} {own}" for tower, own in report.precisions.items() if own != report.precision]
    return ", ".join([report.precision, *others])


def rows(report: ParityReport) -> list[Row]:
    """The table, a row a check."""
    return [row for stage in report.stages for row in _stage_rows(stage)]


def findings(report: ParityReport) -> list[str]:
    """A paragraph for every stage that fails: which, the worst sample, the numbers, the likely cause, the fix."""
    return [
        f"{TITLES[stage.name]}: worst is {_quoted(stage.finding.sample)}\n"
        f"  {stage.finding.numbers}\n"
        f"  likely: {stage.finding.cause}\n"
        f"  fix: {stage.finding.fix}"
        for stage in report.stages
        if stage.finding
    ]


def verdict(report: ParityReport) -> str:
    """The last line: whether the bundle holds, and if not, where it first drifts."""
    if report.first_drift is None:
        return f"PASS: {hold(report)}"
    failed = sum(stage.failed for stage in report.stages)
    verified = sum(not stage.skipped for stage in report.stages)
    return f"FAIL: first drift: {TITLES[report.first_drift]} ({failed} of {verified} stages fail)"


def text_table(report: ParityReport) -> str:
    """The whole report as plain text, without colour."""
    names = Row("stage", "verdict", "check", "measured", "gate", "time", True)
    lines = [(r.stage, r.verdict, r.check, r.measured, r.gate, r.seconds) for r in (names, *rows(report))]
    widths = [max(len(line[i]) for line in lines) for i in range(6)]
    table = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    table.insert(1, "  ".join("-" * w for w in widths))
    head = [f"{name:<8} {value}" for name, value in header(report)]
    notes = [f"note: {TITLES[s.name]}: {note}" for s in report.stages for note in (s.skipped, *s.notes) if note]
    blocks = ["\n".join(head), "\n".join(table), "\n".join(notes), *findings(report), verdict(report)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def to_json(report: ParityReport) -> str:
    """The report as JSON text; see the module's head for its shape."""
    plain = to_dict(replace(report, pictures=tuple(_without_images(report))))
    for stage, data in zip(report.stages, plain["stages"], strict=True):
        data["passed"] = None if stage.skipped else stage.passed
        for check, entry in zip(stage.checks, data["checks"], strict=True):
            entry["passed"] = check.passed
    return json.dumps(
        {"passed": report.passed, "first_drift": report.first_drift, **plain},
        indent=2,
        allow_nan=False,
    )


def from_json(text: str) -> ParityReport:
    """The report that `to_json` wrote, less its images; raises InputError for anything else."""
    try:
        plain = json.loads(text)
        version = plain["schema_version"]
        for stage in plain["stages"]:
            del stage["passed"]
            for check in stage["checks"]:
                del check["passed"]
        del plain["passed"], plain["first_drift"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"not a parity report: {error}", fix="give what clipdeploy verify --json printed") from error
    if version != SCHEMA_VERSION:
        raise InputError(f"parity report of schema {version}, expected {SCHEMA_VERSION}", fix="verify the bundle again")
    return from_dict(ParityReport, plain)


def measured(check: Check) -> str:
    """A check's value as text, with its unit."""
    text = number(check, check.value)
    return text if check.value is None else f"{text} {check.unit}".rstrip()


def number(check: Check, value: float | None) -> str:
    """A value of the check's kind as text: cosines to seven places and never rounded up, shares as percent."""
    if value is None:
        return "not finite"
    if check.name.startswith("cosine"):
        return f"{math.floor(min(value, 1.0) * 1e7 + 1e-3) / 1e7:.7f}"  # 1e-3: what float64 itself leaves of 1.0
    if check.rule == ">=":
        return f"{math.floor(value * 1000) / 10:g} %"
    return f"{value:.2g}" if value else "0"


def tools(versions: Mapping[str, str], *names: str) -> str:
    """`torch 2.9, Pillow 12.0` of those that are there."""
    return ", ".join(f"{name} {versions[name]}" for name in names if name in versions)


def _stage_rows(stage: Stage) -> list[Row]:
    lines = [(c.name, measured(c), f"{c.rule} {number(c, c.gate)}", c.passed) for c in stage.checks]
    lines = lines or [("not verified" if stage.skipped else "could not be run", "", "", not stage.failed)]
    return [
        Row(
            stage=TITLES[stage.name] if place == 0 else "",
            verdict=("skip" if stage.skipped else "pass" if stage.passed else "FAIL") if place == 0 else "",
            check=name,
            measured=value,
            gate=gate,
            seconds=f"{stage.seconds:.2f} s" if place == 0 else "",
            passed=passed,
        )
        for place, (name, value, gate, passed) in enumerate(lines)
    ]


def _without_images(report: ParityReport) -> list[Any]:
    return [replace(picture, thumbnail="", crop="", difference="") for picture in report.pictures]


def _quoted(name: str) -> str:
    text = shown(name)
    return f"'{text if len(text) <= 60 else text[:59] + '…'}'"
