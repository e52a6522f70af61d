"""Holds a stream's answers against what a video is known to show: segments right, events beyond those due."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

SHOWN = 0.5  # share of its own area that an object must show to count as in view
TOLERANCE_S = 0.5  # at both ends of a segment: so much late, or early, an answer may change


@dataclass(frozen=True)
class Segment:
    """A stretch of a video in which the same labels are in view, from `starts_s` until `ends_s`."""

    starts_s: float
    ends_s: float
    labels: frozenset[str]


@dataclass(frozen=True)
class Seen:
    """What was held to be in view at a time of the video."""

    time_s: float
    present: frozenset[str]


@dataclass(frozen=True)
class Told:
    """An event at a time of the video."""

    time_s: float
    kind: str
    label: str


@dataclass(frozen=True)
class Verdict:
    """Counts.

    Attributes:
        segments: that were judged.
        right: of those.
        due: changes in view, each of which asks for one event.
        on_time: those that had it within the tolerance.
        late: those that had it later, but before the label changed again.
        extra: events that answer to no change: flicker and false alarms.
        unjudged: segments too short to hold an answer beyond the tolerance at their ends.
    """

    segments: int
    right: int
    due: int
    on_time: int
    late: int
    extra: int
    unjudged: int

    def __add__(self, other: Verdict) -> Verdict:
        return Verdict(**{name: value + getattr(other, name) for name, value in asdict(self).items()})

    def as_json(self) -> dict[str, Any]:
        """The counts, and the share of segments that are right."""
        return {**asdict(self), "share_right": round(self.right / max(1, self.segments), 4)}


NONE = Verdict(0, 0, 0, 0, 0, 0, 0)


def segments(
    truths: Sequence[dict[str, Any]], labels: Sequence[str], *, ends_s: float, shown: float = SHOWN
) -> tuple[Segment, ...]:
    """The stretches of a video, from the lines of its `truth.jsonl`; objects of other labels count as nothing."""
    found: list[Segment] = []
    starts_s, now = 0.0, None
    for truth in truths:
        here = frozenset(o["label"] for o in truth["objects"] if o["label"] in labels and o["share"] >= shown)
        if now is not None and here != now:
            found.append(Segment(starts_s, truth["time_s"], now))
            starts_s = truth["time_s"]
        now = here
    if now is not None:
        found.append(Segment(starts_s, ends_s, now))
    return tuple(found)


def interrupted(parts: Sequence[Segment], seen: Sequence[Seen], *, longest_s: float = 1.0) -> tuple[Segment, ...]:
    """The segments as far as a camera that broke off could see them: nothing is in view in gaps above `longest_s`.

    The film is judged from the first answer to the last.
    """
    if not seen:
        return ()
    pieces: list[Segment] = []
    starts_s = seen[0].time_s
    for before, after in pairwise([*seen, Seen(float("inf"), frozenset())]):
        if after.time_s - before.time_s > longest_s:
            for part in parts:
                first_s, last_s = max(part.starts_s, starts_s), min(part.ends_s, before.time_s)
                if first_s < last_s:
                    pieces.append(Segment(first_s, last_s, part.labels))
            if after.time_s != float("inf"):
                pieces.append(Segment(before.time_s, after.time_s, frozenset()))
            starts_s = after.time_s
    return _joined(pieces)


def _joined(pieces: Sequence[Segment]) -> tuple[Segment, ...]:
    """Neighbours that show the same, as one."""
    found: list[Segment] = []
    for piece in pieces:
        if found and found[-1].labels == piece.labels:
            found[-1] = Segment(found[-1].starts_s, piece.ends_s, piece.labels)
        else:
            found.append(piece)
    return tuple(found)


def judge(
    parts: Sequence[Segment], seen: Sequence[Seen], told: Sequence[Told], *, tolerance_s: float = TOLERANCE_S
) -> Verdict:
    """How many segments are right, and which events were due.

    A segment is right when every answer within it, but for `tolerance_s` at either end, names its labels and no other.
    One without an answer left to judge is set aside, and counted. Each change in view takes one event of its kind and
    label; every event that is then left is extra.
    """
    right = judged = 0
    for part in parts:
        inside = [s for s in seen if part.starts_s + tolerance_s <= s.time_s < part.ends_s - tolerance_s]
        judged += bool(inside)
        right += bool(inside) and all(s.present == part.labels for s in inside)
    due, left = _due(parts), sorted(told, key=lambda t: t.time_s)
    on_time = late = 0
    unmet: list[tuple[Told, float]] = []
    for want, until_s in due:
        if _take(left, want, want.time_s - tolerance_s, want.time_s + tolerance_s):
            on_time += 1
        else:
            unmet.append((want, until_s))
    for want, until_s in unmet:
        late += _take(left, want, want.time_s, until_s + tolerance_s)
    return Verdict(judged, right, len(due), on_time, late, len(left), len(parts) - judged)


def _due(parts: Sequence[Segment]) -> list[tuple[Told, float]]:
    """The changes in view, each with the time of the next change of its label."""
    changes = [
        Told(after.starts_s, kind, label)
        for before, after in pairwise(parts)
        for kind, labels in (("left", before.labels - after.labels), ("appeared", after.labels - before.labels))
        for label in sorted(labels)
    ]
    ends_s = parts[-1].ends_s if parts else 0.0
    return [
        (change, min((c.time_s for c in changes[i + 1 :] if c.label == change.label), default=ends_s))
        for i, change in enumerate(changes)
    ]


def _take(told: list[Told], want: Told, first_s: float, last_s: float) -> bool:
    """Take the first event of this kind and label between two times out of those told; False where there is none."""
    for one in told:
        if (one.kind, one.label) == (want.kind, want.label) and first_s <= one.time_s <= last_s:
            told.remove(one)
            return True
    return False
