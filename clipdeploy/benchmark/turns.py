"""Candidates that take turns, so that what slows the machine for a while slows them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TypeVar

from clipdeploy.benchmark.child import Child
from clipdeploy.errors import BackendError
from clipdeploy.progress import Progress

T = TypeVar("T")

REST_S = 0.1
"""Before each turn: threads of the one before spin for some tens of milliseconds, which takes a core from the next."""


@dataclass
class Count:
    """How far the whole run is: steps done, of all that were planned."""

    progress: Progress
    total: int
    done: int = 0

    def tell(self, what: str) -> None:
        """Say what is being done now."""
        self.progress(what, self.done, self.total)

    def step(self) -> None:
        """One more is done, or will not be."""
        self.done = min(self.done + 1, self.total)


@dataclass
class Turns:
    """Processes of candidates that live together. One that fails is ended, and the others go on.

    Attributes:
        children: name -> process, of those that live.
        count: how far the run is.
        failed: name -> why it is out.
        rest_s: before each turn.
    """

    children: dict[str, Child]
    count: Count
    failed: dict[str, BackendError] = field(default_factory=dict)
    rest_s: float = REST_S

    def rounds(
        self, what: str, rounds: int, ask: Callable[[str, Child], T], among: Collection[str] | None = None
    ) -> dict[str, list[T]]:
        """What each candidate answers in each round; the next round begins with another one.

        Args:
            what: is measured, for people.
            rounds: how many.
            ask: a candidate's turn: its name and process.
            among: names of those that take part; None for all.

        Returns:
            An answer a round, of the candidates that came through all of them.
        """
        names = [name for name in self.children if among is None or name in among]
        answers: dict[str, list[T]] = {name: [] for name in names}
        for number in range(rounds):
            first = number % len(names) if names else 0
            for name in names[first:] + names[:first]:
                if name in self.children:
                    of = f", round {number + 1} of {rounds}" if rounds > 1 else ""
                    self.count.tell(f"{name}: {what}{of}")
                    time.sleep(self.rest_s)
                    try:
                        answers[name].append(ask(name, self.children[name]))
                    except BackendError as error:
                        self._out(name, error)
                self.count.step()
        return {name: given for name, given in answers.items() if name in self.children}

    def once(self, what: str, ask: Callable[[str, Child], T], among: Collection[str] | None = None) -> dict[str, T]:
        """What each candidate answers, asked once."""
        return {name: given[0] for name, given in self.rounds(what, 1, ask, among).items()}

    def _out(self, name: str, error: BackendError) -> None:
        self.failed[name] = error
        child = self.children.pop(name)
        child.kill()
        child.close()

    def __enter__(self) -> Turns:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all processes; at once where the run was broken off."""
        if error is not None:
            for child in self.children.values():
                child.kill()
        for child in self.children.values():
            child.close()


def started(names: Collection[str], command: Collection[str], environment: Mapping[str, str]) -> dict[str, Child]:
    """A process for each name; all or none."""
    children: dict[str, Child] = {}
    try:
        for name in names:
            children[name] = Child(name, tuple(command), environment=environment)
    except BaseException:
        for child in children.values():
            child.kill()
            child.close()
        raise
    return children
