"""What is asked of frame graphs, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clipdeploy.spec import FrameSpec


@dataclass(frozen=True)
class FramesRequest:
    """Which frames a bundle is to take as they come.

    Attributes:
        bundle: the bundle's folder.
        frames: sizes and colours, at least one; also as text, such as `1920x1080:bgr`.
        overwrite: make those anew that are there already.
    """

    bundle: Path
    frames: tuple[FrameSpec | str, ...]
    overwrite: bool = False


@dataclass(frozen=True)
class FrameOutcome:
    """One frame graph.

    Attributes:
        frame: what it takes.
        graph: its name in the bundle.
        built: False where it was there already.
        size_bytes: of the file.
        resized: width and height in px that a whole frame is scaled to.
        crop: left, top, right and bottom of what is kept of it.
        largest_levels: largest difference to the runtime's own preprocessing, of 255, on drawn frames; None where it
            was there already.
        share: of the values, those that differ at all.
    """

    frame: FrameSpec
    graph: str
    built: bool
    size_bytes: int
    resized: tuple[int, int]
    crop: tuple[int, int, int, int]
    largest_levels: float | None = None
    share: float | None = None


@dataclass(frozen=True)
class FramesOutcome:
    """What became of the frames asked for, in their order."""

    bundle: Path
    frames: tuple[FrameOutcome, ...]
    seconds: float
