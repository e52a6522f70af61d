"""Turns: who comes when, who falls out, and how all ends."""

from __future__ import annotations

from typing import Any

import pytest

from clipdeploy.benchmark.turns import Count, Turns, started
from clipdeploy.errors import BackendError


class Fake:
    """A process that does nothing."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    def kill(self) -> None:
        self.ended.append("killed")

    def close(self) -> None:
        self.ended.append("closed")


def turns_of(*names: str, told: list[Any] | None = None, total: int = 100) -> tuple[Turns, dict[str, Any]]:
    children: dict[str, Any] = {name: Fake() for name in names}
    count = Count(lambda *step: told.append(step) if told is not None else None, total)
    return Turns(dict(children), count, rest_s=0.0), children


def test_each_round_begins_with_another() -> None:
    order: list[str] = []
    turns, _ = turns_of("a", "b", "c")
    answers = turns.rounds("work", 4, lambda name, _: order.append(name) or len(order))
    assert "".join(order) == "abcbcacababc"
    assert answers == {"a": [1, 6, 8, 10], "b": [2, 4, 9, 11], "c": [3, 5, 7, 12]}


def test_one_that_fails_is_ended_and_the_others_go_on() -> None:
    turns, children = turns_of("a", "b", "c")

    def ask(name: str, _: Any) -> str:
        if name == "b":
            raise BackendError("b broke down")
        return name

    assert turns.rounds("work", 2, ask) == {"a": ["a", "a"], "c": ["c", "c"]}
    assert list(turns.children) == ["a", "c"]
    assert turns.failed["b"].message == "b broke down"
    assert children["b"].ended == ["killed", "closed"]
    assert children["a"].ended == []
    assert turns.once("more", lambda name, _: name, among=["c", "b"]) == {"c": "c"}


def test_nobody_left_is_no_error() -> None:
    turns, _ = turns_of()
    assert turns.rounds("work", 3, lambda name, _: name) == {}


def test_it_tells_how_far_it_is_and_counts_those_that_are_out() -> None:
    told: list[Any] = []
    turns, _ = turns_of("a", "b", told=told, total=4)

    def ask(name: str, _: Any) -> None:
        if name == "a":
            raise BackendError("out")

    turns.rounds("work", 2, ask)
    assert told == [("a: work, round 1 of 2", 0, 4), ("b: work, round 1 of 2", 1, 4), ("b: work, round 2 of 2", 2, 4)]
    assert turns.count.done == 4


def test_all_end_well_or_at_once() -> None:
    turns, children = turns_of("a", "b")
    with turns:
        pass
    assert [child.ended for child in children.values()] == [["closed"], ["closed"]]
    turns, children = turns_of("a", "b")
    with pytest.raises(KeyboardInterrupt), turns:
        raise KeyboardInterrupt
    assert [child.ended for child in children.values()] == [["killed", "closed"], ["killed", "closed"]]


def test_what_cannot_be_started_is_told() -> None:
    with pytest.raises(BackendError, match="no process can be started for a"):
        started(["a"], ["/no/such/program"], {})
