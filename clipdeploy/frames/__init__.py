"""Camera frames in the graph: resize, crop and normalisation of frames of a known size, as a graph of a bundle.

Needs onnx, and an engine to check what it wrote; never PyTorch.
"""

from __future__ import annotations

from clipdeploy.frames.job import add_frames
from clipdeploy.frames.records import FrameOutcome, FramesOutcome, FramesRequest

__all__ = ["FrameOutcome", "FramesOutcome", "FramesRequest", "add_frames"]
