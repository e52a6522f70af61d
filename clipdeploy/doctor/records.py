"""What doctor says, as records."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fact:
    """Something that is so; `section` is `machine`, `engines`, `backends`, `export` or `bundle`."""

    section: str
    name: str
    value: str


@dataclass(frozen=True)
class Problem:
    """Something that is wrong, and the command or act that puts it right."""

    message: str
    fix: str


@dataclass(frozen=True)
class Advice:
    """Commands for a purpose, on this very machine."""

    purpose: str
    commands: tuple[str, ...]


@dataclass(frozen=True)
class Diagnosis:
    """What doctor found."""

    facts: tuple[Fact, ...]
    problems: tuple[Problem, ...]
    advice: tuple[Advice, ...]

    @property
    def healthy(self) -> bool:
        """Whether no problem was found."""
        return not self.problems
