"""Who is measured when: all modes of all peers take turns at each work, in rounds, a rest and a probe between them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bench.peers.catalogue import Mode, Peer
from bench.peers.processes import Process
from bench.peers.steady import TRIES, FullSpeed
from clipdeploy.errors import BackendError

REST_S = 0.25
"""Until the threads of whoever was before have gone to sleep."""
_LONGEST_TURN_S = 2.0
_FEWEST = 2


@dataclass(frozen=True)
class Work:
    """What is asked of each, in each round.

    Attributes:
        pictures: files.
        texts: all of them; each round asks for its share.
        batch: files in one run; text_batch: texts.
        singles: files embedded one by one.
        rounds: in which all take turns.
    """

    pictures: list[str]
    texts: list[str]
    batch: int
    text_batch: int
    singles: int
    rounds: int


@dataclass
class Row:
    """What came of one mode of one peer.

    Attributes:
        folder_ms: a picture, of each round; single_ms: of each round its files; text_ms: a text, of each round.
        probes_ms: how long the machine's probe took before and after each of its turns, the slower one.
        again: how many turns were taken again because of that.
        pictures, texts: asked for in one turn; fewer than the work's where a turn would take too long.
        failed: why it was given up; empty when it was not.
    """

    peer: Peer
    mode: Mode
    process: Process
    folder_ms: list[float] = field(default_factory=list)
    single_ms: list[list[float]] = field(default_factory=list)
    text_ms: list[float] = field(default_factory=list)
    probes_ms: list[float] = field(default_factory=list)
    again: int = 0
    pictures: int = 0
    texts: int = 0
    failed: str = ""

    @property
    def name(self) -> str:
        return f"{self.peer.name}, {self.mode.name}"

    def ask(self, do: str, **with_: Any) -> Any:
        """Ask its process; what fails is kept as the reason, and None is the answer."""
        try:
            return self.process.ask(do, settings=self.mode.settings, **with_)
        except BackendError as error:
            self.failed = " ".join(error.message.split())[-400:]
            return None


def warm_up(row: Row, work: Work) -> None:
    """Load it, run everything once unmeasured, and see how much of the work fits into one turn."""
    batch, text_batch = (work.batch, work.text_batch) if row.peer.batches else (_FEWEST, _FEWEST)
    pictures = work.pictures[:batch]
    each_ms = _usual_ms(row, "folder", paths=pictures, batch=work.batch)
    if each_ms is None:
        return
    row.pictures = _fits(each_ms, len(work.pictures), work.batch)
    if row.mode.single:
        row.ask("single", paths=work.pictures[:_FEWEST])
    if embeds_texts(row) and not row.failed:
        each_ms = _usual_ms(row, "texts", texts=work.texts[:text_batch], batch=work.text_batch)
        if each_ms is not None:
            row.texts = _fits(each_ms, len(work.texts) // work.rounds, work.text_batch)


def _usual_ms(row: Row, do: str, **with_: Any) -> float | None:
    """Of one picture or text, by the second of two batches, which no loading slows; None when it failed."""
    count = len(with_.get("paths") or with_["texts"])
    if row.ask(do, **with_) is None:
        return None
    taken = row.ask(do, **with_)
    return None if taken is None else float(taken) / count


def embeds_texts(row: Row) -> bool:
    """Whether texts are asked of it."""
    return row.mode.texts and not row.peer.no_texts


def take_turns(rows: Sequence[Row], work: Work, speed: FullSpeed, say: Callable[[str], None] = lambda _: None) -> None:
    """Let all rows do all of the work; those that fail are given up, and the rest goes on."""
    works: Mapping[str, Callable[[Row, int], Callable[[], None] | None]] = {
        "a folder": lambda row, turn: _folder(row, work),
        "single files": lambda row, turn: _single(row, work),
        "texts": lambda row, turn: _texts(row, work, turn),
    }
    for turn in range(work.rounds):
        first = turn * len(rows) // work.rounds
        order = [*rows[first:], *rows[:first]]
        for name, measure in works.items():
            say(f"round {turn + 1} of {work.rounds}: {name}")
            for row in order:
                if not row.failed:
                    _take_turn(row, partial(measure, row, turn), speed)


def _take_turn(row: Row, measure: Callable[[], Callable[[], None] | None], speed: FullSpeed) -> None:
    """Measure at full speed, as far as waiting helps; again where the machine has lost it right after."""
    for last in range(1, TRIES + 1):
        before = speed.wait()
        keep = measure()
        if keep is None:
            return
        time.sleep(REST_S)
        after, full = speed.look()
        if full or last == TRIES:
            keep()
            row.probes_ms.append(max(before, after))
            return
        row.again += 1


def _folder(row: Row, work: Work) -> Callable[[], None] | None:
    """Measure; what keeps the figure, None where there is none."""
    taken = row.ask("folder", paths=work.pictures[: row.pictures], batch=work.batch)
    return None if taken is None else lambda: row.folder_ms.append(taken / row.pictures)


def _single(row: Row, work: Work) -> Callable[[], None] | None:
    if not row.mode.single:
        return None
    usual_ms = statistics.median(row.folder_ms)
    count = max(_FEWEST, min(work.singles, int(_LONGEST_TURN_S * 1e3 / usual_ms)))
    taken = row.ask("single", paths=work.pictures[: count + 1])
    return None if taken is None else lambda: row.single_ms.append(taken[1:])  # the first wakes the threads


def _texts(row: Row, work: Work, turn: int) -> Callable[[], None] | None:
    if not embeds_texts(row):
        return None
    share = len(work.texts) // work.rounds
    texts = work.texts[turn * share :][: row.texts]
    taken = row.ask("texts", texts=texts, batch=work.text_batch)
    return None if taken is None else lambda: row.text_ms.append(taken / len(texts))


def _fits(each_ms: float, most: int, batch: int) -> int:
    """How many of them fit into a turn: whole batches where one fits."""
    count = min(most, int(_LONGEST_TURN_S * 1e3 / max(each_ms, 1e-3)))
    return max(_FEWEST, count // batch * batch if count >= batch else count)
