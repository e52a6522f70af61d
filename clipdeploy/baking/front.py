"""The graph that makes pixels of camera frames: the bundle's own, or one made for the occasion."""

from __future__ import annotations

from pathlib import Path

from onnx.helper import find_min_ir_version_for, make_opsetid

from clipdeploy.bundle import Bundle
from clipdeploy.errors import ParityError
from clipdeploy.frames.graph import frame_graph
from clipdeploy.runtime.backends import ONNXRUNTIME, open_session
from clipdeploy.runtime.framed import frame_pixels, frames_at_once
from clipdeploy.runtime.selftest.frames import expected_pixels, pixel_drift, synthetic_frames
from clipdeploy.spec import FrameSpec, Precision, Tower

_OPSET = 19


def front_graph(bundle: Bundle, frame: FrameSpec, scratch: Path) -> Path:
    """The path of the graph for these frames; one that is made is held against the runtime's own preprocessing.

    Args:
        bundle: whose image encoder takes the pixels.
        frame: what it takes.
        scratch: a folder for one that the bundle lacks.

    Raises:
        ParityError: one that was made does not make the pixels that the runtime makes.
    """
    if frame in bundle.frames():
        return bundle.frame_graph(frame)
    opset, spec = _opset(bundle), bundle.model
    ir_version = find_min_ir_version_for([make_opsetid("", opset)])
    model = frame_graph(frame, spec.pixels, spec.image.input, opset=opset, ir_version=ir_version)
    path = scratch / "frames.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    session = open_session(path, backend=ONNXRUNTIME)
    try:
        rows = frames_at_once(session)
        drawn = synthetic_frames(frame)
        drift = pixel_drift(frame_pixels(session, drawn, rows), expected_pixels(drawn, frame, spec.pixels), spec.pixels)
    finally:
        session.close()
    if not drift.passed:
        raise ParityError(
            f"the graph for frames of {frame} does not make the pixels that the checkpoint wants: {drift.told}",
            fix="bake without --frame; and report this: it is a defect",
        )
    return path


def _opset(bundle: Bundle) -> int:
    """The operator set of the image encoder."""
    entries = [e for e in bundle.manifest.files.values() if e.kind == "graph" and e.tower is Tower.IMAGE]
    entries.sort(key=lambda entry: entry.precision is not Precision.FP32)
    return entries[0].opset or _OPSET
