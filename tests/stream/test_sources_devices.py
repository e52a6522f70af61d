"""Cameras at this machine, played by a library that behaves like OpenCV."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from threading import Event
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clipdeploy.errors import SourceError
from clipdeploy.runtime.stream.sources import devices, open_source

DEVICE = "/dev/null"  # a character device that is everywhere


class Capture:
    """A camera of 50 frames a second; `script` says what befalls it at which frame."""

    script: dict[int, str] = {}  # noqa: RUF012 - each test sets its own
    released = 0

    def __init__(self, path: str, api: int) -> None:
        assert (path, api) == (DEVICE, 200)
        self.number = -1

    def isOpened(self) -> bool:
        return self.script.get(-1) != "busy"

    def read(self) -> tuple[bool, Any]:
        self.number += 1
        time.sleep(0.02)
        what = self.script.get(self.number)
        if what == "hang":
            time.sleep(3)
        if what in ("unplugged", "hang"):
            return False, None
        return True, np.full((4, 6, 3), (self.number % 250, 0, 255), np.uint8)

    def release(self) -> None:
        type(self).released += 1


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> type[Capture]:
    library: Any = ModuleType("cv2")
    library.CAP_V4L2, library.COLOR_BGR2RGB = 200, 4
    library.VideoCapture = Capture
    library.cvtColor = lambda pixels, _: np.ascontiguousarray(pixels[..., ::-1])
    library.videoio_registry = SimpleNamespace(getCameraBackends=lambda: [200], getBackendName=lambda _: "V4L2")
    monkeypatch.setitem(sys.modules, "cv2", library)
    Capture.script, Capture.released = {}, 0
    return Capture


def opened(**options: Any) -> Any:
    given: dict[str, Any] = {"name": "door", "color": "rgb", "fps": None, "live": True, "timeout_s": 5.0, **options}
    return devices.open_device(DEVICE, **given)


@pytest.mark.parametrize(("color", "first"), [("rgb", 255), ("bgr", 0)])
def test_frames_of_a_camera(camera: type[Capture], color: str, first: int) -> None:
    with closing(opened(color=color).frames(Event())) as frames:
        given = [next(frames) for _ in range(5)]
    assert [frame.index for frame in given] == sorted({frame.index for frame in given})
    assert (given[0].camera, given[0].color, given[0].position) == ("door", color, None)
    assert given[0].pixels[0, 0, 0] == first
    time.sleep(0.1)
    assert camera.released == 1


def test_of_a_camera_the_newest_frame_counts(camera: type[Capture]) -> None:
    with closing(opened().frames(Event())) as frames:
        first = next(frames).index
        time.sleep(0.5)
        next(frames)
        assert next(frames).index - first > 12


def test_a_camera_that_is_unplugged(camera: type[Capture]) -> None:
    camera.script = {3: "unplugged"}
    with pytest.raises(SourceError, match=r"the camera /dev/null has broken off"):
        list(opened().frames(Event()))
    assert camera.released == 1


def test_a_camera_that_another_program_uses(camera: type[Capture]) -> None:
    camera.script = {-1: "busy"}
    with pytest.raises(SourceError, match="cannot be opened") as caught:
        list(opened().frames(Event()))
    assert "fuser /dev/null" in (caught.value.fix or "")


def test_a_camera_that_hangs(camera: type[Capture]) -> None:
    camera.script = {3: "hang"}
    began = time.monotonic()
    with pytest.raises(SourceError, match=r"door: no picture came for 0.4 s"):
        list(opened(timeout_s=0.4).frames(Event()))
    assert time.monotonic() - began < 2
    stop = Event()
    threading.Timer(0.3, stop.set).start()
    began = time.monotonic()
    list(opened().frames(stop))
    assert time.monotonic() - began < 1.3


def test_a_camera_without_opencv_goes_through_gstreamer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setattr(devices.shutil, "which", lambda _: "/usr/bin/gst-launch-1.0")
    source = opened(color="nv12")
    assert source._command[1:6] == ["v4l2src", f"device={DEVICE}", "!", "decodebin", "!"]
    assert source.live


def test_nothing_to_read_a_camera_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setattr(devices.shutil, "which", lambda _: None)
    with pytest.raises(SourceError, match="nothing here can read the camera") as caught:
        opened()
    assert "opencv-python-headless" in (caught.value.fix or "")
    assert "gstreamer1.0-tools" in (caught.value.fix or "")


def test_no_camera_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no camera /dev/video77") as caught:
        open_source("/dev/video77")
    assert "cameras there are" in (caught.value.fix or "")
    (tmp_path / "video0").write_bytes(b"")
    with pytest.raises(SourceError, match="is no camera"):
        devices.check_device(str(tmp_path / "video0"))


def test_a_camera_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.os, "access", lambda *_: False)
    with pytest.raises(SourceError, match="may not be read by this user") as caught:
        devices.check_device(DEVICE)
    assert "usermod -aG video" in (caught.value.fix or "")
