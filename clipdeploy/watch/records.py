"""What to watch and how to show it; what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from clipdeploy.runtime.stream.decide import Smoothing
from clipdeploy.runtime.stream.records import Event, StreamStats

Ending = Literal["sources ended", "time is up", "interrupted", "terminated"]


@dataclass(frozen=True)
class WatchRequest:
    """What to watch, as what, and where the answers go.

    Attributes:
        bundle: the bundle's folder, baked or not.
        sources: cameras, videos, streams, folders; `NAME=SOURCE` gives one a name.
        labels: at least one, each once; None for a baked bundle, which has its own.
        others: labels for what else is to be seen; asked about with the rest, and never told.
        templates: sentences with `{}` for the label, or the name of a set; empty takes the default.
        precision: which graphs.
        backend: which engine.
        threads: for one run of the engine.
        thresholds: file of thresholds, one a label.
        negatives: folder of pictures that show none of the labels, to find thresholds from.
        smooth_s: how long answers are averaged over.
        gate: whether frames that look as the one before are not asked about.
        max_batch: frames in one run of the engine, of all cameras together.
        deadline_ms: how long a frame waits for others to come along.
        fps: frames a second to take of each source; None takes all.
        loop: begin files again at their end.
        realtime: play files at their own pace and drop what cannot be kept up with (True), or take every frame
            (False); None plays them where a page is shown, and takes every frame elsewhere.
        events: file that events are added to, as JSON lines; `-` is stdout.
        mqtt: broker and topic that events are sent to.
        video: annotated video to write; with several cameras, one file each.
        web: where the page is served, `HOST:PORT`; empty takes 127.0.0.1 and the first free port from 8080; None
            serves none.
        token: what visitors of the page must bring; None makes one up where the page is open to other machines.
        seconds: when to end; None ends when the sources do.
    """

    bundle: Path
    sources: tuple[str, ...]
    labels: tuple[str, ...] | None = None
    others: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    precision: str = "fp32"
    backend: str = "auto"
    threads: int | None = None
    thresholds: Path | None = None
    negatives: Path | None = None
    smooth_s: float = Smoothing().seconds
    gate: bool = True
    max_batch: int = 4
    deadline_ms: float = 20.0
    fps: float | None = None
    loop: bool = False
    realtime: bool | None = None
    events: str | None = None
    mqtt: str | None = None
    video: Path | None = None
    web: str | None = None
    token: str | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class VideoOutcome:
    """One annotated video.

    Attributes:
        path: of the file.
        camera: that it shows.
        frames: written.
        left_out: frames that came faster than they could be written.
        error: why it ends early; None where it does not.
    """

    path: Path
    camera: str
    frames: int
    left_out: int
    error: str | None


@dataclass(frozen=True)
class WatchOutcome:
    """What became of it.

    Attributes:
        model: name of the model.
        precision: number format that ran.
        backend: engine that ran, and
        backend_reason: why that one.
        labels: those in force at the end.
        ended: what ended it.
        stats: counts and times.
        videos: what was written.
    """

    model: str
    precision: str
    backend: str
    backend_reason: str
    labels: tuple[str, ...]
    ended: Ending
    stats: StreamStats
    videos: tuple[VideoOutcome, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """Cameras that could not be watched to their end, each with the reason."""
        return tuple(f"{c.camera}: {c.error}" for c in self.stats.cameras if c.state == "failed")


class View(Protocol):
    """Where a person sees what happens. Called from several threads."""

    def event(self, event: Event) -> None:
        """A label has come or gone."""

    def note(self, text: str) -> None:
        """Something that is good to know."""

    def warn(self, text: str) -> None:
        """Something that must be known."""

    def tick(self) -> None:
        """Called a few times a second, to draw."""

    def close(self) -> None:
        """Nothing more comes."""
