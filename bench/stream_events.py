"""Events against ground truth: a film of the demo world, asked as frames, as H.264, and over RTSP with the network cut.

    python -m bench.stream_events BUNDLE [--videos 20] [--rtsp-videos 3] [--seed 3000] [--seconds 20] [--json FILE]

BUNDLE is a shipped demo model, exported. Each film has a set of 8 labels, drawn by its seed
from the 96 classes that the model was trained on. One object after the other slides in, rests and slides out, half of
them of the labels, half of the other 88 classes, before one of seven backdrops, while the light goes between 0.65 and
1.25 of the ordinary. The thresholds of a set come from negatives: 5 s of each of 420 other films, two frames a second,
in which none of its labels is to be seen; 1 in 1000 of them may pass.

Three ways to the same `Stream`: the frames as an iterable; an H.264 file; a local RTSP server, in real time, with the
network cut for some seconds in the middle of the film and restored. The other 88 classes are given as `others`, and the
settings are those by default but for `rivals`, as one object comes at a time. What a frame shows is told by a code in
its left margin, which the model's crop leaves out. `stream_judge` says what is right.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import clipdeploy
from bench.common import OUT, environment, parser_of, table, write_json
from bench.stream_judge import NONE, SHOWN, TOLERANCE_S, Seen, Segment, Told, Verdict, interrupted, judge, segments
from clipdeploy.demo.captions import class_name
from clipdeploy.demo.video import video
from clipdeploy.demo.world import SEEN
from clipdeploy.runtime.clip import Clip
from clipdeploy.runtime.scores import probabilities
from clipdeploy.runtime.stream import Backoff, Callback, Stream, Thresholds, calibrate_thresholds
from clipdeploy.runtime.stream.answerer import ClipAnswerer
from clipdeploy.runtime.stream.records import Event, Frame, Scores
from clipdeploy.runtime.stream.sources import open_source

FPS = 15
SIZE = (320, 240)
LABELS = 8
FALSE_ALARMS = 0.001
RIVALS = 2.0  # logits; chosen on films of seeds 400 to 413
_NEGATIVE_STREAM = 700_000  # seeds of negatives; films have others
_CODE_PX, _CODE_BITS = 20, 12
_CUT_S = 8.0

Pair = tuple[str, str]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Film:
    """Frames (H, W, 3) uint8 RGB, each with its number in the margin, and what they show."""

    frames: tuple[Pixels, ...]
    truths: tuple[dict[str, Any], ...]
    labels: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.frames) / FPS

    def segments(self, laps: int = 1) -> tuple[Segment, ...]:
        """What is in view when, played so many times over."""
        lines = [
            {**truth, "time_s": truth["time_s"] + lap * self.seconds} for lap in range(laps) for truth in self.truths
        ]
        return segments(lines, self.labels, ends_s=laps * self.seconds)


def film(seed: int, seconds: float, *, world: tuple[Pair, ...] = SEEN, labels: int = LABELS) -> Film:
    """A film of the classes of a world; so many of them, drawn by the seed, are its labels."""
    chosen = np.random.default_rng([9, seed]).choice(len(world), labels, replace=False)
    own = tuple(world[int(i)] for i in chosen)
    others = tuple(pair for pair in world if pair not in own)
    shots = list(
        video(seconds=seconds, fps=FPS, size=SIZE, seed=seed, pairs=own * len(others) + others * len(own), alone=True)
    )
    frames = tuple(_numbered(np.asarray(picture), truth.index) for picture, truth in shots)
    return Film(frames, tuple(truth.as_json() for _, truth in shots), tuple(class_name(pair) for pair in own))


class Negatives:
    """Ten frames of each of so many films: all classes, backdrops and lights. Embedded once, for all sets of labels."""

    def __init__(self, clip: Clip, films: int, *, world: tuple[Pair, ...] = SEEN, size: tuple[int, int] = SIZE) -> None:
        shots = [
            shot
            for seed in range(_NEGATIVE_STREAM, _NEGATIVE_STREAM + films)
            for shot in video(seconds=5, fps=2, size=size, seed=seed, pairs=world, alone=True)
        ]
        self._clip = clip
        self._shown = [frozenset(one["label"] for one in truth.objects) for _, truth in shots]
        self._frames = [Frame(np.asarray(p), "rgb", "negatives", i, 0.0, 0.0) for i, (p, _) in enumerate(shots)]
        self._embeds = clip.encode_image([picture for picture, _ in shots])

    def thresholds(self, labels: Sequence[str], false_alarms: float = FALSE_ALARMS) -> Thresholds:
        """Of a set of labels, from the frames that show none of them."""
        kept = [frame for frame in self._frames if self._shown[frame.index].isdisjoint(labels)]
        return calibrate_thresholds(_Known(self._clip, labels, self._embeds), kept, false_alarms=false_alarms)


class _Known(ClipAnswerer):
    """Answers of frames whose embeddings are known, by their number."""

    def __init__(self, clip: Clip, labels: Sequence[str], embeds: NDArray[np.float32]) -> None:
        super().__init__(clip, labels)
        self._embeds = embeds
        self._weights = clip.spec.logit_scale * clip.encode_labels(labels).astype(np.float64).T
        self._spec = clip.spec

    def answer(self, frames: Sequence[Frame]) -> Scores:
        """As `ClipAnswerer`."""
        embeds = self._embeds[[frame.index for frame in frames]].astype(np.float64)
        logits = embeds @ self._weights + self._spec.logit_bias
        return Scores(self.labels, logits, probabilities(logits, self._spec.probability))


def watch(
    clip: Clip, shown: Film, source: Any, levels: Thresholds, *, world: tuple[Pair, ...] = SEEN, cut: Any = None
) -> Verdict:
    """Run a stream over a source of this film to its end, or as long as `cut` lasts, and judge it."""
    told: list[Event] = []
    frames: dict[int, float] = {}  # index of a frame -> time of the film, which goes on lap after lap
    seen: list[Seen] = []
    stream = Stream(
        clip,
        [source],
        labels=shown.labels,
        others=[class_name(pair) for pair in world if class_name(pair) not in shown.labels],
        thresholds=levels,
        rivals=RIVALS,
        sinks=[Callback(told.append)],
        reconnect=Backoff(first_s=0.2, longest_s=1.0),
    )
    stopper = None if cut is None else threading.Thread(target=cut, args=(stream,), daemon=True)
    lap = 0
    with stream:
        if stopper is not None:
            stopper.start()
        for result in stream:
            time_s = number(result.frame.pixels) / FPS + lap * shown.seconds
            if seen and time_s < seen[-1].time_s - 1:
                lap, time_s = lap + 1, time_s + shown.seconds
            frames[result.frame.index] = time_s
            seen.append(Seen(time_s, frozenset(result.decision.present)))
    last_s = seen[-1].time_s if seen else 0.0
    # what leaves because the stream ends answers to nothing in the film
    events = [Told(frames[e.frame], e.kind, e.label) for e in told if e.frame in frames]
    events = [e for e in events if not (e.kind == "left" and e.time_s >= last_s)]
    return judge(interrupted(shown.segments(lap + 1), seen), seen, events)


def _numbered(frame: Pixels, index: int) -> Pixels:
    """The frame with its number as black and white squares down its left edge."""
    marked = frame.copy()
    for bit in range(_CODE_BITS):
        rows = slice(bit * _CODE_PX, (bit + 1) * _CODE_PX)
        marked[rows, :_CODE_PX] = 235 if index >> bit & 1 else 16
    return marked


def number(frame: Pixels) -> int:
    """What `_numbered` wrote."""
    inner = _CODE_PX // 4
    squares = frame[: _CODE_BITS * _CODE_PX, inner : _CODE_PX - inner].reshape(_CODE_BITS, _CODE_PX, -1)
    return int(sum(1 << bit for bit in range(_CODE_BITS) if squares[bit, inner:-inner].mean() > 128))


def write_h264(path: Path, frames: Sequence[Pixels]) -> None:
    """An MP4 with a key frame a second and no B-frames, as cameras send it."""
    import av

    with av.open(str(path), "w") as file:
        track = file.add_stream(
            "libx264", rate=FPS, options={"crf": "23", "preset": "veryfast", "bf": "0", "threads": "1"}
        )
        track.width, track.height, track.pix_fmt = *SIZE, "yuv420p"
        track.gop_size = FPS
        for frame in frames:
            file.mux(track.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(track.encode())


@contextmanager
def over_rtsp(path: Path) -> Iterator[tuple[str, Any]]:
    """The address of a film behind a network that can be cut."""
    from tests.stream.cutter import Cutter
    from tests.stream.rtsp_server import serve

    with serve(path) as served, Cutter(served.port) as network:
        yield f"rtsp://127.0.0.1:{network.port}/video", network


def rtsp(clip: Clip, shown: Film, path: Path, levels: Thresholds) -> Verdict:
    """The film over RTSP for two laps, with the network gone for some seconds after half of the first."""
    with over_rtsp(path) as (url, network):

        def cut(stream: Stream) -> None:
            time.sleep(shown.seconds / 2)
            network.cut()
            time.sleep(_CUT_S)
            network.restore()
            time.sleep(1.5 * shown.seconds)
            stream.stop()

        return watch(clip, shown, open_source(url, name="door", timeout_s=3.0), levels, cut=cut)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """All films, all ways."""
    clip = clipdeploy.load(arguments.bundle, backend=arguments.backend, precision=arguments.precision)
    given = Negatives(clip, arguments.negatives)
    totals: dict[str, Verdict] = {}
    films: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(arguments.seed, arguments.seed + arguments.videos):
            shown = film(seed, arguments.seconds)
            levels = given.thresholds(shown.labels)
            path = Path(folder) / f"{seed}.mp4"
            write_h264(path, shown.frames)
            found = {
                "frames": watch(clip, shown, open_source(shown.frames, fps=FPS), levels),
                "h264": watch(clip, shown, str(path), levels),
            }
            if seed < arguments.seed + arguments.rtsp_videos:
                found["rtsp"] = rtsp(clip, shown, path, levels)
            for way, verdict in found.items():
                totals[way] = totals.get(way, NONE) + verdict
            films.append({"seed": seed, "labels": shown.labels, **{way: v.as_json() for way, v in found.items()}})
            print(seed, {way: f"{v.right}/{v.segments} extra {v.extra}" for way, v in found.items()}, flush=True)
    return {
        "environment": environment(threads=os.cpu_count() or 1),
        "model": clip.spec.name,
        "backend": clip.backend.name,
        "precision": clip.precision.value,
        "settings": {
            "fps": FPS,
            "size": SIZE,
            "seconds": arguments.seconds,
            "labels": LABELS,
            "tolerance_s": TOLERANCE_S,
            "shown": SHOWN,
            "false_alarms": FALSE_ALARMS,
            "rivals": RIVALS,
            "negative_films": arguments.negatives,
            "cut_s": _CUT_S,
        },
        "totals": {way: verdict.as_json() for way, verdict in totals.items()},
        "films": films,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run it, print a table, write JSON."""
    parser = parser_of("stream_events", __doc__)
    parser.add_argument("bundle", type=Path, help="of a demo model")
    parser.add_argument("--videos", type=int, default=20, help="films from frames and from files")
    parser.add_argument("--rtsp-videos", type=int, default=3, help="films over RTSP")
    parser.add_argument("--seed", type=int, default=3000, help="of the films")
    parser.add_argument("--seconds", type=float, default=20.0, help="of one film")
    parser.add_argument("--negatives", type=int, default=420, help="films that thresholds are taken from")
    parser.add_argument("--backend", default="auto", help="that runs the model")
    parser.add_argument("--precision", default="fp32", help="that it runs in")
    parser.add_argument("--json", type=Path, default=OUT / "stream_events.json", help="result file")
    arguments = parser.parse_args(argv)
    result = run(arguments)
    rows = [
        [way, *(str(v[k]) for k in ("segments", "right", "share_right", "due", "on_time", "late", "extra"))]
        for way, v in result["totals"].items()
    ]
    print(table(["way", "segments", "right", "share", "due", "on time", "late", "extra"], rows))
    write_json(arguments.json, result)


if __name__ == "__main__":
    main()
