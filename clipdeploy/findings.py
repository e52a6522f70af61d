"""What was looked at before a checkpoint or a foreign graph is trusted, and what was seen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

State = Literal["good", "note", "bad"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: what was looked at, in a few words, such as `causal mask`.
        state: `good`, or `note` for what a user should know, or `bad` for what makes the answers wrong.
        message: what was found, with numbers, and what was expected.
        fix: how to put it right: a flag, a file, a command; None where there is nothing to do.
    """

    check: str
    state: State
    message: str
    fix: str | None = None


def worst(findings: Iterable[Finding]) -> State:
    """The worst state among `findings`; `good` where there are none."""
    states = {finding.state for finding in findings}
    return "bad" if "bad" in states else "note" if "note" in states else "good"
