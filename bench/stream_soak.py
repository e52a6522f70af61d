"""A stream for a long time: cameras of demo video on one model; memory, latency, drops, and every frame accounted for.

    python -m bench.stream_soak [BUNDLE] [--minutes 20] [--cameras 4] [--fps 30] [--size 640x480]
                                [--backend NAME] [--no-gate] [--threads 1] [--faults] [--json FILE]
    python -m bench.stream_soak --overhead

Without BUNDLE it takes the shipped `clipdeploy-demo-rn`, exported. Each camera plays the same seconds of demo video
over and over, from a place of its own, at `--fps`; every frame is a new array, as a decoder gives it.

Resident memory is looked at each second. Its slope is the least-squares line over what comes after the first fifth, its
growth the median of the last tenth over that of the first tenth after it.

`--faults` does to the stream what months do: the first camera is a process that is killed with SIGKILL every 20 s, the
app sleeps 3 s every 15 s, and events go to a disk that is full (`/dev/full`).

`--overhead` measures the stream alone, with a model that answers at once: how many frames a second go through, and what
share of a core the cameras at their pace take.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import clipdeploy
from bench.common import OUT, environment, parser_of, random_bundle, table, write_json
from bench.soak import resident_bytes
from clipdeploy.demo import DEFAULT_MODEL, class_names, model_path, video
from clipdeploy.errors import SourceError
from clipdeploy.runtime.stream import (
    Backoff,
    ClipAnswerer,
    Frame,
    Gate,
    JsonLines,
    Result,
    Scores,
    Stream,
    StreamStats,
)

_SECONDS = 8.0
"""Of demo video that each camera plays over and over."""

_PLAY = """
import sys, time
path, size, gap = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
data, at, due = open(path, "rb").read(), 0, time.monotonic()
while True:
    sys.stdout.buffer.write(data[at : at + size])
    at = (at + size) % len(data)
    due += gap
    time.sleep(max(0.0, due - time.monotonic()))
"""


class Playing:
    """A camera: frames in memory, over and over, each a new array, at a pace of its own."""

    live = True

    def __init__(self, name: str, frames: NDArray[np.uint8], fps: float, first: int) -> None:
        self.name = name
        self._frames, self._gap_s, self._first = frames, 1.0 / fps, first
        self._given = 0

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        due = time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._gap_s, time.monotonic() - 1.0)
            pixels = self._frames[(self._first + self._given) % len(self._frames)].copy()
            yield Frame(pixels, "rgb", self.name, self._given, time.monotonic(), time.time())
            self._given += 1


class Process:
    """A camera in a process of its own, which may be killed; its frames come through a pipe."""

    live = True

    def __init__(self, name: str, raw: Path, shape: tuple[int, ...], fps: float) -> None:
        self.name = name
        self.pid: int | None = None
        self._command = [sys.executable, "-c", _PLAY, str(raw), str(int(np.prod(shape))), str(1.0 / fps)]
        self._shape, self._given = shape, 0

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        with subprocess.Popen(self._command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            self.pid = child.pid
            try:
                while not stop.is_set():
                    data = child.stdout.read(int(np.prod(self._shape)))
                    if len(data) < np.prod(self._shape):
                        raise SourceError(f"{self.name} has broken off")
                    pixels = np.frombuffer(data, np.uint8).reshape(self._shape)
                    yield Frame(pixels, "rgb", self.name, self._given, time.monotonic(), time.time())
                    self._given += 1
            finally:
                self.pid = None
                child.kill()


class Instant:
    """A model that answers at once."""

    labels = ("one", "other")

    def answer(self, frames: Sequence[Frame]) -> Scores:
        half = np.full((len(frames), 2), 0.5)
        return Scores(self.labels, half, half)


class Watch(threading.Thread):
    """Looks at the memory each second, and kills the camera that is a process every 20 s."""

    def __init__(self, victim: Process | None) -> None:
        super().__init__(daemon=True)
        self.resident: list[tuple[float, int]] = []
        self.kills = 0
        self._victim, self._done = victim, threading.Event()

    def run(self) -> None:
        began, next_kill = time.monotonic(), 20.0
        while not self._done.wait(1.0):
            seconds = time.monotonic() - began
            self.resident.append((seconds, resident_bytes()))
            if self._victim is not None and seconds >= next_kill and (pid := self._victim.pid) is not None:
                os.kill(pid, signal.SIGKILL)
                self.kills, next_kill = self.kills + 1, next_kill + 20.0

    def end(self) -> None:
        self._done.set()
        self.join()


def settled(resident: Sequence[tuple[float, int]]) -> dict[str, float]:
    """How the memory went after the first fifth: MB, MB an hour, and the growth as a share."""
    kept = np.array(resident[len(resident) // 5 :], dtype=np.float64)
    if len(kept) < 10:
        return {}
    part = max(1, len(kept) // 10)
    first, last = float(np.median(kept[:part, 1])), float(np.median(kept[-part:, 1]))
    slope = float(np.polyfit(kept[:, 0], kept[:, 1], 1)[0])
    return {
        "median_mb": round(float(np.median(kept[:, 1])) / 1e6, 1),
        "highest_mb": round(float(kept[:, 1].max()) / 1e6, 1),
        "slope_mb_an_hour": round(slope * 3600 / 1e6, 2),
        "growth": round(last / first - 1.0, 4),
    }


def accounts(stats: StreamStats, taken: Counter[str]) -> list[str]:
    """What does not add up; empty where all does."""
    wrong = []
    for one in stats.cameras:
        if one.captured != one.answered + one.repeated + one.dropped + one.failed + one.waiting:
            wrong.append(f"{one.camera}: frames do not add up: {one}")
        if taken[one.camera] + one.undelivered != one.answered + one.repeated:
            wrong.append(f"{one.camera}: results do not add up: {taken[one.camera]} taken, {one}")
    return wrong


def soak(options: argparse.Namespace) -> dict[str, Any]:
    """The whole soak; what came of it."""
    width, height = (int(side) for side in options.size.split("x"))
    pictures = np.stack(
        [np.asarray(picture) for picture, _ in video(seconds=_SECONDS, fps=options.fps, size=(width, height), seed=3)]
    )
    taken: Counter[str] = Counter()
    with ExitStack() as stack:
        clip = stack.enter_context(
            clipdeploy.load(options.bundle, backend=options.backend, threads=options.threads, check_hashes=False)
        )
        sources: list[Any] = [
            Playing(f"camera {i}", pictures, options.fps, i * len(pictures) // options.cameras)
            for i in range(options.cameras)
        ]
        victim = None
        if options.faults:
            raw = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "frames"
            pictures.tofile(raw)
            victim = sources[0] = Process("camera 0", raw, pictures.shape[1:], options.fps)
        told: Counter[str] = Counter()
        stream = Stream(
            ClipAnswerer(clip, class_names()),
            sources,
            gate=None if options.no_gate else Gate(),
            sinks=[JsonLines("/dev/full")] if options.faults else [],
            on_event=lambda event: told.update([event.kind]),
            reconnect=Backoff(0.5, longest_s=5.0),
        )
        watch = Watch(victim)
        gc.collect()
        with stream, stream.serve_signals():
            watch.start()
            cpu, began = time.process_time(), time.monotonic()
            next_nap = 15.0
            for result in stream:
                _take(result, taken)
                seconds = time.monotonic() - began
                if options.faults and seconds > next_nap:
                    time.sleep(3.0)
                    next_nap += 15.0
                if seconds >= 60.0 * options.minutes:
                    stream.stop()
            cpu, seconds = time.process_time() - cpu, time.monotonic() - began
            before_the_end = stream.stats()
        watch.end()
        stats = stream.stats()
        backend, model = clip.backend.name, clip.spec.name
    return {
        "model": model,
        "backend": backend,
        "size": options.size,
        "fps": options.fps,
        "gate": not options.no_gate,
        "faults": options.faults,
        "seconds": round(seconds, 1),
        "cpu_share_of_a_core": round(cpu / seconds, 3),
        "latency_ms": [round(ms, 2) for ms in before_the_end.latency_ms],
        "answer_ms": [round(ms, 2) for ms in before_the_end.answer_ms],
        "batch": round(stats.batch, 3),
        "events": dict(told),
        "events_lost": stats.events_lost,
        "sinks": [asdict(sink) for sink in stream.sink_stats()],
        "kills": watch.kills,
        "resident": settled(watch.resident),
        "resident_each_minute_mb": [round(held / 1e6, 1) for _, held in watch.resident[::60]],
        "cameras": [asdict(one) for one in stats.cameras],
        "threads_left": [one.name for one in threading.enumerate() if one.name.startswith("clipdeploy-")],
        "wrong": accounts(stats, taken),
        "environment": environment(options.threads or os.cpu_count() or 1),
    }


def _take(result: Result, taken: Counter[str]) -> None:
    taken[result.frame.camera] += 1


def overhead(options: argparse.Namespace) -> dict[str, Any]:
    """The stream alone: frames a second as fast as they go, and the share of a core at the cameras' pace."""
    width, height = (int(side) for side in options.size.split("x"))
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (8, height, width, 3), dtype=np.uint8)
    still = np.repeat(pictures[:1], 8, axis=0)
    rows: dict[str, Any] = {}
    for name, frames, gate in (
        ("every frame asked", pictures, None),
        ("gate, all repeated", still, Gate(every_s=1e6)),
        ("gate, all asked", pictures, Gate(every_s=1e6)),
    ):
        count = 5000
        one = [Frame(frames[i % 8], "rgb", "file", i, time.monotonic(), time.time(), i / 30) for i in range(count)]
        began, cpu = time.perf_counter(), time.process_time()
        with Stream(Instant(), [one], gate=gate) as stream:
            stream.run()
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        rows[name] = {"frames_a_second": round(count / seconds), "cpu_us_a_frame": round(1e6 * cpu / count, 1)}
        sources = [Playing(f"camera {i}", frames, options.fps, i) for i in range(options.cameras)]
        with Stream(Instant(), sources, gate=gate) as stream:
            results = iter(stream)
            next(results)
            began, cpu = time.perf_counter(), time.process_time()
            while time.perf_counter() - began < 8.0:
                next(results)
            seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
            stats = stream.stats()
        rows[name]["share_of_a_core_live"] = round(cpu / seconds, 4)
        rows[name]["share_of_a_core_copies"] = round(_copies(frames, options.fps * options.cameras), 4)
        rows[name]["latency_ms_live"] = [round(ms, 2) for ms in stats.latency_ms]
        rows[name]["dropped_live"] = sum(camera.dropped for camera in stats.cameras)
    return {"size": options.size, "fps": options.fps, "cameras": options.cameras, "rows": rows}


def _copies(frames: NDArray[np.uint8], a_second: float) -> float:
    """What share of a core the copies of the frames alone take, which the bench makes and not the stream."""
    began = time.process_time()
    for i in range(200):
        frames[i % len(frames)].copy()
    return (time.process_time() - began) / 200 * a_second


def main() -> None:
    parser = parser_of("stream_soak", __doc__)
    parser.add_argument("bundle", nargs="?", type=Path, help="a bundle; clipdeploy-demo-rn, exported, when not given")
    parser.add_argument("--minutes", type=float, default=20.0, help="of the whole run")
    parser.add_argument("--cameras", type=int, default=4, help="that share the model")
    parser.add_argument("--fps", type=float, default=30.0, help="frames a second of each camera")
    parser.add_argument("--size", default="640x480", help="of frames, in px")
    parser.add_argument("--backend", default="onnxruntime", help="that runs the model")
    parser.add_argument("--threads", type=int, help="threads of the engine; its own choice when not given")
    parser.add_argument("--no-gate", action="store_true", help="ask the model for every frame")
    parser.add_argument("--faults", action="store_true", help="kill cameras, stall the app, fill the disk")
    parser.add_argument("--overhead", action="store_true", help="the stream alone, no model")
    parser.add_argument("--json", type=Path, default=OUT / "stream_soak.json", help="result file")
    options = parser.parse_args()
    if options.overhead:
        found = overhead(options)
        print(json.dumps(found, indent=2))
        write_json(options.json, found)
        return
    options.bundle = options.bundle or random_bundle(f"local-dir:{model_path(DEFAULT_MODEL)}")
    found = soak(options)
    write_json(options.json, found)
    head = ("camera", "captured", "answered", "repeated", "dropped", "failed", "undelivered", "reconnects")
    print(table(head, [[str(one[key]) for key in head] for one in found["cameras"]]))
    for key in ("latency_ms", "answer_ms", "batch", "cpu_share_of_a_core", "resident", "events", "sinks", "kills"):
        print(f"{key}: {found[key]}")
    print(f"wrong: {found['wrong'] or 'nothing'}; threads left: {found['threads_left'] or 'none'}\n{options.json}")
    raise SystemExit(bool(found["wrong"] or found["threads_left"]))


if __name__ == "__main__":
    main()
