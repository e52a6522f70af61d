"""Keeps in mind what one camera sees, and says when that changes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import isfinite
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import InputError
from clipdeploy.runtime.stream.decide.presence import Levels, Presence
from clipdeploy.runtime.stream.decide.smoothing import Smoothing
from clipdeploy.runtime.stream.decide.thresholds import Thresholds
from clipdeploy.runtime.stream.records import Decision, Event, Frame, Scores

_BY_PROBABILITY = 0.15  # how far below `probability` a label must fall to leave, where there are no thresholds


@dataclass(eq=False)
class _View:
    """Of one set of labels: the answer of the last frame, the smoothed one, and what is in view."""

    labels: tuple[str, ...]
    told: tuple[int, ...]  # those that may be in view
    others: tuple[int, ...]  # those that only compete with them
    levels: tuple[Levels, ...]
    presences: list[Presence]
    raw: tuple[NDArray[np.float64], NDArray[np.float64]]  # (K,) logits and probabilities
    smooth: tuple[NDArray[np.float64], NDArray[np.float64]]


class Decider:
    """Decides for one camera; not shared between threads.

    With thresholds a label is in view while its smoothed logit stands above its own threshold, and above those of all
    `others`: any number of labels, or none. Without, while its smoothed probability does: above `probability`, until
    it falls 0.15 below. A softmax over labels alone never says that none fits, however small its winner's logit: there
    give thresholds, or `others`, or both.

    Args:
        smoothing: over the answers of the frames.
        thresholds: see `calibrate_thresholds`.
        enter_s: for how long a label must fit before it has appeared.
        leave_s: for how long it must not, before it has left.
        probability: see above; 0..1.
        rivals: with thresholds, how many logits a label may stand behind the one that fits best, each counted from
            its own threshold, and still be in view; None for any. It keeps out what only resembles a thing in view.
        others: labels for what else is to be seen, such as an empty street. They are asked about and compared with,
            and are never in view.

    Labels may change from one answer to the next: those gone leave, those that stay keep their state, new ones start
    afresh, with the median threshold where none was measured for them.
    """

    def __init__(
        self,
        *,
        smoothing: Smoothing | None = None,
        thresholds: Thresholds | None = None,
        enter_s: float = 0.1,
        leave_s: float = 0.2,
        probability: float = 0.5,
        rivals: float | None = None,
        others: Collection[str] = (),
    ) -> None:
        for name, value in (("enter_s", enter_s), ("leave_s", leave_s), ("rivals", rivals or 0.0)):
            if not (isfinite(value) and value >= 0):
                raise InputError(f"{name} must be a number that is not negative, got {value!r}")
        if not 0 < probability < 1:
            raise InputError(f"probability must be between 0 and 1, got {probability!r}")
        self._smoothing = smoothing or Smoothing()
        self._thresholds = thresholds
        self._enter_s, self._leave_s, self._rivals = enter_s, leave_s, rivals
        self._others = frozenset(others)
        self._by_probability = Levels(probability, max(0.0, probability - _BY_PROBABILITY))
        self._view: _View | None = None
        self._clock = 0.0  # seconds since the first frame; never goes back, as a file that starts over does
        self._last: Frame | None = None
        self._present: list[str] = []

    def update(self, frame: Frame, scores: Scores, row: int) -> Decision:
        """What is in view with this frame, which row `row` of `scores` answers."""
        raw = scores.logits[row], scores.probabilities[row]
        gone: tuple[Event, ...] = ()
        view = self._view
        if view is None or view.labels != scores.labels:
            gone, view = self._changed(frame, scores.labels, raw)
        view.raw = raw
        return self._step(frame, view, gone)

    def repeat(self, frame: Frame) -> Decision:
        """What is in view with a frame that looks as the one before: time goes on, the answer is the last one.

        Raises:
            InputError: no frame was answered yet.
        """
        if self._view is None:
            raise InputError("no frame of this camera has been answered yet")
        return self._step(frame, self._view, ())

    def end(self, frame: Frame | None = None) -> tuple[Event, ...]:
        """The camera is lost or at its end: what is in view leaves, with `frame` or the last one; all is forgotten."""
        frame = frame or self._last
        view, self._view = self._view, None
        if view is None or frame is None:
            return ()
        self._advance(frame)
        self._last, self._present = None, []
        return self._leave(frame, view, view.labels)

    def _advance(self, frame: Frame) -> float:
        """Moves the clock on to this frame, and gives the seconds since the last one."""
        elapsed = 0.0 if self._last is None else max(0.0, frame.time_s - self._last.time_s)
        self._clock += elapsed
        self._last = frame
        return elapsed

    def _step(self, frame: Frame, view: _View, before: tuple[Event, ...]) -> Decision:
        share = self._smoothing.share(self._advance(frame))
        logits, chances = (old + share * (new - old) for old, new in zip(view.smooth, view.raw, strict=True))
        view.smooth = logits, chances
        values = chances if self._thresholds is None else logits
        events = list(before)
        for index in view.told:
            presence = view.presences[index]
            since = presence.since
            change = presence.update(
                self._clock,
                float(values[index]),
                view.levels[index],
                enter_s=self._enter_s,
                leave_s=self._leave_s,
                allowed=self._allowed(index, view, logits),
            )
            if change is not None:
                events.append(self._event(change, frame, view, index, since))
        present = [i for i, presence in enumerate(view.presences) if presence.present]
        heights = [float(values[i]) - view.levels[i].enter for i in range(len(values))]
        present.sort(key=lambda i: -heights[i])
        return Decision(view.labels, logits, chances, tuple(view.labels[i] for i in present), tuple(events))

    def _allowed(self, index: int, view: _View, logits: NDArray[np.float64]) -> bool:
        """Whether a label stands behind no other one, nor too far behind the best of its own kind."""
        if self._thresholds is None:
            return True
        levels = view.levels[index]
        slack = levels.enter - levels.leave if view.presences[index].present else 0.0
        if view.others and logits[index] < max(float(logits[i]) for i in view.others) - slack:
            return False
        if self._rivals is None:
            return True
        best = max(float(logits[i]) - view.levels[i].enter for i in view.told)
        return float(logits[index]) - levels.enter >= best - self._rivals - slack

    def _changed(
        self, frame: Frame, labels: tuple[str, ...], raw: tuple[NDArray[np.float64], NDArray[np.float64]]
    ) -> tuple[tuple[Event, ...], _View]:
        """The view of other labels, and who left with the change."""
        old = self._view
        gone: tuple[Event, ...] = ()
        logits = raw[0].copy()
        presences = [Presence() for _ in labels]
        if old is not None:
            gone = self._leave(frame, old, tuple(label for label in old.labels if label not in labels))
            places = {label: i for i, label in enumerate(old.labels)}
            for index, label in enumerate(labels):
                if label in places:
                    presences[index] = old.presences[places[label]]
                    logits[index] = old.smooth[0][places[label]]
        levels = (self._by_probability,) * len(labels)
        if self._thresholds is not None:
            levels = self._thresholds.levels(labels)
        told = tuple(i for i, label in enumerate(labels) if label not in self._others)
        others = tuple(i for i, label in enumerate(labels) if label in self._others)
        self._view = _View(labels, told, others, levels, presences, raw, (logits, raw[1].copy()))
        return gone, self._view

    def _leave(self, frame: Frame, view: _View, labels: tuple[str, ...]) -> tuple[Event, ...]:
        return tuple(
            self._event("left", frame, view, index, presence.since)
            for index, presence in enumerate(view.presences)
            if presence.present and view.labels[index] in labels
        )

    def _event(self, kind: Literal["appeared", "left"], frame: Frame, view: _View, index: int, since: float) -> Event:
        return Event(
            kind,
            view.labels[index],
            frame.camera,
            frame.wall,
            frame.time_s,
            frame.index,
            float(view.smooth[1][index]),
            self._clock - since if kind == "left" else None,
        )
