"""The thread that answers: frames out of the inboxes, through the model, to results and events."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clipdeploy.errors import BackendError
from clipdeploy.runtime.stream.answerer import Answerer
from clipdeploy.runtime.stream.batcher import Batcher
from clipdeploy.runtime.stream.desk import Desk
from clipdeploy.runtime.stream.lane import Lane
from clipdeploy.runtime.stream.outlet import Outlet
from clipdeploy.runtime.stream.records import Decision, Event, Frame, Result, Scores
from clipdeploy.runtime.stream.stats import Times

FAILURES_IN_A_ROW = 30
"""So many frames in a row that the model could not be asked about end the stream."""

_log = logging.getLogger("clipdeploy.stream")


@dataclass(frozen=True, eq=False)
class _Taken:
    """A frame out of an inbox; `row` is its place in the micro-batch, None where it looks as the one before."""

    lane: Lane
    frame: Frame
    row: int | None


class Answering:
    """Asks the model, in one thread for all cameras, and passes on what comes of it.

    Args:
        answerer: the model and its labels.
        lanes: one a camera.
        desk: of the stream.
        outlet: where results go.
        max_batch: frames in one micro-batch at most.
        deadline_s: how long after it came the first frame of a micro-batch waits for others at most.
    """

    def __init__(
        self,
        answerer: Answerer,
        lanes: Sequence[Lane],
        desk: Desk,
        outlet: Outlet,
        *,
        max_batch: int,
        deadline_s: float,
    ) -> None:
        self.times = Times()
        self.events = 0
        self.error: Exception | None = None  # what the model said last
        self._answerer = answerer
        self._lanes = tuple(lanes)
        self._desk = desk
        self._outlet = outlet
        self._send: Callable[[Event], None] = _nowhere
        self._max_batch = max_batch
        self._deadline_s = deadline_s
        self._batcher = Batcher(desk, lanes, max_batch)
        self._failed_in_a_row = 0
        self._labels: tuple[str, ...] | None = None
        self._ask_all = False

    def ask_all(self) -> None:
        """Have the next frame of every camera asked about, as the labels have changed."""
        self._ask_all = True

    def run(self, send: Callable[[Event], None]) -> None:
        """Answer until all cameras are over or the stream is stopped; what goes wrong is left at the desk.

        Args:
            send: where events go; never waits.
        """
        self._send = send
        try:
            while (gone := self._batcher.wait()) is not None:
                for lane in gone:
                    self._take_leave(lane)
                self._round()
        except Exception as error:  # noqa: BLE001  # raised to the app, in its own thread
            with self._desk.lock:
                self._desk.fault = error
        finally:
            self._end()

    def _round(self) -> None:
        """One micro-batch: formed, answered, passed on; frames that look as the one before pass at once."""
        taken = self._formed()
        try:
            if taken:
                self._answer(taken)
        finally:
            with self._desk.lock:  # those that an error left in hand
                for lane in self._lanes:
                    lane.camera.inbox.settle(failed=lane.camera.inbox.in_hand)

    def _formed(self) -> list[_Taken]:
        """Frames for the model, and those behind them that look the same."""
        if self._ask_all or self._labels != self._answerer.labels:
            self._ask_all, self._labels = False, self._answerer.labels
            for lane in self._lanes:
                lane.forget()
        batch: list[_Taken] = []
        asked: list[Lane] = []
        until = float("inf")
        self._batcher.begin()
        while len(asked) < self._max_batch:
            for lane, frame in self._batcher.take(self._max_batch - len(asked)):
                changed = lane.gate is None or lane.gate.changed(frame)
                if changed or (lane.scores is None and lane not in asked):
                    until = min(until, frame.captured + self._deadline_s, time.monotonic() + self._deadline_s)
                    batch.append(_Taken(lane, frame, len(asked)))
                    asked.append(lane)
                elif lane in asked:
                    batch.append(_Taken(lane, frame, None))
                else:
                    self._repeat(lane, frame)
            if not asked or not self._batcher.wait_for_others(asked, until):
                break
        return batch

    def _answer(self, taken: Sequence[_Taken]) -> None:
        frames = [one.frame for one in taken if one.row is not None]
        began = time.monotonic()
        found = self._asked(frames)
        took_s = time.monotonic() - began
        answered = sum(one is not None for one in found)
        if answered:
            with self._desk.lock:
                self.times.ran(took_s, answered)
        known = {one.lane: False for one in taken}  # whether the model answered the lane's frame before
        for one in taken:
            scores = found[one.row] if one.row is not None else None
            known[one.lane] = scores is not None or (one.row is None and known[one.lane])
            if scores is not None:
                self._pass_on(one, scores, began, took_s, answered)
            elif known[one.lane]:
                self._repeat(one.lane, one.frame)
            else:
                one.lane.forget()
                with self._desk.lock:
                    one.lane.camera.inbox.settle(failed=1)
        self._judge(answered, len(frames))

    def _asked(self, frames: Sequence[Frame]) -> list[Scores | None]:
        """Of each frame its (1, K) scores; None where the model could not be asked.

        Where it cannot be asked about several at once it is asked about each, so that one that is broken does not take
        the others with it.
        """
        try:
            scores = self._answerer.answer(frames)
        except Exception as error:  # noqa: BLE001  # whatever a model raises, the stream goes on
            self._note(error)
            return [None] if len(frames) == 1 else [self._asked([frame])[0] for frame in frames]
        return [
            Scores(scores.labels, scores.logits[row : row + 1], scores.probabilities[row : row + 1])
            for row in range(len(frames))
        ]

    def _note(self, error: Exception) -> None:
        if self.error is None or str(self.error) != str(error):
            _log.warning("a frame could not be answered: %s: %s", type(error).__name__, error)
        error.__traceback__ = None  # which would keep the frames in memory
        self.error = error

    def _judge(self, answered: int, asked: int) -> None:
        """Go on, or end the stream where the model has failed too often without an answer between."""
        self._failed_in_a_row = 0 if answered else self._failed_in_a_row + asked
        if self._failed_in_a_row >= FAILURES_IN_A_ROW and self.error is not None:
            raise self.error

    def _pass_on(self, one: _Taken, scores: Scores, began: float, took_s: float, batch: int) -> None:
        lane, frame = one.lane, one.frame
        decision = lane.decider.update(frame, scores, 0)
        lane.scores, lane.frame = scores, frame
        now = time.monotonic()
        result = Result(frame, decision, scores, False, began - frame.captured, took_s, now - frame.captured, batch)
        with self._desk.lock:
            for told in (self.times, lane.camera):
                told.latency_ms.add(result.latency_s * 1e3)
            lane.camera.inbox.settle(answered=1)
            self._outlet.put(lane.name, result)
        self._tell(decision)

    def _repeat(self, lane: Lane, frame: Frame) -> None:
        if lane.scores is None:
            raise BackendError(f"{lane.name}: nothing to repeat")  # the gate lets the first frame through
        decision = lane.decider.repeat(frame)
        lane.frame = frame
        waited_s = time.monotonic() - frame.captured
        result = Result(frame, decision, lane.scores, True, waited_s, 0.0, waited_s, 0)
        with self._desk.lock:
            lane.camera.inbox.settle(repeated=1)
            self._outlet.put(lane.name, result)
        self._tell(decision)

    def _tell(self, decision: Decision) -> None:
        for event in decision.events:
            self._emit(event)

    def _emit(self, event: Event) -> None:
        self.events += 1
        self._send(event)

    def _take_leave(self, lane: Lane) -> None:
        """The camera is over, or away too long: what it had in view leaves."""
        for event in lane.decider.end(lane.frame):
            self._emit(event)
        lane.scores = None
        lane.forget()
        with self._desk.lock:
            lane.leave()

    def _end(self) -> None:
        """Have what is still in view leave."""
        for lane in self._lanes:
            if not lane.closed:
                for event in lane.decider.end(lane.frame):
                    self._emit(event)


def _nowhere(event: Event) -> None:
    """Where events go before the stream runs."""
