"""The graph that makes pixels of camera frames: the bundle's own, or one made for the occasion."""

from __future__ import annotations

from pathlib import Path

from clipdeploy.bundle import Bundle
from clipdeploy.frames.job import checking_backend, make_graph, opset_of
from clipdeploy.spec import FrameSpec


def front_graph(bundle: Bundle, frame: FrameSpec, scratch: Path) -> Path:
    """The path of the graph for these frames; one that is made is held against the runtime's own preprocessing.

    Args:
        bundle: whose image encoder takes the pixels.
        frame: what it takes.
        scratch: a folder for one that the bundle lacks.

    Raises:
        InputError, ParityError: as `make_graph`.
    """
    if frame in bundle.frames():
        return bundle.frame_graph(frame)
    path = scratch / "frames.onnx"
    make_graph(bundle, frame, path, opset_of(bundle), checking_backend())
    return path
