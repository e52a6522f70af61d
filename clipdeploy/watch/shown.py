"""Which labels are shown, in what order, and numbers as people read them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from clipdeploy.runtime.stream.records import CameraStats, Decision, Event


@dataclass(frozen=True)
class Bar:
    """One label with its smoothed probability, and whether it is in view."""

    label: str
    probability: float
    present: bool


def present(decision: Decision, camera: CameraStats) -> tuple[str, ...]:
    """What is in view now: nothing, where the camera has gone since."""
    return decision.present if camera.state == "running" else ()


def bars(decision: Decision, most: int, present: Sequence[str] | None = None) -> tuple[Bar, ...]:
    """At most `most` labels: all in their own order where they fit, so that they stand still; else the best first.

    Args:
        decision: of a camera.
        most: above 0.
        present: labels in view; None takes those of the decision.
    """
    order: Sequence[int] = range(len(decision.labels))
    if len(decision.labels) > most:
        order = [int(i) for i in (-decision.probabilities).argsort(kind="stable")[:most]]
    here = set(decision.present if present is None else present)
    return tuple(Bar(decision.labels[i], float(decision.probabilities[i]), decision.labels[i] in here) for i in order)


def percent(probability: float) -> str:
    """Such as ` 97.1 %`, seven characters."""
    return f"{100 * probability:5.1f} %"


def clock_time(wall: float) -> str:
    """Seconds since the epoch as the local time of day, such as `14:03:59`."""
    return time.strftime("%H:%M:%S", time.localtime(wall))


def event_words(event: Event) -> str:
    """Such as `appeared`, or `left after 3.2 s`."""
    return event.kind if event.seconds is None else f"{event.kind} after {event.seconds:.1f} s"


def counts(camera: CameraStats) -> str:
    """Such as `120 frames: 90 answered, 26 repeated, 4 dropped`; what is nought is left out."""
    parts = [f"{camera.answered} answered"]
    named = (("repeated", camera.repeated), ("dropped", camera.dropped), ("failed", camera.failed))
    parts += [f"{count} {name}" for name, count in (*named, ("waiting", camera.waiting)) if count]
    return f"{camera.captured} frames: {', '.join(parts)}"
