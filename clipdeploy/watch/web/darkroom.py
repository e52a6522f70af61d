"""JPEGs of the newest frames, made when somebody looks, once for all who look."""

from __future__ import annotations

import io
from dataclasses import dataclass
from threading import Lock

from clipdeploy.watch.board import Board
from clipdeploy.watch.draw import picture_of

LONGEST_PX, QUALITY = 960, 80


@dataclass(frozen=True)
class Print:
    """A JPEG, and the number of the result that it shows."""

    number: int
    jpeg: bytes


class Darkroom:
    """Newest pictures as JPEGs; any number of threads may ask.

    Args:
        board: where results lie.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._locks = {camera: Lock() for camera in board.cameras}
        self._prints: dict[str, Print] = {}

    def newest(self, camera: str, after: int, timeout_s: float) -> Print | None:
        """The newest picture, if it is newer than number `after` or becomes so in time; else None."""
        seen = self._board.wait(camera, after, timeout_s)
        if seen is None:
            return None
        with self._locks[camera]:
            made = self._prints.get(camera)
            if made is None or made.number < seen.number:
                paper = io.BytesIO()
                picture_of(seen.result.frame, LONGEST_PX).save(paper, "JPEG", quality=QUALITY)
                made = self._prints[camera] = Print(seen.number, paper.getvalue())
            return made
