"""What a year in the field brings, with real processes: sources that are killed, an app that is, one that is slow."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from clipdeploy.runtime.stream import Backoff, Event, Result, Stream, StreamStats, open_source
from tests.stream.fakes import FakeAnswerer, FakeSource, until

ROOT = Path(__file__).resolve().parents[2]
SIZE = "video/x-raw,width=64,height=48,framerate=20/1"
BLINKING = f"videotestsrc is-live=true pattern=blink ! {SIZE}"
SOON = Backoff(first_s=0.1, factor=1.0, longest_s=0.1)

needs_gstreamer = pytest.mark.skipif(
    shutil.which("gst-launch-1.0") is None,
    reason="no gst-launch-1.0: sudo apt-get install gstreamer1.0-tools gstreamer1.0-plugins-{base,bad}",
)


@contextmanager
def running(stream: Stream, on_result: Callable[[Result], None] = lambda result: None) -> Iterator[Stream]:
    """The stream in a thread of its own, whose error is raised at the end."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            stream.run(on_result)
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield stream
    finally:
        stream.stop()
        thread.join(10)
    assert not thread.is_alive()
    assert not errors


def assert_all_counted(stats: StreamStats) -> None:
    for camera in stats.cameras:
        known = camera.answered + camera.repeated + camera.dropped + camera.failed + camera.waiting
        assert camera.captured == known, camera


def children(word: str) -> list[int]:
    """Processes of ours in whose command line a word stands."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            line = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if int(parent) == os.getpid() and word in line:
            found.append(int(folder.name))
    return found


@needs_gstreamer
def test_a_pipeline_is_killed_and_comes_back() -> None:
    """The other camera never notices; the count of the one that was killed goes on."""
    name = f"blink-{os.getpid()}"
    pipeline = open_source(f"{BLINKING} ! identity name={name}", name="door")
    seen: dict[str, list[tuple[int, float]]] = {"door": [], "yard": []}

    def note(result: Result) -> None:
        seen[result.frame.camera].append((result.frame.index, time.monotonic()))

    yard = FakeSource("yard", count=None, gap_s=0.02)
    with running(Stream(FakeAnswerer(), [pipeline, yard], gate=None, reconnect=SOON), note) as stream:
        until(lambda: len(seen["door"]) >= 5, 20)
        (victim,) = children(name)
        os.kill(victim, signal.SIGKILL)
        killed = time.monotonic()
        until(lambda: stream.stats().cameras[0].reconnects == 1, 10)
        until(lambda: any(when > killed + 0.05 for _, when in seen["door"]), 20)
        stats = stream.stats()
    assert children(name) == []
    assert "SIGKILL" in (stats.cameras[0].error or "")
    indices = [index for index, _ in seen["door"]]
    assert indices == sorted(set(indices))
    gaps = np.diff([when for _, when in seen["yard"]])
    assert max(gaps) < 1.0
    assert_all_counted(stream.stats())


@needs_gstreamer
def test_a_pipeline_is_killed_over_and_over() -> None:
    """Nothing is left behind of those before: no process, no thread, no open file."""
    name = f"again-{os.getpid()}"
    stream = Stream(FakeAnswerer(), open_source(f"{BLINKING} ! identity name={name}", name="door"), reconnect=SOON)
    with running(stream):
        for times in range(5):
            until(lambda: stream.stats().cameras[0].state == "running" and bool(children(name)), 20)
            if times == 0:
                files, threads = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
            os.kill(children(name)[0], signal.SIGKILL)
            until(lambda times=times: stream.stats().cameras[0].reconnects == times + 1, 10)  # type: ignore[misc]
        until(lambda: stream.stats().cameras[0].state == "running", 20)
        assert len(children(name)) == 1
        assert len(list(Path("/proc/self/fd").iterdir())) <= files
        assert threading.active_count() <= threads
    assert children(name) == []


def test_a_server_is_killed_and_started_again(tmp_path: Path) -> None:
    """A process that serves video, killed in the middle of a picture, and started again at the same port."""
    pytest.importorskip("av", reason="needs the extra: pip install 'clipdeploy[video]'")
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg: sudo apt-get install ffmpeg")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/camera.ts"

    def serve() -> subprocess.Popen[bytes]:
        source = ["-re", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=20"]
        coding = ["-c:v", "mpeg2video", "-g", "5", "-f", "mpegts", "-listen", "1", address]
        return subprocess.Popen(["ffmpeg", "-loglevel", "quiet", *source, *coding], stdin=subprocess.DEVNULL)

    server = serve()
    try:
        stream = Stream(
            FakeAnswerer(), open_source(address, name="door", timeout_s=2), gate=None, reconnect=Backoff(0.2, 1.0, 0.2)
        )
        count = [0]

        def note(result: Result) -> None:
            count[0] += 1

        with running(stream, note):
            until(lambda: count[0] > 5, 20)
            server.kill()
            server.wait()
            until(lambda: stream.stats().cameras[0].state == "waiting to reconnect", 10)
            before = count[0]
            server = serve()
            until(lambda: count[0] > before + 5, 20)
            assert stream.stats().cameras[0].reconnects >= 1
        assert_all_counted(stream.stats())
    finally:
        server.kill()
        server.wait()


def test_a_slow_consumer_sees_what_is_new() -> None:
    """It loses old results, which are counted; frames are captured and answered at the camera's own pace."""
    ages: list[float] = []

    def slow(result: Result) -> None:
        ages.append(time.monotonic() - result.frame.captured)
        time.sleep(0.2)

    camera = FakeSource("yard", count=None, gap_s=0.02)
    with running(Stream(FakeAnswerer(), camera, gate=None, keep_results=1), slow) as stream:
        until(lambda: len(ages) >= 8, 20)
        stats = stream.stats().cameras[0]
    assert stats.answered > 30
    assert stats.undelivered > 20
    assert sorted(ages)[len(ages) // 2] < 0.15  # not the age of a queue that grows
    assert_all_counted(stream.stats())


def test_a_slow_listener_holds_up_nobody() -> None:
    """`on_event` takes a second for each event; results come as ever, and the end is not kept waiting for long."""
    heard: list[Event] = []

    def slow(event: Event) -> None:
        time.sleep(1.0)
        heard.append(event)

    results: list[float] = []
    camera = FakeSource("yard", count=None, gap_s=0.02, value=lambda index: 255 * (index // 3 % 2))
    stream = Stream(FakeAnswerer(), camera, gate=None, smoothing=None, enter_s=0.0, leave_s=0.0, on_event=slow)
    with running(stream, lambda result: results.append(time.monotonic())):
        until(lambda: len(results) > 75, 20)
        began = time.monotonic()
    assert time.monotonic() - began < 9
    gaps = np.diff(results)
    assert sorted(gaps)[len(gaps) * 9 // 10] < 0.2
    (listener,) = stream.sink_stats()
    assert listener.delivered >= len(heard) > 0
    assert listener.delivered + listener.lost == stream.stats().events


def app(source: str, events: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.stream.hard_app", source, str(events)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n", process.communicate()[1]
    return process


def whole_lines(path: Path) -> list[dict[str, object]]:
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


@needs_gstreamer
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle(number: signal.Signals, tmp_path: Path) -> None:
    """The end is clean and soon: what is in view leaves, every event stands in the file, nothing runs on."""
    name = f"signal-{os.getpid()}-{number}"
    process = app(f"{BLINKING} ! identity name={name}", tmp_path / "events.jsonl")
    try:
        until(lambda: (tmp_path / "events.jsonl").stat().st_size > 1000, 20)
        process.send_signal(number)
        began = time.monotonic()
        printed, complaints = process.communicate(timeout=20)
        assert time.monotonic() - began < 2.0
    finally:
        process.kill()
    assert (process.returncode, complaints) == (0, "")
    stats = json.loads(printed)
    events = whole_lines(tmp_path / "events.jsonl")
    assert len(events) == stats["events"]
    assert stats["events_lost"] == 0
    in_view: set[object] = set()
    for event in events:
        (in_view.add if event["event"] == "appeared" else in_view.remove)(event["label"])
    assert not in_view
    (camera,) = stats["cameras"]
    assert camera["captured"] == sum(camera[key] for key in ("answered", "repeated", "dropped", "failed", "waiting"))
    assert_gone(name)


@needs_gstreamer
def test_the_app_itself_is_killed(tmp_path: Path) -> None:
    """kill -9 leaves whole lines and no pipeline, and the next run adds to the same file."""
    events = tmp_path / "events.jsonl"
    for times in (1, 2):
        name = f"killed-{os.getpid()}-{times}"
        process = app(f"{BLINKING} ! identity name={name}", events)
        size = events.stat().st_size
        until(lambda size=size: events.stat().st_size > size + 2000, 20)  # type: ignore[misc]
        process.kill()
        process.communicate()
        assert_gone(name)
        assert len(whole_lines(events)) > 5 * times


def assert_gone(word: str) -> None:
    """No process has this word in its command line."""

    def runs() -> bool:
        for line in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if word in line.read_bytes().decode(errors="replace"):
                    return True
            except OSError:
                continue
        return False

    until(lambda: not runs(), 5)
