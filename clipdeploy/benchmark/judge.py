"""Who wins each work, by how much, and whether the machine stood still enough to say so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from clipdeploy.benchmark.records import BatchFigures, BenchResult, Candidate, Latency

RESTLESS = 0.1
"""Where the same work typically moves by more than this between rounds, small differences mean nothing."""


@dataclass(frozen=True)
class Winner:
    """The fastest at one work.

    Attributes:
        work: what was done, such as `one picture a run`.
        name: of the candidate.
        figure: its own, such as `8.61 ms`.
        second: name of the next one; None where there is only one.
        lead: how much longer the second takes: 0.5 is half as long again.
        noise: how much the two moved between rounds, the larger.
    """

    work: str
    name: str
    figure: str
    second: str | None = None
    lead: float = 0.0
    noise: float = 0.0

    @property
    def level(self) -> bool:
        """Whether the lead is within what the rounds moved."""
        return self.second is not None and self.lead <= self.noise

    def __str__(self) -> str:
        if self.second is None:
            return f"{self.work}: {self.name}, {self.figure}"
        if self.level:
            return (
                f"{self.work}: {self.name} ({self.figure}) and {self.second} are level: {percent(self.lead)} apart, "
                f"and rounds moved by {percent(self.noise)}"
            )
        ahead = f"{1 + self.lead:.1f} times as fast as" if self.lead >= 0.1 else f"{percent(self.lead)} ahead of"
        return f"{self.work}: {self.name}, {self.figure}, {ahead} {self.second}"


@dataclass(frozen=True)
class Moved:
    """How much the median of the same work moved between rounds, slowest over fastest round, less 1.

    Attributes:
        rounds: how many there were.
        typical: the median over all work.
        worst: the most, and `where` that was.
    """

    rounds: int
    typical: float
    worst: float
    where: str

    @property
    def restless(self) -> bool:
        """Whether small differences mean nothing."""
        return self.typical > RESTLESS

    def __str__(self) -> str:
        if self.rounds < 2:
            return "one round alone does not tell how much the machine moves: pass --rounds 5"
        spread = f"between rounds, the same work typically moved by {percent(self.typical)}"
        return f"{spread}, at worst by {percent(self.worst)} ({self.where})"


def winners(result: BenchResult) -> list[Winner]:
    """Of the works that an app knows: one picture, many at once, a file, a folder, a text."""
    found = [_of_batch(result.candidates, "picture", lambda candidate: candidate.images, -1)]
    if len(result.conditions.get("batches", ())) > 1:
        found.append(_of_batch(result.candidates, "picture", lambda candidate: candidate.images, 0))
    whole = [(candidate.name, candidate.file_to_label) for candidate in result.candidates if candidate.file_to_label]
    found.append(_winner("from file to label", whole))
    found.append(_of_batch([one for one in result.candidates if not one.texts_of], "text", lambda one: one.texts, -1))
    return [winner for winner in found if winner is not None]


def moved(result: BenchResult) -> Moved | None:
    """Over everything that was measured in rounds; None where nothing was."""
    spreads = [
        (latency.spread, len(latency.rounds_ms), f"{candidate.name}, {what}")
        for candidate in result.candidates
        for what, latency in measured(candidate)
    ]
    if not spreads:
        return None
    worst, _, where = max(spreads)
    return Moved(max(rounds for _, rounds, _ in spreads), median(spread for spread, _, _ in spreads), worst, where)


def measured(candidate: Candidate) -> list[tuple[str, Latency]]:
    """All of a candidate's work that was timed in rounds, but single stages."""
    works = [(f"images, batch {figures.batch}", figures.latency) for figures in candidate.images]
    works += [(f"texts, batch {figures.batch}", figures.latency) for figures in candidate.texts]
    return works + ([("file to label", candidate.file_to_label)] if candidate.file_to_label else [])


def percent(share: float) -> str:
    """`3 %`."""
    return "under 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def milliseconds(value: float) -> str:
    """Three digits that count: `8.61`, `52.8`, `412`."""
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"


def _of_batch(
    candidates: Sequence[Candidate], noun: str, figures: Callable[[Candidate], Sequence[BatchFigures]], which: int
) -> Winner | None:
    """Of the smallest batch that all have measured where `which` is -1, of the largest where it is 0."""
    batches = sorted({one.batch for candidate in candidates for one in figures(candidate)}, reverse=True)
    if not batches:
        return None
    batch = batches[which]
    timed = [
        (candidate.name, one.latency) for candidate in candidates for one in figures(candidate) if one.batch == batch
    ]
    return _winner(f"one {noun} a run" if batch == 1 else f"{batch} {noun}s a run", timed)


def _winner(work: str, timed: Sequence[tuple[str, Latency]]) -> Winner | None:
    if not timed:
        return None
    (name, first), *others = sorted(timed, key=lambda one: one[1].p50_ms)
    figure = f"{milliseconds(first.p50_ms)} ms"
    if not others:
        return Winner(work, name, figure)
    second, after = others[0]
    return Winner(work, name, figure, second, after.p50_ms / first.p50_ms - 1.0, max(first.spread, after.spread))
