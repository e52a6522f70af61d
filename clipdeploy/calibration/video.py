"""Frames of a video as calibration data, through PyAV, or through OpenCV where that is what is installed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdeploy.calibration.sources import Candidate
from clipdeploy.errors import CalibrationError, MissingExtraError
from clipdeploy.runtime.image import ImageProcessor

SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".wmv", ".flv"),
    *(".3gp", ".ogv", ".mjpeg", ".mjpg", ".h264", ".h265", ".hevc"),
)
"""Endings by which a file counts as a video."""

_WHOLE = 0.98
"""The share of the frames a file announces that must be there; announcements are rounded."""


class VideoFile:
    """The frames of a video, counted by going through it once.

    Raises:
        MissingExtraError: neither PyAV nor OpenCV is installed.
        CalibrationError: the file is no video, or holds no frame.
    """

    kind = "video"

    def __init__(self, path: Path) -> None:
        self._path = path
        self.decoder = decoder()
        announced, self.count = (_count_av if self.decoder == "av" else _count_cv2)(path)
        if not self.count:
            raise CalibrationError(
                f"{path} holds no frame that can be read", fix="check that it plays, or name pictures"
            )
        self.notes: tuple[str, ...] = ()
        if self.count < announced * _WHOLE:
            self.notes = (f"{path} ends early: {self.count} of {announced} frames are there, and were used",)

    def read(self, rows: Sequence[int], processor: ImageProcessor) -> Iterator[Candidate]:
        """See `Source.read`; a frame that cannot be decoded is a fault of its own."""
        frames = (_frames_av if self.decoder == "av" else _frames_cv2)(self._path, set(rows))
        missing = dict.fromkeys(rows)
        for index, frame in frames:
            del missing[index]
            yield Candidate(self._name(index), processor.crop(frame))
            if not missing:
                return
        for index in missing:
            yield Candidate(self._name(index), None, f"{self._name(index)} cannot be decoded")

    def _name(self, index: int) -> str:
        return f"{self._path} frame {index}"


def decoder() -> str:
    """`av` or `cv2`: what reads videos here.

    Raises:
        MissingExtraError: neither is installed.
    """
    for name in ("av", "cv2"):
        if find_spec(name) is not None:
            return name
    raise MissingExtraError("PyAV", extra="video", needed_for="reading frames from a video")


def _count_av(path: Path) -> tuple[int, int]:
    """The frames a file announces, 0 where it does not, and those that are there."""
    import av

    count = 0
    with _open_av(path) as container:
        (stream, *_) = container.streams.video
        announced = int(stream.frames)
        try:
            # Packets, not decoded: one a frame.
            for packet in container.demux(stream):
                count += packet.size > 0
        except av.error.FFmpegError:
            pass  # what follows cannot be told apart; the frames so far count
    return announced, count


def _frames_av(path: Path, wanted: set[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The wanted frames, `(H, W, 3)` uint8, RGB, upright."""
    import av

    index = 0
    with _open_av(path) as container:
        (stream, *_) = container.streams.video
        stream.thread_type = "AUTO"
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                frames = packet.decode() if packet is not None else []
            except av.error.FFmpegError:
                continue  # a damaged packet; the next may be whole
            if packet is None:
                return
            for frame in frames:
                if index in wanted:
                    turns = round(getattr(frame, "rotation", 0) / 90)  # counter-clockwise
                    yield index, np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
                index += 1


def _open_av(path: Path) -> Any:
    import av

    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise _no_video(path, str(error.strerror or error)) from error
    if not container.streams.video:
        container.close()
        raise _no_video(path, "it holds no pictures")
    return container


def _count_cv2(path: Path) -> tuple[int, int]:
    import cv2

    capture, count = _open_cv2(path), 0
    announced = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    while capture.grab():
        count += 1
    capture.release()
    return max(announced, 0), count


def _frames_cv2(path: Path, wanted: set[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    capture, index = _open_cv2(path), 0
    try:
        while capture.grab():
            if index in wanted:
                there, frame = capture.retrieve()
                if there:
                    yield index, np.ascontiguousarray(frame[:, :, ::-1])
            index += 1
    finally:
        capture.release()


def _open_cv2(path: Path) -> Any:
    import cv2

    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise _no_video(path, "OpenCV cannot open it")
    return capture


def _no_video(path: Path, why: str) -> CalibrationError:
    return CalibrationError(
        f"{path} is no video that can be read: {why}", fix="check that it plays, or name picture files"
    )
