"""A disk that is full: the stream goes on, events wait, and are written whole once there is room."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clipdeploy.runtime.stream import JsonLines, Stream
from tests.stream.fakes import FakeAnswerer, FakeSource, until
from tests.stream.test_hard import ROOT, assert_all_counted, running


def blinking() -> FakeSource:
    """Dark and bright in turn, an event every few hundredths of a second."""
    return FakeSource("yard", count=None, gap_s=0.005, value=lambda index: 255 * (index // 2 % 2))


def stream_to(sink: JsonLines) -> Stream:
    return Stream(
        FakeAnswerer(), blinking(), gate=None, smoothing=None, enter_s=0.0, leave_s=0.0, sinks=[sink], keep_results=1
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root; test_a_disk_that_stays_full needs none")
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_fills_up(small_disk: Path) -> None:
    """It is filled by others while the stream writes; then they make room."""
    events, other = small_disk / "events.jsonl", small_disk / "other"
    stream = stream_to(JsonLines(events))
    with running(stream):
        until(lambda: any(sink.delivered > 3 for sink in stream.sink_stats()), 10)
        fill(other)
        until(lambda: stream.sink_stats()[0].error is not None, 20)
        (sink,) = stream.sink_stats()
        assert "No space left" in (sink.error or "")
        answered = stream.stats().cameras[0].answered
        until(lambda: stream.stats().cameras[0].answered > answered + 50, 10)  # it goes on
        other.unlink()
        delivered = sink.delivered
        until(lambda: stream.sink_stats()[0].delivered > delivered, 15)
    stats = stream.stats()
    told = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
    (sink,) = stream.sink_stats()
    assert len(told) == sink.delivered
    assert sink.delivered + sink.lost == stats.events
    assert [event["frame"] for event in told] == sorted(event["frame"] for event in told)
    assert_all_counted(stats)


def fill(path: Path) -> None:
    """Write until there is no room."""
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(512))
            except OSError:
                return


def test_a_disk_that_stays_full() -> None:
    """Every write is refused: no frame waits for it, and every lost event is counted."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    stream = stream_to(JsonLines("/dev/full"))
    with running(stream):
        until(lambda: stream.stats().events > 30 and stream.stats().cameras[0].answered > 50, 10)
        began = time.monotonic()
    assert time.monotonic() - began < 8  # the last attempts have their time, no more
    stats = stream.stats()
    assert stats.latency_ms[1] < 500
    (sink,) = stream.sink_stats()
    assert (sink.delivered, sink.lost) == (0, stats.events)
    assert "No space left" in (sink.error or "")
    assert stats.events_lost == stats.events
    assert_all_counted(stats)


def test_a_video_on_a_disk_that_fills_up(small_disk: Path, demo_bundle: Path) -> None:
    """`watch --video`: the video ends early and says so; the cameras are watched to the end."""
    if shutil.which("gst-launch-1.0") is None:
        pytest.skip("no gst-launch-1.0: sudo apt-get install gstreamer1.0-tools gstreamer1.0-plugins-{base,bad}")
    pytest.importorskip("av", reason="needs the extra: pip install 'clipdeploy[video]'")
    source = "door=videotestsrc is-live=true pattern=snow ! video/x-raw,width=640,height=480,framerate=20/1"
    words = ["watch", demo_bundle, source, "--labels", "red circle,blue star", "--seconds", "6", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "clipdeploy", *map(str, words), "--video", str(small_disk / "seen.mp4")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    (video,), (camera,) = told["videos"], told["stats"]["cameras"]
    assert "the disk is full" in video["error"], done.stderr
    assert (camera["camera"], camera["state"]) == ("door", "ended")
    assert camera["answered"] + camera["repeated"] > video["frames"]
