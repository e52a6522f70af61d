"""What flows through a stream, as frozen records: frames in; answers, events and counts out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clipdeploy.spec import FrameColor

NONE_OF_THESE = "none of these"
"""What is said of a frame that no label fits, where thresholds were given."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a camera.

    Attributes:
        pixels: uint8, as `color` says; see `FrameSpec`. Nobody writes to it.
        color: `rgb`, `bgr` or `nv12`.
        camera: the name of its source.
        index: its number among all that the source gave, dropped ones too; from 0, and goes on after a reconnection.
        captured: when it came off the source, in seconds of `time.monotonic`.
        wall: likewise, in seconds since the epoch.
        position: where it stands in a file, in seconds; None for a live source.
    """

    pixels: NDArray[np.uint8]
    color: FrameColor
    camera: str
    index: int
    captured: float
    wall: float
    position: float | None = None

    @property
    def height(self) -> int:
        """In px."""
        rows: int = self.pixels.shape[0]
        return rows * 2 // 3 if self.color == "nv12" else rows

    @property
    def width(self) -> int:
        """In px."""
        columns: int = self.pixels.shape[1]
        return columns

    @property
    def time_s(self) -> float:
        """What smoothing and events count by: the place in the file, or when it was captured."""
        return self.captured if self.position is None else self.position


@dataclass(frozen=True, eq=False)
class Scores:
    """What the model says of N frames.

    Attributes:
        labels: K texts, those that were in force when it was asked.
        logits: (N, K) float64, `logit_scale * cosine + logit_bias`.
        probabilities: (N, K) float64.
    """

    labels: tuple[str, ...]
    logits: NDArray[np.float64]
    probabilities: NDArray[np.float64]


@dataclass(frozen=True)
class Event:
    """A label has come into a camera's view, or has left it.

    Attributes:
        kind: what happened.
        label: of which.
        camera: where.
        wall: when, in seconds since the epoch, as the frame was captured.
        time_s: likewise, by the stream's own count; see `Frame.time_s`.
        frame: index of the frame that settled it.
        probability: of the label in that frame, smoothed.
        seconds: how long it was in view; None when it has just come.
    """

    kind: Literal["appeared", "left"]
    label: str
    camera: str
    wall: float
    time_s: float
    frame: int
    probability: float
    seconds: float | None = None


@dataclass(frozen=True, eq=False)
class Decision:
    """What is held to be in a camera's view, after smoothing.

    Attributes:
        labels: K texts.
        logits: (K,) float64, smoothed.
        probabilities: (K,) float64, smoothed.
        present: the labels that are in view now, best first; empty says `none of these`.
        events: what has changed with this frame.
    """

    labels: tuple[str, ...]
    logits: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    present: tuple[str, ...]
    events: tuple[Event, ...] = ()

    @property
    def label(self) -> str:
        """The best label in view, or `none of these`."""
        return self.present[0] if self.present else NONE_OF_THESE


@dataclass(frozen=True, eq=False)
class Result:
    """What became of one frame.

    Attributes:
        frame: as it was captured.
        decision: of its camera, with this frame.
        scores: of this frame alone, without smoothing; those of the last answered frame where `repeated`.
        repeated: whether the frame looked as the one before and the model was not asked.
        waited_s: from capture until the model was asked.
        answered_s: what the model took, its whole micro-batch.
        latency_s: from capture to this result.
        batch: frames in that micro-batch; 0 where `repeated`.
    """

    frame: Frame
    decision: Decision
    scores: Scores
    repeated: bool
    waited_s: float
    answered_s: float
    latency_s: float
    batch: int


@dataclass(frozen=True)
class CameraStats:
    """Counts of one camera since the stream began: captured = answered + repeated + dropped + failed + waiting.

    Attributes:
        camera: its name.
        state: what its source does now.
        captured: frames that came off the source.
        answered: those the model was asked about.
        repeated: those that looked as the one before.
        dropped: those that a newer one replaced before their turn.
        failed: those that the model could not be asked about.
        waiting: those that wait now.
        undelivered: results that a newer one replaced before the app took them.
        reconnects: how often the source was opened again.
        error: what the source said last, None where nothing.
        fps: frames a second that it gave, over the last seconds.
        latency_ms: p50, p95 and p99 from capture to result, over its last answered frames; zeros before there is one.
    """

    camera: str
    state: Literal["opening", "running", "waiting to reconnect", "ended", "failed"]
    captured: int
    answered: int
    repeated: int
    dropped: int
    failed: int
    waiting: int
    undelivered: int
    reconnects: int
    error: str | None
    fps: float
    latency_ms: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class StreamStats:
    """Counts and times of a stream.

    Attributes:
        cameras: one a source.
        seconds: since it began.
        latency_ms: p50, p95 and p99 from capture to result, over the last thousands of answered frames.
        answer_ms: likewise, of the model alone, a micro-batch.
        batch: frames in a micro-batch, the mean.
        events: sent so far.
        events_lost: those that a sink could not take.
        error: what the model said last, when it could not be asked; None where that never was.
    """

    cameras: tuple[CameraStats, ...]
    seconds: float
    latency_ms: tuple[float, float, float]
    answer_ms: tuple[float, float, float]
    batch: float
    events: int
    events_lost: int
    error: str | None = None
