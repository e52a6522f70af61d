"""Frames and labels folded into the image graph: camera frame in, probabilities out, one graph or engine.

from clipdeploy.baking import BakeRequest, bake_bundle

bake_bundle(BakeRequest(Path("b32"), Path("door"), labels=("a cat", "a dog"), frame=FrameSpec.parse("1920x1080:bgr")))
"""

from __future__ import annotations

from clipdeploy.baking.job import bake_bundle
from clipdeploy.baking.records import LABELS_FILE, BakedGraph, BakeOutcome, BakeRequest

__all__ = ["LABELS_FILE", "BakeOutcome", "BakeRequest", "BakedGraph", "bake_bundle"]
