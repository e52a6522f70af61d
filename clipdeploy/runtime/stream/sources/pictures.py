"""Folders and patterns of picture files."""

from __future__ import annotations

import glob
import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

from PIL import Image

from clipdeploy.errors import InputError, SourceError
from clipdeploy.runtime.stream.records import Frame
from clipdeploy.runtime.stream.sources.iterables import picture_pixels
from clipdeploy.runtime.stream.sources.pace import Pace
from clipdeploy.runtime.stream.sources.source import Stamp
from clipdeploy.runtime.suffixes import PICTURES
from clipdeploy.spec import FrameColor

_log = logging.getLogger("clipdeploy.stream")
_LOOK_S = 0.25
_WRITTEN_S = 1.0
"""A file that cannot be read is looked at again for so long after it last changed: it may be half written."""


class Pictures:
    """The pictures of a folder, of a pattern, or one alone, by name, with numbers in the order that people count.

    A file that cannot be read is left out, told once in the log and kept in `skipped`; none that can is an error.

    Args:
        place: a folder, a file, or a pattern such as `shots/*.jpg`.
        name: of the camera.
        color: of the frames; not `nv12`.
        fps: how many a second they are, for their positions; None where they have none.
        realtime: whether they are played at `fps`.
        loop: whether they begin anew at the end.
        follow: whether to wait for new files at the end, until `stop`; then it is live, and frames have no position.

    Attributes:
        skipped: path and reason of each file that was left out, the last hundred.
    """

    def __init__(
        self,
        place: str,
        *,
        name: str,
        color: FrameColor,
        fps: float | None,
        realtime: bool,
        loop: bool,
        follow: bool = False,
    ) -> None:
        if color == "nv12":
            raise InputError(f"{name}: pictures are not to be had as nv12 frames", fix="take them as rgb or bgr")
        if realtime and not follow and fps is None:
            raise InputError(f"{name}: nothing says how fast its pictures are to be played", fix="give fps")
        if follow and loop:
            raise InputError(f"{name}: a folder that is followed has no end to begin anew at", fix="leave out loop")
        self.name = name
        self.live = realtime or follow
        self.mends = follow  # new files may come; those that cannot be read stay so
        self.skipped: list[tuple[Path, str]] = []
        self._place = place
        self._color: FrameColor = color
        self._fps = None if follow else fps
        self._pace = realtime and not follow
        self._loop = loop
        self._follow = follow
        self._seen: dict[Path, int] = {}  # when they were last written, in ns
        self._stamp = Stamp(name, color)
        if not self._files() and not follow:
            raise SourceError(
                f"{place} holds no picture", fix=f"supported: {' '.join(PICTURES)}; videos are named one by one"
            )

    def frames(self, stop: Event) -> Iterator[Frame]:
        """See `Source`."""
        if self._follow:
            yield from self._followed(stop)
            return
        pace = Pace() if self._pace else None
        while not stop.is_set():
            given = 0
            for path in self._files():
                if stop.is_set():
                    return
                picture = self._read(path)
                if picture is None:
                    continue
                given += 1
                index = self._stamp.count()
                position = None if self._fps is None else index / self._fps
                if pace is None or pace.wait(position or 0.0, stop):
                    yield self._stamp.frame(picture_pixels(picture, self._color), index, position=position)
            if not given:
                raise self._nothing()
            if not self._loop:
                return

    def _followed(self, stop: Event) -> Iterator[Frame]:
        """Every picture once, and again when it was written anew."""
        while not stop.is_set():
            for path in self._files():
                if stop.is_set():
                    return
                try:
                    written = path.stat().st_mtime_ns
                except FileNotFoundError:
                    continue
                if self._seen.get(path) == written:
                    continue
                picture = self._read(path, patient=time.time() - written / 1e9 < _WRITTEN_S)
                if picture is not None:
                    yield self._stamp.frame(picture_pixels(picture, self._color), self._stamp.count())
                elif time.time() - written / 1e9 < _WRITTEN_S:
                    continue
                self._seen[path] = written
            self._seen = {path: written for path, written in self._seen.items() if path.exists()}
            stop.wait(_LOOK_S)

    def _files(self) -> list[Path]:
        """What there is now; raises SourceError."""
        path = Path(self._place)
        try:
            if path.is_dir():
                found = list(path.iterdir())
            elif path.exists():
                return [path]
            elif glob.has_magic(self._place):
                found = [Path(name) for name in glob.iglob(self._place, recursive=True)]  # noqa: PTH207 - absolute ones too
            else:
                raise SourceError(f"{self._place} does not exist", fix="check the path of the folder or picture")
        except OSError as error:
            raise SourceError(f"{self._place} cannot be read: {error.strerror}", fix="check its permissions") from error
        return sorted((p for p in found if p.suffix.lower() in PICTURES and not p.name.startswith(".")), key=_by_count)

    def _read(self, path: Path, *, patient: bool = False) -> Image.Image | None:
        """A picture; None where it cannot be read, which is told unless `patient`."""
        try:
            picture: Image.Image
            with Image.open(path) as picture:
                picture.load()
                return picture
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            if not patient:
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                if all(path != one for one, _ in self.skipped):
                    _log.warning("%s: %s is left out: %s", self.name, path, reason)
                    self.skipped = [*self.skipped[-99:], (path, reason)]
            return None

    def _nothing(self) -> SourceError:
        why = f"; {self.skipped[-1][0].name}: {self.skipped[-1][1]}" if self.skipped else ""
        return SourceError(f"none of the pictures of {self._place} can be read{why}", fix="check the files")


def _by_count(path: Path) -> tuple[str, list[tuple[int, str]]]:
    """Folder, then the name with its numbers as numbers: 9.jpg before 10.jpg."""
    parts = re.split(r"(\d+)", path.name)
    return str(path.parent), [(int(part), "") if part.isdecimal() else (0, part) for part in parts]
