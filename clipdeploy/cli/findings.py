"""How findings are shown."""

from __future__ import annotations

from collections.abc import Sequence

from clipdeploy.findings import Finding
from clipdeploy.text import one_line, pad, plural, width

_FOLD = 96


def findings_text(findings: Sequence[Finding]) -> str:
    """One line a finding, folded where it is long; the fix below what is not good."""
    column = max((width(finding.check) for finding in findings), default=0) + 2
    lines: list[str] = []
    for finding in findings:
        told = _fold(one_line(finding.message))
        if finding.fix and finding.state != "good":
            told += _fold(f"fix: {one_line(finding.fix)}")
        lines.append(f"  {finding.state:4}  {pad(finding.check, column)}{told[0]}")
        lines += [f"{'':8}{'':{column}}{more}" for more in told[1:]]
    return "\n".join(lines)


def summary(findings: Sequence[Finding]) -> str:
    """`15 checks: 13 good, 1 note, 1 bad`."""
    counts = [(sum(finding.state == state for finding in findings), state) for state in ("good", "note", "bad")]
    return f"{plural(len(findings), 'check')}: " + ", ".join(f"{count} {state}" for count, state in counts if count)


def _fold(text: str) -> list[str]:
    lines, line = [], ""
    for word in text.split(" "):
        if line and width(line) + 1 + width(word) > _FOLD:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]
