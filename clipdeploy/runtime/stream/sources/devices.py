"""Cameras at this machine, by Video4Linux: with OpenCV, or else with GStreamer."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import SourceError
from clipdeploy.runtime.stream.records import Frame
from clipdeploy.runtime.stream.sources.gstreamer import Pipeline
from clipdeploy.runtime.stream.sources.reader import Reader
from clipdeploy.runtime.stream.sources.source import Source, Stamp, Thinning
from clipdeploy.spec import FrameColor

_INSTALL = "pip install opencv-python-headless, or sudo apt-get install gstreamer1.0-tools gstreamer1.0-plugins-good"


def open_device(path: str, *, name: str, color: FrameColor, fps: float | None, live: bool, timeout_s: float) -> Source:
    """The camera at a path.

    Raises:
        SourceError: there is none, it may not be read, or nothing here can read it.
    """
    check_device(path)
    library = None if color == "nv12" else _opencv()
    if library is not None:
        return OpenCvCamera(path, library, name=name, color=color, fps=fps, live=live, timeout_s=timeout_s)
    if shutil.which("gst-launch-1.0"):
        pipeline = f"gst:v4l2src device={path} ! decodebin"
        return Pipeline(pipeline, name=name, color=color, fps=fps, realtime=live, timeout_s=timeout_s)
    fix = _INSTALL.partition(", or ")[2] if color == "nv12" else _INSTALL
    raise SourceError(f"nothing here can read the camera {path} as {color}", fix=fix)


def check_device(path: str) -> None:
    """Raise SourceError where there is no camera that may be read."""
    device = Path(path)
    if not device.exists():
        there = ", ".join(str(one) for one in sorted(Path("/dev").glob("video*"))) or "none"
        raise SourceError(f"there is no camera {path}", fix=f"plug it in; cameras there are: {there}")
    if not stat.S_ISCHR(device.stat().st_mode):
        raise SourceError(f"{path} is no camera", fix="name a device such as /dev/video0")
    if not os.access(path, os.R_OK | os.W_OK):
        raise SourceError(
            f"the camera {path} may not be read by this user", fix="sudo usermod -aG video $USER, then log in again"
        )


def _opencv() -> Any:
    """OpenCV where it is installed and reads cameras, else None."""
    try:
        library = import_module("cv2")
    except ImportError:
        return None
    backends = {library.videoio_registry.getBackendName(one) for one in library.videoio_registry.getCameraBackends()}
    return library if "V4L2" in backends else None


class OpenCvCamera:
    """A camera, read by OpenCV; the newest frame counts.

    Args:
        path: the device.
        library: OpenCV.
        name: of the camera.
        color: `rgb` or `bgr`.
        fps: frames a second at most; None takes all.
        live: whether the newest frame counts; otherwise every one that the driver keeps is taken.
        timeout_s: after which a camera without a picture has broken off; the first may take twice as long.
    """

    def __init__(
        self, path: str, library: Any, *, name: str, color: FrameColor, fps: float | None, live: bool, timeout_s: float
    ) -> None:
        self.name = name
        self.live = live
        self._path = path
        self._cv2 = library
        self._color: FrameColor = color
        self._fps = fps
        self._timeout_s = timeout_s
        self._stamp = Stamp(name, color)

    def frames(self, stop: Event) -> Iterator[Frame]:
        """See `Source`."""
        check_device(self._path)
        reader: Reader[tuple[int, NDArray[np.uint8]]] = Reader(
            self._read,
            name=self.name,
            lossless=not self.live,
            first_s=2 * self._timeout_s,
            silent_s=self._timeout_s,
            fix="check the cable; `v4l2-ctl --list-devices` shows which cameras answer",
        )
        thinning = Thinning(self._fps)
        for index, pixels in reader.take(stop):
            frame = self._stamp.frame(pixels, index)
            if thinning.takes(frame.captured):
                yield frame

    def _read(self, reader: Reader[tuple[int, NDArray[np.uint8]]]) -> None:
        camera = self._cv2.VideoCapture(self._path, self._cv2.CAP_V4L2)
        try:
            if not camera.isOpened():
                raise SourceError(
                    f"the camera {self._path} cannot be opened", fix=f"see which program uses it: fuser {self._path}"
                )
            while not reader.closing:
                there, pixels = camera.read()
                if not there:
                    raise SourceError(f"the camera {self._path} has broken off", fix="check its cable")
                index = self._stamp.count()
                if self._color == "rgb":
                    pixels = self._cv2.cvtColor(pixels, self._cv2.COLOR_BGR2RGB)
                if not reader.put((index, pixels)):
                    return
        finally:
            camera.release()
