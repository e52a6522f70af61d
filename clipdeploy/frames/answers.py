"""What the float32 image encoder answers to a bundle's golden pictures as camera frames: what engines are held to.

An engine that takes frames gives no pixels to compare. Its self-test compares embeddings with these, which come of the
runtime's own preprocessing and of nothing that the engine is made of but the encoder's weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clipdeploy.bundle import Bundle, NewFile
from clipdeploy.runtime.backends import open_session
from clipdeploy.runtime.selftest.golden import has_samples
from clipdeploy.runtime.selftest.golden_frames import answers_name, make_answers
from clipdeploy.spec import FrameSpec, Precision, Tower


def answers_to(bundle: Bundle, frames: Sequence[FrameSpec], folder: Path, backend: str) -> list[NewFile]:
    """Write the answers for each kind of frames into `folder`; none where the bundle has no golden samples, or no
    image encoder in float32."""
    if not has_samples(bundle) or Precision.FP32 not in bundle.precisions(Tower.IMAGE):
        return []
    session, files = open_session(bundle.graph(Tower.IMAGE), backend=backend), []
    try:
        for frame in frames:
            name = answers_name(frame)
            path = folder / Path(name).name
            make_answers(bundle, frame, session.run, path)
            origin = f"frames, the golden pictures as frames of {frame} through {bundle.graph_name(Tower.IMAGE)}"
            files.append(NewFile(name, path, kind="golden", origin=origin))
    finally:
        session.close()
    return files
