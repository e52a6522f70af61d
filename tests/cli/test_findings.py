"""How findings are shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipdeploy.cli.export import outcome_json, outcome_text
from clipdeploy.cli.findings import findings_text, summary
from clipdeploy.findings import Finding
from clipdeploy.pipeline import ExportOutcome

FINDINGS = (
    Finding("activation", "note", "gelu", "ViT-B-32-quickgelu?"),
    Finding("resize", "good", "squashed", "never shown"),
    Finding("projection", "bad", "two words " * 30, "mend\x1b[31m it"),
)


def test_each_has_its_line_and_its_fix() -> None:
    lines = findings_text(FINDINGS).splitlines()
    assert lines[0] == "  note  activation  gelu"
    assert lines[1] == "                    fix: ViT-B-32-quickgelu?"
    assert lines[2] == "  good  resize      squashed"
    assert lines[-1] == r"                    fix: mend\x1b[31m it"
    assert all(len(line) <= 116 for line in lines)
    assert "never shown" not in findings_text(FINDINGS)
    assert " ".join(findings_text(FINDINGS).split()).count("two words") == 30
    assert findings_text(()) == ""


@pytest.mark.parametrize(
    ("findings", "says"),
    [
        (FINDINGS, "3 checks: 1 good, 1 note, 1 bad"),
        (FINDINGS[:1], "1 check: 1 note"),
        ((), "0 checks: "),
    ],
)
def test_a_sum(findings: tuple[Finding, ...], says: str) -> None:
    assert summary(findings) == says


def test_an_export_shows_its_notes(tmp_path: Path) -> None:
    outcome = ExportOutcome(tmp_path / "b32", (), None, 3.0, 1000, FINDINGS[:2])
    text = outcome_text(outcome)
    assert text.startswith("preflight, 2 checks: 1 good, 1 note\n  note  activation  gelu\n")
    assert "resize" not in text
    assert outcome_json(outcome)["preflight"][0]["fix"] == "ViT-B-32-quickgelu?"
    assert outcome_text(ExportOutcome(tmp_path / "b32", (), None, 3.0, 1000)).startswith("not verified")
