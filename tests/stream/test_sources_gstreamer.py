"""GStreamer pipelines in processes of their own: what they give, and how they end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from clipdeploy.errors import SourceError
from clipdeploy.runtime.nv12 import nv12_to_rgb
from clipdeploy.runtime.stream.records import Frame
from clipdeploy.runtime.stream.sources import open_source
from clipdeploy.runtime.stream.sources.gdp import Caps
from clipdeploy.runtime.stream.sources.gstreamer import command, complaint

TEST = "videotestsrc pattern=smpte75 is-live=true ! video/x-raw,width=322,height=240,framerate=30/1"


def _why_not() -> str | None:
    if not shutil.which("gst-inspect-1.0"):
        return "gstreamer1.0-tools is not installed"
    missing = [
        package
        for element, package in (("videotestsrc", "base"), ("gdppay", "bad"), ("avdec_h264", "libav"))
        if subprocess.run(["gst-inspect-1.0", "--exists", element], check=False, timeout=60).returncode
    ]
    return f"GStreamer lacks its plugins: {', '.join(missing)}" if missing else None


_REASON = _why_not()
needs_gstreamer = pytest.mark.skipif(_REASON is not None, reason=str(_REASON))


def children() -> set[int]:
    """GStreamer processes that this one started."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                name, _, rest = (entry / "stat").read_text().rpartition(")")
            except OSError:
                continue
            if int(rest.split()[1]) == os.getpid() and "gst-launch" in name:
                found.add(int(entry.name))
    return found


def some(what: str, count: int, **options: object) -> list[Frame]:
    with closing(open_source(what, **options).frames(Event())) as frames:  # type: ignore[arg-type, type-var]
        return [next(frames) for _ in range(count)]


@needs_gstreamer
@pytest.mark.parametrize("color", ["rgb", "bgr", "nv12"])
def test_a_pipeline_gives_frames(color: str) -> None:
    """SMPTE bars begin with white, yellow, cyan at three quarters; rows of 322 px are padded in GStreamer."""
    frame = some(f"gst:{TEST}", 2, color=color)[-1]
    assert frame.pixels.shape == ((360, 322) if color == "nv12" else (240, 322, 3))
    assert frame.pixels.flags.c_contiguous
    pixels = nv12_to_rgb(frame.pixels) if color == "nv12" else frame.pixels
    pixels = pixels[..., ::-1] if color == "bgr" else pixels
    bars = pixels[50, 23::46].astype(int)[:3]
    assert np.abs(bars - [[191, 191, 191], [191, 191, 0], [0, 191, 191]]).max() <= 4
    assert children() == set()


@needs_gstreamer
def test_nv12_is_bt601_whatever_the_camera_says() -> None:
    pipeline = TEST.replace("is-live=true", "") + ",format=I420,colorimetry=bt709"
    pixels = nv12_to_rgb(some(pipeline, 1, color="nv12")[0].pixels)
    assert np.abs(pixels[50, 23::46].astype(int)[:3] - [[191, 191, 191], [191, 191, 0], [0, 191, 191]]).max() <= 4


@needs_gstreamer
def test_a_pipeline_as_opencv_takes_it() -> None:
    frames = some(f"{TEST} ! videoconvert ! appsink drop=true max-buffers=1 sync=false", 2)
    assert frames[0].pixels.shape == (240, 322, 3)


@needs_gstreamer
def test_a_pipeline_keeps_to_its_clock_and_the_newest_frame_counts() -> None:
    source = open_source("videotestsrc ! video/x-raw,width=64,height=48,framerate=20/1")
    with closing(source.frames(Event())) as frames:  # type: ignore[type-var]
        first = next(frames)
        began = time.monotonic()
        time.sleep(1.0)
        next(frames)
        last = next(frames)
    assert abs((last.index - first.index) - 20 * (time.monotonic() - began)) < 6


@needs_gstreamer
def test_every_frame_of_a_file(tmp_path: Path) -> None:
    pytest.importorskip("av")
    from tests.stream.films import demo_frames, write_film

    truth = demo_frames(1)
    film = write_film(tmp_path / "a film.mp4", truth)
    source = open_source(f'filesrc location="{film}" ! decodebin', realtime=False)
    frames = list(source.frames(Event()))
    assert not source.live
    assert [frame.position for frame in frames] == pytest.approx([n / 15 for n in range(15)], abs=2e-3)
    assert max(np.abs(f.pixels.astype(int) - t).mean() for f, t in zip(frames, truth, strict=True)) < 5


@needs_gstreamer
@pytest.mark.parametrize(
    ("pipeline", "words"),
    [
        ("filesrc location=nowhere.mp4 ! decodebin", 'No such file "nowhere.mp4"'),
        ("nosuchelement ! decodebin", 'no element "nosuchelement"'),
        ("audiotestsrc ! audioconvert", "could not link"),
        ("videotestsrc num-buffers=0", "ended without a frame"),
        (f"{TEST},format=I420 ! identity error-after=5", "identity0"),
        ("videotestsrc is-live=true num-buffers=3", "ended though it is live"),
    ],
)
def test_a_pipeline_that_fails_says_why(pipeline: str, words: str) -> None:
    with pytest.raises(SourceError) as caught:
        list(open_source(f"gst:{pipeline}").frames(Event()))
    assert words in caught.value.message
    assert caught.value.fix
    assert children() == set()


@needs_gstreamer
def test_no_password_of_a_pipeline_is_told() -> None:
    pipeline = "rtspsrc location=rtsp://bob:hunter2@127.0.0.1:1/a user-pw=hunter2 ! decodebin"
    source = open_source(pipeline)
    with pytest.raises(SourceError) as caught:
        list(source.frames(Event()))
    assert "hunter2" not in str(caught.value) + source.name


@needs_gstreamer
def test_a_pipeline_that_is_killed_is_a_source_that_broke_off() -> None:
    source = open_source(TEST)
    frames = source.frames(Event())
    first = next(frames)
    (child,) = children()
    os.kill(child, signal.SIGKILL)
    with pytest.raises(SourceError, match=r"was ended by SIGKILL"):
        list(frames)
    assert next(source.frames(Event())).index > first.index  # it can be opened again


@needs_gstreamer
def test_a_pipeline_that_hangs_is_noticed_and_ended() -> None:
    frames = open_source(TEST, timeout_s=0.6).frames(Event())
    next(frames)
    (child,) = children()
    os.kill(child, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(SourceError, match=r"no picture came for 0.6 s"):
        list(frames)
    assert time.monotonic() - began < 2
    time.sleep(0.2)
    assert children() == set()


@needs_gstreamer
@pytest.mark.parametrize("pipeline", [TEST, "videotestsrc ! valve drop=true ! video/x-raw,format=RGB,width=8,height=8"])
def test_a_pipeline_stops_when_told_and_leaves_nothing(pipeline: str) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a Path per descriptor would open one more
    stop = Event()
    threading.Timer(0.4, stop.set).start()
    began = time.monotonic()
    list(open_source(pipeline).frames(stop))
    assert time.monotonic() - began < 1.4
    time.sleep(0.2)
    assert children() == set()
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


@needs_gstreamer
def test_a_pipeline_dies_with_us() -> None:
    """Also where we are killed, and where no frame would tell it that nobody reads."""
    app = f"""
import os, sys, threading, time
from clipdeploy.runtime.stream.sources import open_source
frames = open_source("{TEST} ! valve name=shut", timeout_s=60).frames(threading.Event())
next(frames)
print(*[p for p in os.listdir("/proc") if p.isdecimal() and "gst-launch" in open(f"/proc/{{p}}/stat").read()
        and open(f"/proc/{{p}}/stat").read().rpartition(")")[2].split()[1] == str(os.getpid())], flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", app], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    os.kill(child, signal.SIGSTOP)  # so that only the kernel can end it
    process.kill()
    process.wait(10)
    process.stdout.close()
    for _ in range(50):
        try:
            state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the pipeline outlived the app")


@needs_gstreamer
def test_nv12_has_even_sides() -> None:
    with pytest.raises(SourceError, match="even sides"):
        some("videotestsrc ! video/x-raw,width=321,height=241", 1, color="nv12")


def test_gstreamer_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SourceError, match=r"gst-launch-1.0, which runs .* is not installed") as caught:
        open_source("gst:videotestsrc")
    assert "gstreamer1.0-tools" in (caught.value.fix or "")


def test_nothing_of_a_pipeline_reaches_a_shell() -> None:
    parts = command('filesrc location="a $(b); `c`.mp4" ! decodebin', "rgb", live=False)
    assert parts[1:5] == ["filesrc", "location=a $(b); `c`.mp4", "!", "decodebin"]


def test_complaints_are_found_among_the_chatter() -> None:
    lines = (
        "Setting pipeline to PAUSED ...",
        "ERROR: from element /GstPipeline:pipeline0/GstV4l2Src:v4l2src0: Cannot identify device '/dev/video7'.",
        "Additional debug info:",
        "../sys/v4l2/v4l2_calls.c(608): gst_v4l2_open (): /GstPipeline:pipeline0/GstV4l2Src:v4l2src0:",
        "system error: No such file or directory",
        "ERROR: pipeline doesn't want to preroll.",
    )
    assert complaint(lines) == "v4l2src0: Cannot identify device '/dev/video7'. system error: No such file or directory"
    assert complaint(("one", "two", "three", "four")) == "two; three; four"


def test_caps_that_are_no_video() -> None:
    with pytest.raises(SourceError, match="no raw video"):
        Caps.parse("audio/x-raw, format=(string)S16LE, rate=(int)44100")
