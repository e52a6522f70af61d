"""Results as a stream gives them, of the demo world's video, with made-up answers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from clipdeploy.demo.video import video
from clipdeploy.runtime.stream.records import CameraStats, Decision, Event, Frame, Result, Scores, StreamStats

LABELS = ("a red circle", "a blue star", "a green ring")


def frame(
    index: int = 0,
    *,
    camera: str = "front",
    size: tuple[int, int] = (64, 48),
    color: Literal["rgb", "bgr", "nv12"] = "rgb",
    position: float | None = None,
) -> Frame:
    """A frame of one colour, another for each index."""
    width, height = size
    shape = (height * 3 // 2, width) if color == "nv12" else (height, width, 3)
    pixels = np.full(shape, (40 + 7 * index) % 256, np.uint8)
    return Frame(pixels, color, camera, index, time.monotonic(), time.time(), position)


def result(
    shot: Frame,
    probabilities: Sequence[float] = (0.9, 0.07, 0.03),
    *,
    labels: tuple[str, ...] = LABELS,
    present: tuple[str, ...] | None = None,
    events: tuple[Event, ...] = (),
    repeated: bool = False,
) -> Result:
    """A frame with its answer; what is likelier than 0.5 is in view."""
    chances = np.asarray(probabilities, np.float64)
    logits = np.log(chances + 1e-9)
    if present is None:
        present = tuple(labels[i] for i in (-chances).argsort(kind="stable") if chances[i] > 0.5)
    decision = Decision(labels, logits, chances, present, events)
    return Result(shot, decision, Scores(labels, logits[None], chances[None]), repeated, 0.002, 0.008, 0.0123, 1)


def event(
    kind: Literal["appeared", "left"] = "appeared", label: str = LABELS[0], *, camera: str = "front", time_s: float = 0
) -> Event:
    """A label that comes, or leaves after 2.5 s."""
    return Event(kind, label, camera, time.time(), time_s, 3, 0.91, 2.5 if kind == "left" else None)


def stats(
    *cameras: str,
    captured: int = 100,
    state: Literal["opening", "running", "waiting to reconnect", "ended", "failed"] = "running",
    error: str | None = None,
) -> StreamStats:
    """Counts of the named cameras."""
    each = tuple(
        CameraStats(camera, state, captured, captured - 30, 20, 8, 2, 0, 1, 1 if error else 0, error, 29.97)
        for camera in cameras or ("front",)
    )
    return StreamStats(each, 12.5, (12.0, 19.0, 31.0), (8.0, 9.0, 10.0), 1.5, 4, 0)


def demo_results(
    seconds: float = 2.0, fps: float = 10.0, *, camera: str = "front", size: tuple[int, int] = (320, 240)
) -> Iterator[Result]:
    """Frames of the demo video; the first label fades in."""
    for picture, truth in video(seconds=seconds, fps=fps, size=size, seed=3):
        share = min(truth.time_s / seconds, 1.0)
        shot = Frame(
            np.asarray(picture), "rgb", camera, truth.index, time.monotonic(), time.time(), position=truth.time_s
        )
        yield result(shot, (share, (1 - share) * 0.7, (1 - share) * 0.3))
